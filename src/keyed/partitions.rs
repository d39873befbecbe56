//! A gate per key, for a bounded number of keys.
//!
//! A known key costs a look-up in a map that readers share without writing to it. A new key needs a
//! slot: a free one, or that of a partition that may be evicted. A clock hand goes around the
//! slots, and a new key checks the next eight. If none can be evicted, the key gets no slot. So a
//! flood of keys neither grows the map nor evicts a partition with state worth keeping.
//!
//! **Reading a partition does not make it look used.** Lists go through the map, which counts no
//! references. A candidate for eviction is checked by one new key at a time, and another new key
//! takes the next. A handle of one key protects the key's slot. A handle from a list of all keys
//! does not. A fresh partition that only such a handle watches gives up its slot but stays in the
//! map, so that the handle still watches and changes what calls use. There are at most `max_keys`
//! or 1000 of these beyond the bound, whichever is more. They are removed when a new key finds that
//! no handle watches them.
//!
//! **A partition is in the map before its gate is made.** Of several first calls of one key, each
//! finds the key's one partition. Each makes the gate if it is not there yet, and the first gate is
//! kept.
//!
//! **User code.** Hashing, comparing, cloning and dropping keys may be user code, and so may making
//! and asking gates. None of it runs under a lock. The map itself uses the hash that was computed
//! once per key. It hashes again when it grows and when it removes a key, and a panic then would
//! leave it half changed.

mod partition;
mod places;
#[cfg(test)]
mod tests;

use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering, fence},
    },
    thread,
};

use papaya::{Equivalent, HashMap, ResizeMode};

use self::{
    partition::Fate,
    places::{Places, Room},
};
use crate::{ConfigError, algorithm::EvictionMark, ambient::chance::Hashing};

pub(crate) use self::partition::Partition;

/// A gate that may be evicted.
pub(crate) trait Evict {
    /// Returns whether a new gate in its place would behave the same: nothing is used, owed,
    /// waiting or changed.
    fn is_fresh(&self) -> bool;

    /// Returns whether a handle of this key [holds](Hold) it.
    fn is_held(&self) -> bool {
        false
    }

    /// Returns whether a handle from a list of all keys watches it.
    fn is_watched(&self) -> bool {
        false
    }
}

/// A token that the handles of one key share with what they watch. The key keeps its slot while
/// there are any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hold(Arc<()>);

impl Hold {
    /// Returns whether a handle holds it too.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// A factory of the gates of keys.
pub trait Factory<K, G> {
    /// Makes the gate of a key.
    ///
    /// # Errors
    /// The key gets no gate of its own.
    fn make(&self, key: &K) -> Result<G, ConfigError>;

    /// Receives a gate that was made and is in the map.
    fn made(&self, gate: &G) {
        let _ = gate;
    }
}

pub(crate) struct Partitions<K, G> {
    /// The partitions by key. Each key is stored once, in its partition. Created with the first
    /// key, since an empty map takes much memory, and a stack without hosts has no key.
    map: OnceLock<Map<K, G>>,
    hashing: Hashing,
    places: Places<K, G>,
    /// The number of partitions created so far. Relaxed: it only numbers them.
    made: AtomicU64,
}

type Map<K, G> = HashMap<PartitionEntry<K, G>, (), BuildHasherDefault<Known>>;

/// A partition under its key.
struct PartitionEntry<K, G>(Arc<Partition<K, G>>);

/// A look-up by key.
struct Lookup<'a, Q: ?Sized> {
    key: &'a Q,
    hash: u64,
}

/// A look-up of one partition by identity.
struct This<'a, K, G>(&'a Arc<Partition<K, G>>);

/// A look-up by hash alone. With 64 bits, two keys of a map have the same hash only by chance.
struct Hashed(u64);

/// A hasher that returns a known hash.
#[derive(Default)]
struct Known(u64);

impl<K: Hash + Eq + Clone, G: Evict> Partitions<K, G> {
    pub(crate) fn new(max_keys: usize) -> Self {
        Self {
            map: OnceLock::new(),
            hashing: Hashing::new(),
            places: Places::new(max_keys),
            made: AtomicU64::new(0),
        }
    }

