//! The host that a request goes to, as a key.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Request, header::HOST, uri::Authority};

use crate::keyed::{FindKey, HasKey};

/// A host and port, as in `api.example:8080`. Upper and lower case are the same.
#[derive(PartialEq, Eq, Hash)]
pub struct Host(Authority);

/// Finds the [`Host`] that a request goes to: its URI's, or else that of its `Host` field.
///
/// For clients. What a *server* finds there is what its callers wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByHost;

impl HasKey for ByHost {
    type Key = Host;
}

impl<B> FindKey<Request<B>, Host> for ByHost {
    fn find(&self, request: &Request<B>) -> Option<Host> {
        match request.uri().authority() {
            Some(authority) => Some(Host(authority.clone())),
            None => of_field(request.headers()),
        }
    }
}

fn of_field(headers: &HeaderMap) -> Option<Host> {
    Authority::try_from(headers.get(HOST)?.as_bytes())
        .ok()
        .map(Host)
}

impl Host {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Host {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl std::str::FromStr for Host {
    type Err = http::uri::InvalidUri;

    fn from_str(host: &str) -> Result<Self, Self::Err> {
        host.parse().map(Self)
    }
}

/// A clone owns just its bytes. What is found in a request shares the buffer that the request was
/// read into, which a map of keys must not keep alive; a look-up needs no clone.
impl Clone for Host {
    fn clone(&self) -> Self {
        let bytes = Bytes::copy_from_slice(self.0.as_str().as_bytes());
        Authority::from_maybe_shared(bytes).map_or_else(|_| Self(self.0.clone()), Self)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(uri: &'static str, field: Option<&'static str>) -> Option<Host> {
        let mut request = Request::get(uri);
        if let Some(field) = field {
            request = request.header(HOST, field);
        }
        ByHost.find(&request.body(()).unwrap())
    }

    #[test]
    fn the_uri_goes_before_the_host_field() {
        let api = "api.example:80".parse::<Host>().unwrap();
        assert_eq!(found("http://api.example:80/a", None), Some(api.clone()));
        assert_eq!(
            found("http://API.Example:80/a", Some("b.example")),
            Some(api.clone())
        );
        assert_eq!(found("/a", Some("api.example:80")), Some(api));
        assert_eq!(found("/a", None), None);
        assert_eq!(found("/a", Some("not a host")), None);
    }

    #[test]
    fn a_clone_shares_no_buffer() {
        let found = found("http://api.example/a/long/path", None).unwrap();
        let kept = found.clone();
        assert_eq!(found, kept);
        assert_ne!(found.as_str().as_ptr(), kept.as_str().as_ptr());
    }
}
