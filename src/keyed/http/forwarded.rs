//! The client's address behind proxies.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Deref,
    sync::Arc,
};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, header::FORWARDED};

use crate::{
    ConfigError,
    keyed::{Subnet, http::network::Network},
};

#[cfg(test)]
mod tests;

/// The proxies in front of a server, which decide the entries of `X-Forwarded-For` that can be
/// trusted.
///
/// Each proxy appends the address that it was called from to the field. Everything left of the
/// first entry that your proxies have added was sent by the client, which may have written
/// anything. So the field is read from the right, through your own proxies, and the first address
/// that is not one of theirs is the client.
#[derive(Debug, Clone)]
pub struct Proxies {
    trusted: Trusted,
    field: Field,
    peer: fn(&Extensions) -> Option<SocketAddr>,
    /// If true, a peer with an unknown address is one of the proxies.
    alone: bool,
}

#[derive(Debug, Clone)]
enum Trusted {
    Hops(usize),
    Networks(Arc<[Network]>),
}

#[derive(Debug, Clone, Copy)]
enum Field {
    XForwardedFor,
    Forwarded,
}

/// Returns a closure that finds the [`Subnet`] of the client's address, as your proxies report it.
///
/// A request has no key if the field is missing, or has fewer entries than there are proxies. The
/// same holds if the client's entry is not an address, such as `unknown` or `_hidden`. By default
/// all requests without a key share **one limit**: see [`Missing`](crate::rate_limit::Missing).
///
/// A client that reaches the server without passing the proxies can write any address. Against
/// that, [`Proxies::networks`] also checks the peer's own address, and without one trusts no field.
///
/// ```
/// use tower_keep::{
///     keyed::{self, Proxies}, protocol::http::Server, rate_limit::{Rate, RateLimitLayer},
/// };
///
/// // A CDN in front of a load balancer: two proxies.
/// let key = keyed::forwarded(Proxies::hops(2));
/// # let request = http::Request::get("/")
/// #     .header("x-forwarded-for", "forged, 192.0.2.1")
/// #     .header("x-forwarded-for", "198.51.100.7").body(())?;
/// # assert_eq!(key(&request), Some(keyed::Subnet::of("192.0.2.1".parse()?)));
/// # let key = keyed::forwarded::<axum::body::Body>(Proxies::hops(2));
/// let limit = RateLimitLayer::builder(Rate::per_second(10))
///     .protocol(Server::new())
///     .keyed_by(key)
///     .build()?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn forwarded<B>(
    proxies: Proxies,
) -> impl Fn(&Request<B>) -> Option<Subnet> + Clone + Send + Sync {
    move |request| {
        let client = proxies.client(request.headers(), request.extensions())?;
        Some(Subnet::of(client))
    }
}

impl Proxies {
    /// Trusts this many proxies, one behind the other, all of which add to the field. The client is
    /// the entry that the outermost proxy has added. With no proxy, it is the peer.
    ///
    /// Use it only where no client can reach the server without passing them.
    #[must_use]
    pub fn hops(hops: usize) -> Self {
        Self::new(Trusted::Hops(hops))
    }

