//! The key that a request is counted under.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
};

use crate::{
    keyed::{FindKey, HasKey, KeyFn},
    rate_limit::key_hash::{KeyHash, KeyHashing},
};

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

    /// Feeds the request's key to a hasher. Returns whether the request has one.
    fn hash(&self, request: &Req, hasher: &mut impl Hasher) -> bool;

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
    fn hash(&self, request: &Other, hasher: &mut impl Hasher) -> bool {
        self.find(request).map(|key| key.hash(hasher)).is_some()
    }
}

/// The hash of a request's key, `None` if it has none.
#[inline]
pub(super) fn hash_of<Req>(
    key: &impl Key<Req>,
    request: &Req,
    hashing: &KeyHashing,
) -> Option<KeyHash> {
    match hashing {
        KeyHashing::Own(hashing) => {
            let mut hasher = hashing.build_hasher();
            let found = key.hash(request, &mut hasher);
            found.then(|| KeyHash::new([hasher.finish(), 0]))
        }
        KeyHashing::Fleet(secret) => {
            let mut hasher = secret.hasher();
            let found = key.hash(request, &mut hasher);
            found.then(|| KeyHash::new(hasher.words()))
        }
    }
}

#[cfg(feature = "http")]
impl<B> Key<http::Request<B>> for crate::keyed::ByHost {
    #[inline]
    fn hash(&self, request: &http::Request<B>, hasher: &mut impl Hasher) -> bool {
        self.find(request).map(|host| host.hash(hasher)).is_some()
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
    fn hash(&self, request: &Req, hasher: &mut impl Hasher) -> bool {
        self.key.hash(request, hasher)
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
