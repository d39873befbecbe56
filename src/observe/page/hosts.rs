//! The host names under which a page answers.
//!
//! On loopback, or in a private network, only its host name protects a page from other sites. If a
//! site's name is made to resolve to that address, a browser treats both as the same origin, and
//! the site reads the whole page (DNS rebinding). An IP address as the host cannot be such a name.

use std::net::IpAddr;

use http::{Request, header::HOST};

/// The allowed names besides `localhost` and addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    pub(super) fn allow(&mut self, host: &str) {
        self.0.push(canonical(host).to_owned());
    }

    /// Returns whether the request names an allowed host.
    pub(super) fn allow_request<B>(&self, request: &Request<B>) -> bool {
        let mut named = request.headers().get_all(HOST).iter();
        let (header, second) = (named.next(), named.next());
        if second.is_some() {
            return false;
        }
        let header = header.map(|host| host.to_str().unwrap_or_default());
        // HTTP/2 has the host in the URI, as HTTP/1.1 has in proxy requests. Both must be allowed.
        let in_uri = request
            .uri()
            .authority()
            .map(|authority| authority.as_str());
        let mut hosts = [header, in_uri].into_iter().flatten().peekable();
        hosts.peek().is_some() && hosts.all(|host| self.allows(host))
    }

    fn allows(&self, authority: &str) -> bool {
        let host = canonical(authority);
        let is_address = || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        host == "localhost" || is_address() || self.0.contains(&host)
    }
}

/// Returns the host without its port and final dot, in lower case.
fn canonical(authority: &str) -> String {
    let without_port = match authority.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            // An IPv6 address without brackets has colons that start no port.
            if host.contains(':') && !host.ends_with(']') {
                authority
            } else {
                host
            }
        }
        _ => authority,
    };
    let host = without_port.strip_suffix('.').unwrap_or(without_port);
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_listed_names_are_allowed() {
        let mut hosts = Hosts::default();
        hosts.allow("Status.Internal:8080");
        for allowed in [
            "localhost",
            "LOCALHOST:9000",
            "localhost.:9000",
            "127.0.0.1",
            "10.1.2.3:80",
            "[::1]:9000",
            "[::1]",
            "status.internal",
            "status.internal:9000",
        ] {
            assert!(hosts.allows(allowed), "{allowed}");
        }
        for rejected in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "status.internal.evil.example",
            "user@localhost",
            "localhost:evil",
            "[::1].evil.example",
        ] {
            assert!(!hosts.allows(rejected), "{rejected}");
        }
    }

    #[test]
    fn a_request_names_one_host_that_is_allowed() {
        let request = |uri: &str, hosts: &[&str]| {
            let mut request = Request::get(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            Hosts::default().allow_request(&request.body(()).unwrap())
        };
        assert!(request("/", &["localhost"]));
        assert!(request("http://localhost/", &[]));
        assert!(!request("/", &[]));
        assert!(!request("/", &["localhost", "evil.example"]));
        assert!(!request("http://localhost/", &["evil.example"]));
        assert!(!request("http://evil.example/", &["localhost"]));
    }
}
