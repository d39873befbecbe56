//! What a request is counted under.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
};

/// A protocol, and how keys are found: what a [`KeyedRateLimitLayer`](super::KeyedRateLimitLayer) is generic over.
#[derive(Debug, Clone, Copy)]
pub struct Keyed<P, K> {
    pub(super) protocol: P,
    pub(super) key: K,
}

/// A key found by a closure `Fn(&Req) -> Option<K>`, where `K` is [`Hash`].
#[derive(Clone, Copy)]
pub struct ByRequest<F>(pub(super) F);

/// A key whose requests cost what a closure `Fn(&Req) -> u32` says.
#[derive(Clone, Copy)]
pub struct Costed<K, F> {
    pub(super) key: K,
    pub(super) cost: F,
}

/// A key whose rejections are counted, under what a closure `Fn(&Req) -> String` calls it.
#[derive(Clone, Copy)]
pub struct Watched<K, F> {
    pub(super) key: K,
    pub(super) label: F,
}

/// Finds the key of a request.
pub trait Key<Req>: Clone {
    /// The key's hash, or `None` if the request has no key.
    fn hash(&self, request: &Req, seed: &RandomState) -> Option<u64>;

    /// The units that the request takes of its key's limit. 0 is free. Default 1.
    fn cost(&self, request: &Req) -> u32 {
        let _ = request;
        1
    }

    /// What to call the request's key in [`top_keys`](super::KeyedRateLimitHandle::top_keys). Default: nothing.
    fn label(&self, request: &Req) -> String {
        let _ = request;
        String::new()
    }

    /// Whether rejections are counted by key, under its label. Default `false`.
    fn is_watched(&self) -> bool {
        false
    }
}

impl<F, Req, K> Key<Req> for ByRequest<F>
where
    F: Fn(&Req) -> Option<K> + Clone,
    K: Hash,
{
    fn hash(&self, request: &Req, seed: &RandomState) -> Option<u64> {
        (self.0)(request).map(|key| seed.hash_one(key))
    }
}

impl<K, F, Req> Key<Req> for Costed<K, F>
where
    K: Key<Req>,
    F: Fn(&Req) -> u32 + Clone,
{
    fn hash(&self, request: &Req, seed: &RandomState) -> Option<u64> {
        self.key.hash(request, seed)
    }

    fn cost(&self, request: &Req) -> u32 {
        (self.cost)(request)
    }

    fn label(&self, request: &Req) -> String {
        self.key.label(request)
    }

    fn is_watched(&self) -> bool {
        self.key.is_watched()
    }
}

impl<K, F, Req> Key<Req> for Watched<K, F>
where
    K: Key<Req>,
    F: Fn(&Req) -> String + Clone,
{
    fn hash(&self, request: &Req, seed: &RandomState) -> Option<u64> {
        self.key.hash(request, seed)
    }

    fn cost(&self, request: &Req) -> u32 {
        self.key.cost(request)
    }

    fn label(&self, request: &Req) -> String {
        (self.label)(request)
    }

    fn is_watched(&self) -> bool {
        true
    }
}

/// An address as a key: all of an IPv4 address, and the first 64 bits of an IPv6 one.
///
/// A customer is given at least a /64, and so has 2^64 IPv6 addresses to come from. An IPv4 address in IPv6's clothes
/// (`::ffff:192.0.2.1`) is the IPv4 address, or all of IPv4 would be one key.
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

impl<F> fmt::Debug for ByRequest<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRequest")
    }
}

impl<K: fmt::Debug, F> fmt::Debug for Costed<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Costed").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<K: fmt::Debug, F> fmt::Debug for Watched<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("key", &self.key).finish_non_exhaustive()
    }
}
