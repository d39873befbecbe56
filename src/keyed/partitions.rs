//! A gate for each key, never more than a bound.
//!
//! A key that is known costs a look-up in a map that readers share without writing to it. One that
//! is new needs a place: a free one, or that of a partition which may be evicted, looked for among
//! the next eight by a hand that goes round. If there is none, it gets nothing. So a flood of keys
//! neither grows the map nor drives out a partition that knows something.
//!
//! **Nobody who only looks makes a partition look used.** All are listed through the map, which
//! counts no references, and a candidate is looked at by one new key at a time, so that another one
//! takes the next. A handle of one key keeps the key's place. One of a list of all keys does not: a
//! fresh partition that only such a handle watches gives its place up and stays in the map, so that
//! the handle goes on watching, and changing, what calls use. There are so many more than the
//! bound, at most as many again or 1000, and they go when a new key finds that nobody watches them.
//!
//! **A partition is in the map before its gate is made.** Of several first calls of one key each
//! finds the one place that the key has, and makes the gate if it is not there yet; the first that
//! was made is the one.
//!
//! **User code.** Keys are hashed and compared, cloned and dropped, and gates made and asked,
//! without a lock, because all of that may be user code. The map itself is given the hash that was
//! taken once for each key: it hashes again when it grows and when it removes, and what panicked
//! then would leave it half done.

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

/// What may be evicted.
pub(crate) trait Evict {
    /// Returns whether a new one in its place would do as well: nothing is used, owed, waiting or
    /// changed.
    fn is_fresh(&self) -> bool;

    /// Returns whether a handle of this key [holds](Hold) it.
    fn is_held(&self) -> bool {
        false
    }

    /// Returns whether a handle watches it, one of a list of all keys.
    fn is_watched(&self) -> bool {
        false
    }
}

/// What handles of one key share with what they watch: while there are any, it keeps its place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hold(Arc<()>);

impl Hold {
    /// Returns whether a handle has another.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Makes what belongs to a key.
pub trait Factory<K, G> {
    /// # Errors
    /// The key gets none of its own.
    fn make(&self, key: &K) -> Result<G, ConfigError>;

    /// It was made, and is in the map.
    fn made(&self, gate: &G) {
        let _ = gate;
    }
}

pub(crate) struct Partitions<K, G> {
    /// Each by its key, which is kept once, in the partition. Made with the first key, since an
    /// empty map takes much memory, and a stack without hosts has no key.
    map: OnceLock<Map<K, G>>,
    hashing: Hashing,
    places: Places<K, G>,
    /// How many there were. Relaxed: it numbers them.
    made: AtomicU64,
}

type Map<K, G> = HashMap<Entry<K, G>, (), BuildHasherDefault<Known>>;

/// A partition under its key.
struct Entry<K, G>(Arc<Partition<K, G>>);

/// A key that is looked for.
struct Lookup<'a, Q: ?Sized> {
    key: &'a Q,
    hash: u64,
}

/// This very partition.
struct This<'a, K, G>(&'a Arc<Partition<K, G>>);

/// Any key of this hash: of 64 bits no two keys of a map have the same but by chance.
struct Hashed(u64);

