//! The host that a request goes to, as a key.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Range,
    str::FromStr,
};

use http::{
    HeaderMap, Request, Uri,
    header::HOST,
    uri::{Authority, InvalidUri, Scheme},
};

use crate::keyed::{FindKey, HasKey, http::length};

mod canonical;
#[cfg(test)]
mod tests;

/// A host and port, as in `api.example:8080`, compared as the URL standard does.
///
/// User, password and scheme are not part of it, nor is the port if it is the scheme's default (80
/// or 443). Upper and lower case are equal, and a final dot is ignored. An IP address is equal in
/// all its forms: `[::1]` and `[0:0:0:0:0:0:0:1]`, `127.0.0.1` and `0x7f.1`. Where the scheme is
/// unknown (in a `Host` field, in a text without one) both 80 and 443 are left out.
pub struct Host(Text);

/// The canonical text, in either form.
enum Text {
    /// A part of the request's authority: finding a key copies nothing.
    Part(Authority, Range<usize>),
    Own(Box<str>),
}

/// A finder of the [`Host`] that a request goes to: from its URI, or else from its `Host` field.
///
/// Use it in clients. On a *server* these are written by the callers.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByHost;

impl HasKey for ByHost {
    type Key = Host;
}

impl<B> FindKey<Request<B>, Host> for ByHost {
    fn find(&self, request: &Request<B>) -> Option<Host> {
        Host::of_head(request.uri(), request.headers())
    }
}

fn of_field(headers: &HeaderMap) -> Option<Host> {
    let authority = Authority::try_from(headers.get(HOST)?.as_bytes());
    Host::of(&authority.ok()?, None)
}

impl Host {
    /// Returns the host and port in their canonical form, such as `api.example:8080`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Part(authority, part) => &authority.as_str()[part.clone()],
            Text::Own(text) => text,
        }
    }

    /// Returns the host that a request with this head goes to.
    pub(crate) fn of_head(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        match uri.authority() {
            Some(authority) => Self::of(authority, uri.scheme()),
            None => of_field(headers),
        }
    }

    /// Returns the canonical host. `None` if no host is named.
    fn of(authority: &Authority, scheme: Option<&Scheme>) -> Option<Self> {
        let text = authority.as_str();
        if canonical::is_name(text) {
            return Some(Self(Text::Part(authority.clone(), 0..text.len())).of_a_length());
        }
        let start = text.rfind('@').map_or(0, |at| at + 1);
        let (written, port) = canonical::split(&text[start..]);
        let host = written.trim_end_matches('.');
        if host.is_empty() {
            return None;
        }
        let port = canonical::port(port).filter(|port| !is_of_scheme(port, scheme));
        let end = start + host.len();
        let text = match (canonical::host(host), port) {
            (None, None) => Text::Part(authority.clone(), start..end),
            // Only the colon is between host and port.
            (None, Some(port)) if text[end..].strip_prefix(':') == Some(port) => {
                Text::Part(authority.clone(), start..text.len())
            }
            (host_form, port) => {
                let mut own = host_form.unwrap_or_else(|| host.to_owned());
                if let Some(port) = port {
                    own = own + ":" + port;
                }
                Text::Own(own.into())
            }
        };
        Some(Self(text).of_a_length())
    }

    /// Shortens a host that is too long. A DNS name has at most 253 bytes. A caller can write any
    /// length, of which only the beginning and a digest are kept.
    fn of_a_length(self) -> Self {
        let short = length::shortened(self.as_str().as_bytes());
        // Authorities are ASCII.
        match short.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(short) => Self(Text::Own(short.into())),
            None => self,
        }
    }
}

fn is_of_scheme(port: &str, scheme: Option<&Scheme>) -> bool {
    match scheme.map(Scheme::as_str) {
        Some("http" | "ws") => port == "80",
        Some("https" | "wss") => port == "443",
        Some(_) => false,
        None => matches!(port, "80" | "443"),
    }
}

/// Parses a host with or without a scheme: `https://api.example`, `api.example:8080`.
impl FromStr for Host {
    type Err = InvalidUri;

    fn from_str(host: &str) -> Result<Self, InvalidUri> {
        let found = if host.contains("://") {
            let uri: Uri = host.parse()?;
            let authority = uri.authority();
            authority.and_then(|authority| Self::of(authority, uri.scheme()))
        } else {
            Self::of(&host.parse()?, None)
        };
        // An empty host gets the error of an empty authority.
        found.map_or_else(|| Err(Authority::from_str("").unwrap_err()), Ok)
    }
}

/// Clones only the bytes of the host. A host that is found in a request shares the buffer that the
/// request was read into, which a map of keys must not keep alive. A look-up needs no clone.
impl Clone for Host {
    fn clone(&self) -> Self {
        Self(Text::Own(self.as_str().into()))
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Host {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
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
