//! What each key may have in flight.

use std::{fmt, sync::Arc};

/// A builder's state: a bulkhead for each key that a closure finds.
#[derive(Clone)]
pub struct LimitByKey<K, F> {
    pub(super) key: F,
    pub(super) limits: Limits<K>,
}

/// The limits of keys that have one of their own.
pub(super) struct Limits<K>(Option<LimitFor<K>>);

type LimitFor<K> = Arc<dyn Fn(&K) -> Option<usize> + Send + Sync>;

impl<K, F> LimitByKey<K, F> {
    pub(crate) fn new(key: F) -> Self {
        Self {
            key,
            limits: Limits(None),
        }
    }

    pub(super) fn limit_for<L, G>(self, limit: G) -> Self
    where
        G: Fn(&K) -> L + Send + Sync + 'static,
        L: Into<Option<usize>>,
    {
        let limits = Limits(Some(Arc::new(move |key| limit(key).into())));
        Self { limits, ..self }
    }
}

impl<K> Limits<K> {
    /// That of a key, if it has one.
    pub(super) fn of(&self, key: &K) -> Option<usize> {
        self.0.as_ref().and_then(|limit| limit(key))
    }
}

impl<K> Clone for Limits<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, F> fmt::Debug for LimitByKey<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitByKey")
    }
}

impl<K> fmt::Debug for Limits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limits").field(&self.0.is_some()).finish()
    }
}