    /// Returns the key's partition. While the reference is held, the partition is not evicted,
    /// unless it [is gone](Partition::is_gone) already. Check that after using it, and if so, find
    /// the key again.
    #[inline]
    pub(crate) fn find(&self, key: &K) -> Option<Arc<Partition<K, G>>> {
        let found = self.find_any(self.lookup(key));
        found.filter(|partition| partition.gate.get().is_some())
    }

    /// Returns the key's partition, which is not evicted while the reference is held.
    pub(crate) fn find_lasting<Q>(&self, key: &Q) -> Option<Arc<Partition<K, G>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.lasting(self.lookup(key)).ok()?;
        found.filter(|partition| partition.gate.get().is_some())
    }

    /// Returns the key's partition. Creates it if the key has none and there is a slot.
    pub(crate) fn find_or_make(
        &self,
        key: &K,
        factory: &impl Factory<K, G>,
    ) -> Option<Arc<Partition<K, G>>> {
        let lookup = self.lookup(key);
        for _ in 0..PATIENCE {
            if let Some(partition) = self.lasting(lookup).ok()? {
                return made(partition, key, factory);
            }
            // Reserves a slot first, so that a flood of keys creates nothing.
            match self.places.reserve(lookup.hash, |candidate, references| {
                self.evict(candidate, references)
            }) {
                Room::Reserved(reserved) => {
                    let number = self.made.fetch_add(1, Ordering::Relaxed);
                    let partition = Arc::new(Partition {
                        key: key.clone(),
                        hash: lookup.hash,
                        number,
                        gate: OnceLock::new(),
                        mark: EvictionMark::default(),
                    });
                    let entry = PartitionEntry(partition.clone());
                    if self.map().pin().try_insert(entry, ()).is_ok() {
                        reserved.fill(partition.clone());
                        return made(partition, key, factory);
                    }
                    // Another thread has inserted this key first.
                }
                Room::Coming => thread::yield_now(),
                Room::Full => {
                    // The key may have been inserted meanwhile.
                    let partition = self.lasting(lookup).ok()??;
                    return made(partition, key, factory);
                }
            }
        }
        None
    }

    /// Returns the key with this hash, if it has a partition.
    pub(crate) fn key_of(&self, hash: u64) -> Option<K> {
        let map = self.map.get()?.pin();
        map.get_key_value(&Hashed(hash))
            .map(|(entry, ())| entry.0.key.clone())
    }

    /// Visits each key and its gate, the oldest first.
    pub(crate) fn each(&self, mut visit: impl FnMut(&K, &G)) {
        let Some(map) = self.map.get() else { return };
        let map = map.pin();
        let mut all: Vec<_> = map.keys().map(|entry| &*entry.0).collect();
        all.sort_unstable_by_key(|partition| partition.number);
        for partition in all {
            if let Some(gate) = partition.gate.get() {
                visit(&partition.key, gate);
            }
        }
    }

    /// Collects the result of `of` for each key and its gate, the oldest first.
    pub(crate) fn collect<T>(&self, mut of: impl FnMut(&K, &G) -> T) -> Vec<T> {
        let mut all = Vec::new();
        self.each(|key, gate| all.push(of(key, gate)));
        all
    }

    fn map(&self) -> &Map<K, G> {
        self.map.get_or_init(|| {
            HashMap::builder()
                .hasher(BuildHasherDefault::default())
                .resize_mode(ResizeMode::Blocking)
                .build()
        })
    }

    #[inline]
    fn lookup<'a, Q: Hash + ?Sized>(&self, key: &'a Q) -> Lookup<'a, Q> {
        let hash = self.hashing.hash_one(key);
        Lookup { key, hash }
    }

    #[inline]
    fn find_any<Q>(&self, lookup: Lookup<'_, Q>) -> Option<Arc<Partition<K, G>>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let map = self.map.get()?.pin();
        map.get_key_value(&lookup)
            .map(|(entry, ())| entry.0.clone())
    }

    /// Returns the key's partition, if it has one. An error if each attempt found it being evicted.
    fn lasting<Q>(&self, lookup: Lookup<'_, Q>) -> Result<Option<Arc<Partition<K, G>>>, ()>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        for _ in 0..PATIENCE {
            match self.find_any(lookup) {
                // It is being evicted, or checked for that. Either is over soon.
                Some(partition) if partition.is_gone() => thread::yield_now(),
                found => return Ok(found),
            }
        }
        Err(())
    }

    /// Removes a partition from the map, if it may be evicted. `references` is the number that the
    /// map, the list and the caller hold.
    fn evict(&self, partition: &Arc<Partition<K, G>>, references: usize) -> Fate {
        let gate = partition.gate.get();
        let is_fresh = || gate.is_none_or(Evict::is_fresh);
        let is_held = || gate.is_some_and(Evict::is_held);
        let is_watched = || gate.is_some_and(Evict::is_watched);
        // No call holds it, and no thread is making its gate.
        let is_unused = || Arc::strong_count(partition) == references;
        // Cheap, and done before setting the mark: most candidates are in use.
        if is_held() || !is_fresh() || !is_unused() {
            return Fate::Stays;
        }
        if is_watched() {
            return Fate::Parked;
        }
        let evicted = partition.mark.evict_if(|| {
            let unused = is_unused() && !is_held() && !is_watched();
            // Pairs with the Release of a dropped reference: makes visible what its holder did.
            fence(Ordering::Acquire);
            unused && is_fresh()
        });
        if !evicted {
            return Fate::Stays;
        }
        self.map().pin().remove(&This(partition));
        Fate::Evicted
    }
}

