//! The handle of what keys have of their own.

use std::{borrow::Borrow, fmt, hash::Hash, sync::Arc};

use crate::{
    Rejected,
    gate::combine::keyed_parts::{Keyable, KeyedParts},
    observe::Totals,
};

/// Watches and changes what each key has of its own: a circuit, a bulkhead, a throttle or a limit.
/// Cheap to clone; it keeps their state alive, not the layer's services.
pub struct KeyedHandle<K, G: Keyable> {
    pub(crate) parts: Arc<KeyedParts<K, G>>,
}

impl<K: Hash + Eq + Clone, G: Keyable> KeyedHandle<K, G> {
    /// Returns the handle of a key's own, if it has one just now. The handle keeps it from being
    /// evicted, and so does a change of its settings, for good.
    ///
    /// The key is of the type that the layer finds, or one that it is borrowed as: a `&str` where
    /// that is a [`String`].
    #[must_use]
    pub fn key<Q>(&self, key: &Q) -> Option<G::Handle>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let partition = self.parts.partitions.find_lasting(key)?;
        Some(partition.gate().control())
    }

    /// Returns the handle of a key's own, made if it has none yet and there is a place for it. Use
    /// it to force a host's circuit open before its first call, or to set a customer's rate. It is
    /// the shared one if no request has a key, as in a stack for [one
    /// peer](crate::stack::ClientBuilder::one_peer).
    #[must_use]
    pub fn make(&self, key: &K) -> Option<G::Handle> {
        if self.parts.all_share_one() {
            return Some(self.shared());
        }
        let partition = self.parts.find_or_make(key)?;
        Some(partition.gate().control())
    }

    /// Returns the key whose own circuit, bulkhead, throttle or limit rejected a call. `None` of
    /// what all keys share, of another layer's rejection, and of a key that has been evicted since.
    /// Costs a look-up and a copy of the key.
    ///
    /// The rejection has no text of the key, since it goes to callers and into logs.
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

    /// Returns the handle of what all keys share that have none of their own.
    #[must_use]
    pub fn shared(&self) -> G::Handle {
        self.parts.shared.control()
    }

    /// Counts of all keys so far, evicted ones included. Costs some twenty loads for each.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.parts.tally.totals()
    }

    /// Lists all keys that have one of their own. Costs a copy of each key.
    ///
    /// These handles keep no key's place: a key that loses it to a new one stays, beyond the bound,
    /// for as long as they watch it.
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
