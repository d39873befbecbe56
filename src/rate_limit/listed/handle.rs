//! The control surface.

use std::{cmp::Reverse, hash::Hash, sync::Arc};

use crate::rate_limit::{RateLimitHandle, listed::list::Listed};

/// Watches and changes listed rate limits from outside.
#[derive(Debug)]
pub struct ListedRateLimitHandle<K> {
    limits: Arc<Listed<K>>,
}

impl<K: Hash + Eq + Clone> ListedRateLimitHandle<K> {
    pub(super) fn new(limits: Arc<Listed<K>>) -> Self {
        Self { limits }
    }

    /// The key's limit, if it has one of its own. The handle keeps it from giving its place to
    /// another, and so does a change of its rate or burst, for good.
    #[must_use]
    pub fn key(&self, key: &K) -> Option<RateLimitHandle> {
        self.limits
            .find(key)
            .map(|state| RateLimitHandle::new(state.into()))
    }

    /// The key's limit, made if it has none yet and there is a place for it: to set a customer's
    /// rate before its first call.
    #[must_use]
    pub fn make(&self, key: &K) -> Option<RateLimitHandle> {
        let own = self
            .limits
            .find(key)
            .or_else(|| self.limits.own.find_or_make(key));
        own.map(|state| RateLimitHandle::new(state.into()))
    }

    /// The limit that keys share which have none of their own.
    #[must_use]
    pub fn shared(&self) -> RateLimitHandle {
        RateLimitHandle::new(self.limits.shared.clone())
    }

    /// The keys that have used most of what they have, the worst first: those whose limits will
    /// take longest to be whole again. At most `most`. Costs as much as [`keys`](Self::keys).
    #[must_use]
    pub fn top_keys(&self, most: usize) -> Vec<(K, RateLimitHandle)> {
        let mut keys: Vec<_> = self
            .limits
            .own
            .all()
            .into_iter()
            .map(|(key, state)| (state.until_whole(), key, state))
            .collect();
        keys.sort_by_key(|(wait, ..)| Reverse(*wait));
        keys.truncate(most);
        keys.into_iter()
            .map(|(_, key, state)| (key, RateLimitHandle::new(state.into())))
            .collect()
    }

    /// All keys that have a limit of their own. Costs a copy of each key; new keys wait meanwhile.
    #[must_use]
    pub fn keys(&self) -> Vec<(K, RateLimitHandle)> {
        self.limits
            .own
            .all()
            .into_iter()
            .map(|(key, state)| (key, RateLimitHandle::new(state.into())))
            .collect()
    }
}

impl<K> Clone for ListedRateLimitHandle<K> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits.clone(),
        }
    }
}
