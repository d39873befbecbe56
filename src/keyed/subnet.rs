//! Addresses as keys.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as a key: a whole IPv4 address, or the first 64 bits of an IPv6 address.
///
/// A customer is given at least a /64, and so can call from 2^64 IPv6 addresses. If an IPv6 address
/// contains an IPv4 address, the key is the IPv4 address. Otherwise all clients behind a translator
/// would share one key:
///
/// | prefix | what | key |
/// |---|---|---|
/// | `::ffff:0:0/96` | IPv4-mapped | the IPv4 address |
/// | `::ffff:0:0:0/96` | IPv4-translated (RFC 7915) | the IPv4 address |
/// | `64:ff9b::/96` | NAT64 (RFC 6052) | the IPv4 address |
/// | `64:ff9b:1::/48` | local NAT64 (RFC 8215) | all 128 bits: they contain an IPv4 address, at an unknown position |
/// | `2002::/16` | 6to4 (RFC 3056) | the IPv4 address that owns the /48 |
/// | `2001::/32` | Teredo (RFC 4380) | the client's IPv4 address |
///
/// ```
/// use tower_keep::keyed::Subnet;
///
/// let of = |address: &str| Subnet::of(address.parse().unwrap());
/// assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
/// assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
/// assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
/// assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
/// assert_eq!(of("192.0.2.1"), of("64:ff9b::192.0.2.1"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet(IpAddr);

impl Subnet {
    /// Returns the subnet that an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(of_v6(address)),
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

fn of_v6(address: Ipv6Addr) -> IpAddr {
    let bits = u128::from(address);
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 1, ..] => address.into(),
        [0x2002, high, low, ..] => v4(high, low),
        // The client's address is written with all bits inverted.
        [0x2001, 0, .., high, low] => v4(!high, !low),
        _ => IpAddr::V6((bits >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(address: &str) -> Subnet {
        Subnet::of(address.parse().unwrap())
    }

    #[test]
    fn an_ipv6_key_is_written_as_its_network() {
        assert_eq!(of("2001:db8:1:3:5:6:7:8").0.to_string(), "2001:db8:1:3::");
    }

    #[test]
    fn clients_behind_nat64_have_a_key_each() {
        assert_eq!(of("64:ff9b::192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("64:ff9b::192.0.2.1"), of("64:ff9b::192.0.2.2"));
        assert_ne!(of("64:ff9b:1::192.0.2.1"), of("64:ff9b:1::192.0.2.2"));
        // An address that differs from the prefix in one bit is a customer like any other.
        assert_eq!(of("64:ff9b:0:1::1"), of("64:ff9b:0:1::2"));
        assert_eq!(of("64:ff9b:2::1"), of("64:ff9b:2::2"));
    }

    #[test]
    fn an_ipv4_address_has_one_key_however_it_is_written() {
        for written in [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "::ffff:0:192.0.2.1",
            "64:ff9b::192.0.2.1",
            "2002:c000:201::1",
            "2002:c000:201:ffff::1",
            // The example of RFC 4380, with this client.
            "2001:0:4136:e378:8000:63bf:3fff:fdfe",
        ] {
            assert_eq!(of(written), of("192.0.2.1"), "{written}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv6_customer_has_one_key(
            // All global unicast addresses above those of the table.
            high in 0x2003_u64 << 48..0x4000 << 48,
            low: u64,
            other: u64,
        ) {
            let of = |high: u64, low: u64| {
                let bits = u128::from(high) << 64 | u128::from(low);
                Subnet::of(Ipv6Addr::from(bits).into())
            };
            prop_assert_eq!(of(high, low), of(high, other));
            prop_assert_ne!(of(high, low), of(high ^ 1, low));
        }
    }
}
