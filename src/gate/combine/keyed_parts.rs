//! What the gates of all keys have in common.

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

/// What a keyed gate and its handles share.
pub(crate) struct KeyedParts<K, G: Keyable> {
    pub(crate) partitions: Partitions<K, G>,
    /// For keys that find no place, and for requests without a key.
    pub(crate) shared: G,
    pub(crate) factory: G::Factory<K>,
    /// Of all keys together.
    pub(crate) tally: Arc<Tally>,
    pub(super) overflow: Overflow,
    pub(super) missing: Missing,
    pub(super) enabled: bool,
    /// The way in which keys are shown.
    pub(crate) texts: KeyTexts<K>,
    /// If true, callers are told of the limits.
    pub(super) advertises: bool,
    /// Whether no request has a key, so that readiness can be told before there is one.
    pub(super) all_share: bool,
    /// If true, a call has come to the shared gate. Relaxed: a statistic.
    shared_is_used: AtomicBool,
}

/// A gate of which each key can have its own.
#[expect(private_bounds, reason = "only gates of this crate are keyed")]
pub trait Keyable: Gate + Controlled + Evict + MissingKey + Sized + Send + Sync + 'static {
    /// How they are made.
    type Factory<K>: Factory<K, Self>;

    /// Returns a handle that does not keep the key's place.
    fn watch(&self) -> Self::Handle;
}

/// How a gate rejects on behalf of keys.
pub(crate) trait MissingKey {
    /// The request has no key.
    fn missing_key(&self) -> Rejected;

    /// Its key has found no place.
    fn overflow(&self) -> Rejected;
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

    /// Says whether callers are told of the limits.
    pub(crate) fn advertises(mut self, advertises: bool) -> Self {
        self.advertises = advertises;
        self
    }

    /// Says how keys are shown.
    pub(crate) fn texts(mut self, texts: KeyTexts<K>) -> Self {
        self.texts = texts;
        self
    }

    /// Says whether no request has a key.
    pub(crate) fn all_share(mut self, all_share: bool) -> Self {
        self.all_share = all_share;
        self
    }

    /// Returns whether no request has a key.
    pub(crate) fn all_share_one(&self) -> bool {
        self.all_share
    }

    /// Returns whether the shared gate is one that calls come to, or will.
    pub(crate) fn uses_shared(&self) -> bool {
        self.all_share || self.shared_is_used.load(Ordering::Relaxed)
    }

    /// Takes other settings for the gates of all keys, those to come included, and for the shared
    /// one. What that accepts they all do.
    ///
    /// The order makes two updates at once, and a key that comes meanwhile, end alike. The edition
    /// that new gates are made with is first, then the gates that are there. A gate that
    /// is made between the two takes the latest edition once it is in the map ([`Factory::made`]).
    /// None takes an earlier edition than it has ([`Edition::overtakes`]).
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

    /// The keys that are worst off, or those with labels in metrics, and whether they have such.
    /// With labels, what keys share is among them once it is used.
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

    /// The key's partition, made if it has none and there is a place.
    pub(crate) fn find_or_make(&self, key: &K) -> Option<Arc<Partition<K, G>>> {
        self.partitions.find_or_make(key, &self.factory)
    }
}

impl<K, G: Keyable> KeyedParts<K, G> {
    /// The shared gate, for a call. Written once: a word that each call writes would be contended.
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