    /// Trusts any number of proxies with addresses in these networks: `10.0.0.0/8`,
    /// `2001:db8::/32`, `192.0.2.1`. The client is the first address from the right that is in none
    /// of them. If all are, it is the leftmost.
    ///
    /// The peer's address is checked first: if it is in none of the networks, it is the client, and
    /// the field is not read. If the peer's address is unknown, the request has no key, because
    /// anybody may have written the field. Then tell where the server puts the address
    /// ([`peer_from`](Self::peer_from)), or that only proxies can call
    /// ([`only_proxies_call`](Self::only_proxies_call)).
    ///
    /// # Errors
    /// An item is no network, or there is no item.
    pub fn networks<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let parse = |text: T| {
            let text = text.as_ref();
            Network::parse(text).ok_or_else(|| {
                let fix = "write an address, or a network as `10.0.0.0/8`";
                ConfigError::new("networks", text, fix)
            })
        };
        let networks: Arc<[Network]> = networks.into_iter().map(parse).collect::<Result<_, _>>()?;
        if networks.is_empty() {
            let fix = "name the networks of your proxies, or use `keyed::peer()` without any";
            return Err(ConfigError::new("networks", "empty", fix));
        }
        Ok(Self::new(Trusted::Networks(networks)))
    }

    /// Reads the `Forwarded` field of RFC 7239 instead of `X-Forwarded-For`.
    ///
    /// Only one field is read: a proxy adds to one of them, and forwards unchanged what the client
    /// has written into the other.
    #[must_use]
    pub fn rfc_7239(mut self) -> Self {
        self.field = Field::Forwarded;
        self
    }

    /// Sets the type `T` of the extension with the peer's address, such as axum's
    /// `ConnectInfo<SocketAddr>`. Default: [`SocketAddr`].
    #[must_use]
    pub fn peer_from<T>(mut self) -> Self
    where
        T: Deref<Target = SocketAddr> + Send + Sync + 'static,
    {
        self.peer = |extensions| extensions.get::<T>().map(|address| **address);
        self
    }

    /// Trusts the field where the peer's address is unknown, because only proxies can reach the
    /// server: it listens on a Unix socket, or on a network of their own. Default: the field is not
    /// trusted.
    ///
    /// For [`networks`](Self::networks). [`hops`](Self::hops) implies it.
    #[must_use]
    pub fn only_proxies_call(mut self) -> Self {
        self.alone = true;
        self
    }

    fn new(trusted: Trusted) -> Self {
        Self {
            trusted,
            field: Field::XForwardedFor,
            peer: |extensions| extensions.get().copied(),
            alone: false,
        }
    }

    fn client(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
        let peer = (self.peer)(extensions).map(|peer| peer.ip());
        let mut entries = self.field.entries(headers);
        match &self.trusted {
            Trusted::Hops(0) => peer,
            Trusted::Hops(hops) => entries.nth(hops - 1)?,
            Trusted::Networks(_) if peer.is_none() && !self.alone => None,
            Trusted::Networks(networks) => {
                let is_proxy = |address| networks.iter().any(|network| network.contains(address));
                if let Some(peer) = peer.filter(|peer| !is_proxy(*peer)) {
                    return Some(peer);
                }
                let mut client = peer;
                for entry in entries {
                    // An entry that is no address, because the proxy cannot or does not tell it,
                    // belongs to no proxy.
                    client = entry;
                    if !is_proxy(entry?) {
                        break;
                    }
                }
                client
            }
        }
    }
}

/// A function that parses an entry.
type AddressIn = fn(&[u8]) -> Option<IpAddr>;

impl Field {
    /// Returns the addresses in the field's entries, from the right. `None` for an entry without an
    /// address.
    fn entries(self, headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
        let (name, address) = match self {
            Self::XForwardedFor => (X_FORWARDED_FOR, address_of as AddressIn),
            Self::Forwarded => (FORWARDED, address_for as AddressIn),
        };
        let lines = headers.get_all(name).iter().rev();
        lines
            .map(HeaderValue::as_bytes)
            .flat_map(|line| from_the_right(line, b','))
            .filter(|entry| !entry.is_empty())
            .map(address)
    }
}

/// Returns the parts of a line between separators, the last first, without surrounding blanks.
///
/// Quoted strings are read from the right as well, so that a quote which the client left open does
/// not hide what a proxy has added after it.
fn from_the_right(line: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let part = match last_outside_quotes(line, separator) {
            Some(at) => {
                rest = Some(&line[..at]);
                &line[at + 1..]
            }
            None => {
                rest = None;
                line
            }
        };
        Some(part.trim_ascii())
    })
}

fn last_outside_quotes(line: &[u8], separator: u8) -> Option<usize> {
    let mut quoted = false;
    for at in (0..line.len()).rev() {
        match line[at] {
            // Within quotes, a quote after a backslash is text. The opening quote has no backslash
            // before it.
            b'"' if quoted && line[..at].ends_with(b"\\") => {}
            b'"' => quoted = !quoted,
            byte if byte == separator && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Returns the address in the `for` parameter of an entry of `Forwarded`. `None` if there is no
/// such parameter, or two.
fn address_for(entry: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in from_the_right(entry, b';') {
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        if name.eq_ignore_ascii_case(b"for") {
            if found.is_some() {
                return None;
            }
            found = Some(value);
        }
    }
    address_of(found?)
}

/// Parses `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`, quoted
/// or not. A port may be hidden, as `_` and a name.
fn address_of(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(unquoted(node)).ok()?;
    if let Some(bracketed) = node.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return fits.then_some(address.into());
    }
    if let Ok(address) = node.parse() {
        return Some(address);
    }
    let (address, port) = node.split_once(':')?;
    let address: Ipv4Addr = address.parse().ok()?;
    is_port(port).then_some(address.into())
}

fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"");
    inner
        .and_then(|inner| inner.strip_suffix(b"\""))
        .unwrap_or(value)
}

fn is_port(port: &str) -> bool {
    let hidden = port.strip_prefix('_');
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match hidden {
        Some(name) => !name.is_empty() && name.bytes().all(is_name),
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
