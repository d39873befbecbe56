//! The state that the gates of all keys share.

use std::{
    fmt,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    Changed, ConfigError, Rejected,
    algorithm::Overflow,
    config::{Edition, Editions},
    gate::{Controlled, Gate},
    keyed::{
        KeyTexts, Missing,
        partitions::{Evict, Factory, Partition, Partitions},
    },
    observe::{GateTally, KeyInstance, KeyState, OTHER_KEYS, SHOWN_KEYS, Tally, Worst, trace},
};

/// The state that a keyed gate and its handles share.
pub(crate) struct KeyedParts<K, G: Keyable> {
    pub(crate) partitions: Partitions<K, G>,
    /// The gate for keys without a partition, and for requests without a key.
    pub(crate) shared: G,
    pub(crate) factory: G::Factory<K>,
    /// The tally of all keys together.
    pub(crate) tally: Arc<Tally>,
    pub(super) overflow: Overflow,
    pub(super) missing: Missing,
    pub(super) enabled: bool,
    /// The texts of keys in metrics and logs.
    pub(crate) texts: KeyTexts<K>,
    /// If true, callers are shown the limits.
    pub(super) advertises: bool,
    /// If true, no request has a key, so that readiness is known before there is a request.
    pub(super) all_share: bool,
    /// If true, a call has used the shared gate. Relaxed: a statistic, which publishes nothing
    /// else.
    shared_is_used: AtomicBool,
}

/// A gate that each key can have for itself.
#[expect(private_bounds, reason = "only gates of this crate are keyed")]
pub trait Keyable: Gate + Controlled + Evict + MissingKey + Sized + Send + Sync + 'static {
    /// The factory of the gates of keys.
    type Factory<K>: Factory<K, Self>;

    /// Returns a handle that does not protect the key from eviction.
    fn watch(&self) -> Self::Handle;
}

/// The rejections that a gate makes on behalf of keys.
pub(crate) trait MissingKey {
    /// Returns the rejection of a request that has no key.
    fn missing_key(&self) -> Box<Rejected>;

    /// Returns the rejection of a request whose key found no slot.
    fn overflow(&self) -> Box<Rejected>;
}

impl<K, G> KeyedParts<K, G>
where
    K: Hash + Eq + Clone,
    G: Keyable,
{
    pub(crate) fn new(
        max_keys: usize,
        (shared, tally): (G, Arc<Tally>),
        factory: G::Factory<K>,
        (overflow, missing): (Overflow, Missing),
        enabled: bool,
    ) -> Self {
        let partitions = Partitions::new(max_keys);
        Self {
            partitions,
            shared,
            factory,
            tally,
            overflow,
            missing,
            enabled,
            texts: KeyTexts::redacted(),
            advertises: false,
            all_share: false,
            shared_is_used: AtomicBool::new(false),
        }
    }

    /// Sets whether callers are shown the limits.
    pub(crate) fn advertises(mut self, advertises: bool) -> Self {
        self.advertises = advertises;
        self
    }

    /// Sets how keys are shown.
    pub(crate) fn texts(mut self, texts: KeyTexts<K>) -> Self {
        self.texts = texts;
        self
    }

    /// Sets whether no request has a key.
    pub(crate) fn all_share(mut self, all_share: bool) -> Self {
        self.all_share = all_share;
        self
    }

    /// Returns whether no request has a key.
    pub(crate) fn all_share_one(&self) -> bool {
        self.all_share
    }

    /// Returns whether requests without a key use the shared gate.
    pub(crate) fn keyless_share(&self) -> bool {
        self.missing == Missing::Share
    }

    /// Returns whether calls use the shared gate, or will.
    pub(crate) fn uses_shared(&self) -> bool {
        self.all_share || self.shared_is_used.load(Ordering::Relaxed)
    }

    /// Changes the settings of the gates of all keys, present and future, and of the shared one. If
    /// `change` and the shared gate accept the settings, every gate does.
    ///
    /// The order makes two simultaneous updates end alike for all gates, also for the gate of a key
    /// that arrives meanwhile. The edition for new gates is changed first, then the existing gates.
    /// A gate that is created between the two takes the latest edition once it is in the map
    /// ([`Factory::made`]). No gate takes an earlier edition than it has ([`Edition::overtakes`]).
    pub(crate) fn update_all<T: Copy>(
        &self,
        editions: &Editions<T>,
        change: impl FnOnce(T) -> Result<T, ConfigError>,
        take: impl Fn(&G, Edition<T>) -> Result<Changed, ConfigError>,
    ) -> Result<Changed, ConfigError> {
        let edition = editions.change(change)?;
        let changed = take(&self.shared, edition)?;
        trace::updated((self.tally.layer, self.tally.name), &changed);
        self.partitions.each(|_, gate| drop(take(gate, edition)));
        Ok(changed)
    }

    /// Returns the keys in the worst state, or those with labels in metrics, and whether keys have
    /// labels. With labels, the shared gate is among them once it is used.
    pub(crate) fn shown_keys(
        &self,
        of: impl Fn(&G) -> (KeyState, &GateTally),
    ) -> (Vec<KeyInstance>, bool) {
        let has_labels = self.texts.has_labels();
        let mut worst = Worst::of(SHOWN_KEYS);
        self.partitions.each(|key, gate| {
            let (state, tally) = of(gate);
            if has_labels {
                let text = self.texts.text(key);
                let label = self.texts.label(&text);
                worst.offer_labelled(label, state, || (text.to_string(), tally.totals()));
            } else {
                worst.offer(state, || (self.texts.text(key).to_string(), tally.totals()));
            }
        });
        if has_labels && self.uses_shared() {
            let (state, tally) = of(&self.shared);
            let shared = || (OTHER_KEYS.to_owned(), tally.totals());
            worst.offer_labelled(OTHER_KEYS, state, shared);
        }
        (worst.into_keys(), has_labels)
    }

    /// Returns the key's partition. Creates it if the key has none and there is a free slot.
    pub(crate) fn find_or_make(&self, key: &K) -> Option<Arc<Partition<K, G>>> {
        self.partitions.find_or_make(key, &self.factory)
    }
}

impl<K, G: Keyable> KeyedParts<K, G> {
    /// Returns the shared gate for a call. Its flag is written only once: a word that every call
    /// writes would be contended.
    #[inline]
    pub(super) fn shared_for_call(&self) -> &G {
        if !self.shared_is_used.load(Ordering::Relaxed) {
            self.shared_is_used.store(true, Ordering::Relaxed);
        }
        &self.shared
    }
}

impl<K, G: Keyable> fmt::Debug for KeyedParts<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedParts")
            .field("partitions", &self.partitions)
            .field("overflow", &self.overflow)
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}