/// The hasher of hashes.
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

    /// The key's partition. While the reference is held it is not evicted, unless it
    /// [is gone](Partition::is_gone) already: ask after it was used, and if so, find it again.
    #[inline]
    pub(crate) fn find(&self, key: &K) -> Option<Arc<Partition<K, G>>> {
        let found = self.find_any(self.lookup(key));
        found.filter(|partition| partition.gate.get().is_some())
    }

    /// The key's partition, which is not evicted while the reference is held.
    pub(crate) fn find_lasting<Q>(&self, key: &Q) -> Option<Arc<Partition<K, G>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.lasting(self.lookup(key)).ok()?;
        found.filter(|partition| partition.gate.get().is_some())
    }

    /// The key's partition, made if it has none and there is a place.
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
            // First a place, so that a flood of keys makes nothing.
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
                    let entry = Entry(partition.clone());
                    if self.map().pin().try_insert(entry, ()).is_ok() {
                        reserved.fill(partition.clone());
                        return made(partition, key, factory);
                    }
                    // Another thread was quicker with this key.
                }
                Room::Coming => thread::yield_now(),
                Room::Full => {
                    // Unless it has come meanwhile.
                    let partition = self.lasting(lookup).ok()??;
                    return made(partition, key, factory);
                }
            }
        }
        None
    }

    /// The key with this hash, if it has a partition.
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

    /// What `of` says of each key and its gate, the oldest first.
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

    /// The key's partition, if it has one; an error if it is about to be evicted all the time.
    fn lasting<Q>(&self, lookup: Lookup<'_, Q>) -> Result<Option<Arc<Partition<K, G>>>, ()>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        for _ in 0..PATIENCE {
            match self.find_any(lookup) {
                // It is being evicted, or looked at for that: one or the other is over soon.
                Some(partition) if partition.is_gone() => thread::yield_now(),
                found => return Ok(found),
            }
        }
        Err(())
    }

    /// Takes a partition out of the map, if it may go. So many references are the map's, the
    /// list's and the caller's.
    fn evict(&self, partition: &Arc<Partition<K, G>>, references: usize) -> Fate {
        let gate = partition.gate.get();
        let is_fresh = || gate.is_none_or(Evict::is_fresh);
        let is_held = || gate.is_some_and(Evict::is_held);
        let is_watched = || gate.is_some_and(Evict::is_watched);
        // No call has it, and nobody is making its gate.
        let is_unused = || Arc::strong_count(partition) == references;
        // Cheap, and without the mark: most candidates are in use.
        if is_held() || !is_fresh() || !is_unused() {
            return Fate::Stays;
        }
        if is_watched() {
            return Fate::Parked;
        }
        let evicted = partition.mark.evict_if(|| {
            let unused = is_unused() && !is_held() && !is_watched();
            // Pairs with the Release of a dropped reference: what its holder did is seen.
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

/// A partition that was found, once its gate is there.
fn made<K, G>(
    partition: Arc<Partition<K, G>>,
    key: &K,
    factory: &impl Factory<K, G>,
) -> Option<Arc<Partition<K, G>>> {
    if partition.gate.get().is_none() {
        // If that fails, the place is for the next one to take, or for this key to try again.
        let gate = factory.make(key).ok()?;
        // Not with `get_or_init`, which lets others wait for user code. Of two the first stays.
        if partition.gate.set(gate).is_ok() {
            factory.made(partition.gate());
        }
    }
    Some(partition)
}

impl<K, G> Hash for Entry<K, G> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl<K: Eq, G> PartialEq for Entry<K, G> {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash && self.0.key == other.0.key
    }
}

impl<K: Eq, G> Eq for Entry<K, G> {}

impl<Q: ?Sized> Hash for Lookup<'_, Q> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K: Borrow<Q>, Q: Eq + ?Sized, G> Equivalent<Entry<K, G>> for Lookup<'_, Q> {
    #[inline]
    fn equivalent(&self, entry: &Entry<K, G>) -> bool {
        self.hash == entry.0.hash && self.key == entry.0.key.borrow()
    }
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl<K, G> Equivalent<Entry<K, G>> for Hashed {
    fn equivalent(&self, entry: &Entry<K, G>) -> bool {
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

impl<K, G> Equivalent<Entry<K, G>> for This<'_, K, G> {
    fn equivalent(&self, entry: &Entry<K, G>) -> bool {
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

/// How often a key is looked for again that another thread is just putting into the map, or taking
/// out of it. That takes a few steps; a thread that waits for it within them, in a key's `Clone` or
/// a limit's `is_fresh`, does not wait for itself.
const PATIENCE: usize = 10_000;
