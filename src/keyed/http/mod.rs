//! Keys of HTTP requests.

mod forwarded;
mod host;
mod keys;
mod length;
mod network;

pub use forwarded::{Proxies, forwarded};
pub use host::{ByHost, Host};
pub use keys::{HeaderKey, header, host, peer, peer_from, peer_in};
