//! What a request is counted under.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
};

use crate::rate_limit::ByRequest;

/// A key whose rejections are counted, under what a closure `Fn(&Req) -> String` calls it.
#[derive(Clone, Copy)]
pub struct Watched<K, F> {
    pub(super) key: K,
    pub(super) label: F,
}

/// Finds the key of a request. A closure `Fn(&Req) -> Option<K>` does, where `K` is [`Hash`].
pub trait Key<Req>: Clone {
    /// The key's hash, or `None` if the request has no key.
    fn hash(&self, request: &Req, seed: &RandomState) -> Option<u64>;

    /// What to call the request's key in [`top_keys`](super::KeyedRateLimitHandle::top_keys).
    /// Default: nothing.
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

impl<K, F, Req> Key<Req> for Watched<K, F>
where
    K: Key<Req>,
    F: Fn(&Req) -> String + Clone,
{
    fn hash(&self, request: &Req, seed: &RandomState) -> Option<u64> {
        self.key.hash(request, seed)
    }

    fn label(&self, request: &Req) -> String {
        (self.label)(request)
    }

    fn is_watched(&self) -> bool {
        true
    }
}

impl<K: fmt::Debug, F> fmt::Debug for Watched<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
