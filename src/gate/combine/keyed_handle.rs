//! The handle of what each key has for itself.

use std::{borrow::Borrow, fmt, hash::Hash, sync::Arc};

use crate::{
    Rejected,
    gate::combine::keyed_parts::{Keyable, KeyedParts},
    observe::Totals,
};

/// A handle that watches and changes what each key has for itself: a circuit, a bulkhead, a
/// throttle or a limit. Cheap to clone. It keeps their state alive, not the layer's services.
pub struct KeyedHandle<K, G: Keyable> {
    pub(crate) parts: Arc<KeyedParts<K, G>>,
}

impl<K: Hash + Eq + Clone, G: Keyable> KeyedHandle<K, G> {
    /// Returns the handle of this key's own circuit, bulkhead, throttle or limit, if it has one
    /// now. While the handle lives, the key is not evicted. A change of the key's settings through
    /// it protects the key for good.
    ///
    /// The key has the type that the layer finds, or one that this type borrows as: a `&str` where
    /// it is a [`String`].
    #[must_use]
    pub fn key<Q>(&self, key: &Q) -> Option<G::Handle>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let partition = self.parts.partitions.find_lasting(key)?;
        Some(partition.gate().control())
    }

    /// Returns the handle of this key's own circuit, bulkhead, throttle or limit. Creates it if the
    /// key has none yet and there is a free slot. Use it to force a host's circuit open before its
    /// first call, or to set a customer's rate. If no request has a key, as in a stack for [one
    /// peer](crate::stack::ClientBuilder::one_peer), this is the shared handle.
    #[must_use]
    pub fn make(&self, key: &K) -> Option<G::Handle> {
        if self.parts.all_share_one() {
            return Some(self.shared());
        }
        let partition = self.parts.find_or_make(key)?;
        Some(partition.gate().control())
    }

    /// Returns the key whose own circuit, bulkhead, throttle or limit rejected a call. `None` if
    /// the shared one or another layer rejected it, or if the key has been evicted since. Costs a
    /// look-up and a copy of the key.
    ///
    /// The rejection does not contain the key's text, because it goes to callers and into logs.
    ///
    /// ```
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_keep::{Rejected, circuit_breaker::CircuitBreakerLayer, protocol::Plain};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// let breaker = CircuitBreakerLayer::builder()
    ///     .protocol(Plain::new())
    ///     .keyed_by(|tenant: &&'static str| Some(*tenant))
    ///     .build()?;
    /// let handle = breaker.handle();
    /// handle.make(&"acme").unwrap().force_open();
    /// let answer = service_fn(async |_: &'static str| Ok::<_, std::fmt::Error>(()));
    /// let error = breaker.layer(answer).oneshot("acme").await.unwrap_err();
    /// let rejected = Rejected::find(&*error).unwrap();
    /// assert_eq!(handle.key_of(rejected), Some("acme"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn key_of(&self, rejected: &Rejected) -> Option<K> {
        let tally = &self.parts.tally;
        let is_own = (rejected.layer, rejected.name) == (tally.layer, tally.name);
        let hash = rejected.key().filter(|_| is_own)?;
        self.parts.partitions.key_of(hash)
    }

    /// Returns the handle that all keys without one of their own share.
    #[must_use]
    pub fn shared(&self) -> G::Handle {
        self.parts.shared.control()
    }

    /// Returns the counts of all keys so far, evicted ones included. Costs some twenty loads per
    /// key.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.parts.tally.totals()
    }

    /// Lists all keys that have a circuit, bulkhead, throttle or limit of their own. Costs a copy
    /// of each key.
    ///
    /// These handles do not protect a key from eviction. What an evicted key had lives on, beyond
    /// the bound, while such a handle watches it.
    #[must_use]
    pub fn keys(&self) -> Vec<(K, G::Handle)> {
        let partitions = &self.parts.partitions;
        partitions.collect(|key, gate| (key.clone(), gate.watch()))
    }
}

impl<K, G: Keyable> Clone for KeyedHandle<K, G> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
        }
    }
}

impl<K, G: Keyable> fmt::Debug for KeyedHandle<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedHandle").finish_non_exhaustive()
    }
}
