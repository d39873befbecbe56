//! Addresses as keys.

use std::net::IpAddr;

/// An address as a key: all of an IPv4 address, and the first 64 bits of an IPv6 one.
///
/// A customer is given at least a /64, and so has 2^64 IPv6 addresses to come from. An IPv4 address
/// in IPv6's clothes (`::ffff:192.0.2.1`) is the IPv4 address, or all of IPv4 would be one key.
///
/// ```
/// use tower_keep::keyed::Subnet;
///
/// let of = |address: &str| Subnet::of(address.parse().unwrap());
/// assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
/// assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
/// assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
/// assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet(IpAddr);

impl Subnet {
    /// The subnet that an address is counted under.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(IpAddr::V6((u128::from(address) >> 64 << 64).into())),
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}
