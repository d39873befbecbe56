//! A gate for each key, never more than a bound.
//!
//! A key that is known costs a look-up in a map that readers share without writing to it. One that
//! is new needs a place: a free one, or that of a partition which may be evicted, looked for among
//! the next eight by a hand that goes round. If there is none, it gets nothing. So a flood of keys
//! neither grows the map nor drives out a partition that knows something.
//!
//! The mutex guards the list of places alone. Keys are hashed, compared, cloned and dropped, and
//! gates made and asked, outside of it, because all of that may be user code.

use std::{
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{Ordering, fence},
    },
};

use papaya::{HashMap, ResizeMode};

use crate::{ConfigError, algorithm::EvictionMark, ambient::chance::Hashing};

/// What may be evicted.
pub(crate) trait Evict {
    /// Whether a new one in its place would do as well: nothing is used, owed, waiting or changed.
    fn is_evictable(&self) -> bool;
}

/// Makes what belongs to a key.
pub trait Recipe<K, G> {
    /// # Errors
    /// The key gets none of its own.
    fn make(&self, key: &K) -> Result<G, ConfigError>;

    /// It was made, and is in the map.
    fn made(&self, gate: &G) {
        let _ = gate;
    }
}

pub(crate) struct Partitions<K, G> {
    map: HashMap<K, Arc<Partition<K, G>>, Hashing>,
    /// Locked for new keys and to list all.
    places: Mutex<Slots<K, G>>,
    max_keys: usize,
}

/// A key, and the gate that is its own.
pub(crate) struct Partition<K, G> {
    key: K,
    pub(crate) gate: G,
    mark: EvictionMark,
}

struct Slots<K, G> {
    /// `None` while it is being filled, or free.
    taken: Vec<Option<Arc<Partition<K, G>>>>,
    free: Vec<usize>,
    /// Where the search for a partition to evict goes on.
    hand: usize,
}

/// A place that is to be filled. Dropped unfilled, it is free.
struct Reserved<'a, K, G> {
    places: &'a Mutex<Slots<K, G>>,
    /// `None` once filled.
    index: Option<usize>,
}

impl<K: Hash + Eq + Clone, G: Evict> Partitions<K, G> {
    pub(crate) fn new(max_keys: usize) -> Self {
        Self {
            map: HashMap::builder()
                .hasher(Hashing::new())
                .resize_mode(ResizeMode::Blocking)
                .build(),
            places: Mutex::new(Slots {
                taken: Vec::new(),
                free: Vec::new(),
                hand: 0,
            }),
            max_keys,
        }
    }

    /// The key's partition. While the reference is held it is not evicted, unless it
    /// [is gone](Partition::is_gone) already: ask after it was used, and if so, find it again.
    #[inline]
    pub(crate) fn find(&self, key: &K) -> Option<Arc<Partition<K, G>>> {
        self.map.pin().get(key).cloned()
    }

    /// The key's partition, which is not evicted while the reference is held.
    pub(crate) fn find_lasting(&self, key: &K) -> Option<Arc<Partition<K, G>>> {
        loop {
            match self.find(key) {
                // It is being evicted, or looked at for that: one or the other is over soon.
                Some(partition) if partition.is_gone() => std::thread::yield_now(),
                found => return found,
            }
        }
    }

    /// The key's partition, made if it has none and there is a place.
    pub(crate) fn find_or_make(
        &self,
        key: &K,
        recipe: &impl Recipe<K, G>,
    ) -> Option<Arc<Partition<K, G>>> {
        loop {
            if let Some(partition) = self.find_lasting(key) {
                return Some(partition);
            }
            // First a place, so that a flood of keys makes nothing.
            let reserved = self.reserve()?;
            let gate = recipe.make(key).ok()?;
            let mark = EvictionMark::default();
            let made = Arc::new(Partition {
                key: key.clone(),
                gate,
                mark,
            });
            let inserted = self.map.pin().try_insert(key.clone(), made.clone()).is_ok();
            if inserted {
                reserved.fill(made.clone());
                recipe.made(&made.gate);
                return Some(made);
            }
            // Another thread has made one for this key meanwhile.
        }
    }

    /// All of them at this moment.
    pub(crate) fn all(&self) -> Vec<Arc<Partition<K, G>>> {
        self.lock().taken.iter().flatten().cloned().collect()
    }

    /// A place for a new key: while there are fewer than the bound, a new one; else that of a
    /// partition which it evicts.
    fn reserve(&self) -> Option<Reserved<'_, K, G>> {
        let mut places = self.lock();
        if let Some(index) = places.free.pop() {
            return Some(Reserved {
                places: &self.places,
                index: Some(index),
            });
        }
        if places.taken.len() < self.max_keys {
            places.taken.push(None);
            let index = Some(places.taken.len() - 1);
            return Some(Reserved {
                places: &self.places,
                index,
            });
        }
        let candidates = places.next_candidates();
        drop(places);
        let evicted = candidates
            .into_iter()
            .find(|(_, candidate)| self.evict(candidate))?;
        let (index, candidate) = evicted;
        let place = self.lock().taken.get_mut(index).and_then(Option::take);
        // The last references go without the lock, and the key and the gate with them.
        drop((place, candidate));
        Some(Reserved {
            places: &self.places,
            index: Some(index),
        })
    }

    /// Takes a partition out of the map, if it may go.
    fn evict(&self, partition: &Arc<Partition<K, G>>) -> bool {
        // Cheap, and without the mark: most candidates are in use.
        if !partition.gate.is_evictable() {
            return false;
        }
        let evicted = partition.mark.evict_if(|| {
            // The map, the list of places and the candidate itself: no call and no handle has it.
            let unheld = Arc::strong_count(partition) == 3;
            // Pairs with the Release of a dropped reference: what its holder did is seen.
            fence(Ordering::Acquire);
            unheld && partition.gate.is_evictable()
        });
        if evicted {
            self.map.pin().remove(&partition.key);
        }
        evicted
    }

    fn lock(&self) -> MutexGuard<'_, Slots<K, G>> {
        // Nothing panics under it between two changes that belong together.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, G> Partition<K, G> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Whether the map evicts it, so that what was done to it since it was found is lost. Ask
    /// after that.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.mark.is_evicting()
    }
}

impl<K, G> Slots<K, G> {
    fn next_candidates(&mut self) -> Vec<(usize, Arc<Partition<K, G>>)> {
        let length = self.taken.len();
        let first = self.hand;
        self.hand = (first + CANDIDATES) % length.max(1);
        (first..first + CANDIDATES.min(length))
            .map(|index| index % length)
            .filter_map(|index| Some((index, self.taken[index].clone()?)))
            .collect()
    }
}

impl<K, G> Reserved<'_, K, G> {
    fn fill(mut self, partition: Arc<Partition<K, G>>) {
        if let Some(index) = self.index.take() {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.taken[index] = Some(partition);
        }
    }
}

impl<K, G> Drop for Reserved<'_, K, G> {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.free.push(index);
        }
    }
}

impl<K, G> fmt::Debug for Partitions<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions")
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

impl<K, G: fmt::Debug> fmt::Debug for Partition<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

/// Partitions that a new key looks at before it gives up: a flood of keys must not cost a walk
/// through all of them each.
const CANDIDATES: usize = 8;