/// Returns a partition that was found, once it has a gate.
fn made<K, G>(
    partition: Arc<Partition<K, G>>,
    key: &K,
    factory: &impl Factory<K, G>,
) -> Option<Arc<Partition<K, G>>> {
    if partition.gate.get().is_none() {
        // On failure the slot is free for another key, or for another attempt of this one.
        let gate = factory.make(key).ok()?;
        // Not `get_or_init`, which makes others wait for user code. If two gates are made, the
        // first stays.
        if partition.gate.set(gate).is_ok() {
            factory.made(partition.gate());
        }
    }
    Some(partition)
}

impl<K, G> Hash for PartitionEntry<K, G> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl<K: Eq, G> PartialEq for PartitionEntry<K, G> {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash && self.0.key == other.0.key
    }
}

impl<K: Eq, G> Eq for PartitionEntry<K, G> {}

impl<Q: ?Sized> Hash for Lookup<'_, Q> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K: Borrow<Q>, Q: Eq + ?Sized, G> Equivalent<PartitionEntry<K, G>> for Lookup<'_, Q> {
    #[inline]
    fn equivalent(&self, entry: &PartitionEntry<K, G>) -> bool {
        self.hash == entry.0.hash && self.key == entry.0.key.borrow()
    }
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl<K, G> Equivalent<PartitionEntry<K, G>> for Hashed {
    fn equivalent(&self, entry: &PartitionEntry<K, G>) -> bool {
        self.0 == entry.0.hash
    }
}

impl<Q: ?Sized> Copy for Lookup<'_, Q> {}

impl<Q: ?Sized> Clone for Lookup<'_, Q> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, G> Hash for This<'_, K, G> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl<K, G> Equivalent<PartitionEntry<K, G>> for This<'_, K, G> {
    fn equivalent(&self, entry: &PartitionEntry<K, G>) -> bool {
        Arc::ptr_eq(self.0, &entry.0)
    }
}

impl Hasher for Known {
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed")
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

impl<K, G> fmt::Debug for Partitions<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// The number of times that a key is looked up again while another thread inserts or removes it.
/// That takes a few steps. The number is bounded for a thread that looks up a key from within those
/// steps, in a key's `Clone` or a limit's `is_fresh`: it would wait for itself.
const PATIENCE: usize = 10_000;
