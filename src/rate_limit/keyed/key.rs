//! The key that a request is counted under.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
};

use crate::keyed::{FindKey, HasKey, KeyFn};

/// A key whose rejections are counted, with a label from a closure `Fn(&Req) -> String`.
#[derive(Clone, Copy)]
pub struct Labelled<K, F> {
    pub(in crate::rate_limit) key: K,
    pub(in crate::rate_limit) label: F,
}

/// Finds the key of a request. Implemented by closures `Fn(&Req) -> Option<K>`, where `K` is
/// [`Hash`].
pub trait Key<Req> {
    /// If true, rejections are counted by key, under its label.
    const COUNTED: bool = false;

    /// Returns the key's hash, or `None` if the request has no key.
    fn hash(&self, request: &Req, seed: &impl BuildHasher) -> Option<u64>;

    /// Returns the label of the request's key in
    /// [`heavy_hitters`](super::KeyedRateLimitHandle::heavy_hitters). Default: an empty one.
    fn label(&self, request: &Req) -> String {
        let _ = request;
        String::new()
    }
}

impl<F, Req, Other, K> Key<Other> for KeyFn<F, Req>
where
    F: Fn(&Other) -> Option<K>,
    K: Hash,
{
    #[inline]
    fn hash(&self, request: &Other, seed: &impl BuildHasher) -> Option<u64> {
        self.find(request).map(|key| seed.hash_one(key))
    }
}

#[cfg(feature = "http")]
impl<B> Key<http::Request<B>> for crate::keyed::ByHost {
    #[inline]
    fn hash(&self, request: &http::Request<B>, seed: &impl BuildHasher) -> Option<u64> {
        self.find(request).map(|host| seed.hash_one(host))
    }
}

impl<K: HasKey, F> HasKey for Labelled<K, F> {
    type Key = K::Key;
}

impl<K, F, Req> Key<Req> for Labelled<K, F>
where
    K: Key<Req>,
    F: Fn(&Req) -> String,
{
    const COUNTED: bool = true;

    #[inline]
    fn hash(&self, request: &Req, seed: &impl BuildHasher) -> Option<u64> {
        self.key.hash(request, seed)
    }

    fn label(&self, request: &Req) -> String {
        (self.label)(request)
    }
}

impl<K: fmt::Debug, F> fmt::Debug for Labelled<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labelled")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
