//! The slots of a bounded number of partitions.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::partition::{Fate, Partition};

pub(super) struct Places<K, G> {
    /// Locked for new keys.
    list: Mutex<List<K, G>>,
    max_keys: usize,
}

struct List<K, G> {
    places: Vec<Place<K, G>>,
    free: Vec<usize>,
    /// The index at which the search for a partition to evict continues.
    hand: usize,
    /// The hashes of keys that have reserved a slot and not filled it yet.
    coming: Vec<u64>,
    /// Partitions without a slot: those that only lists of keys watch, and those of them that calls
    /// use since.
    parked: VecDeque<Arc<Partition<K, G>>>,
}

struct Place<K, G> {
    /// `None` while the slot is free, or being filled.
    partition: Option<Arc<Partition<K, G>>>,
    /// If true, a new key is checking whether it may take this slot, and another new key skips it.
    is_looked_at: bool,
}

/// The result of a new key's search for a slot.
pub(super) enum Room<'a, K, G> {
    /// A slot for the key.
    Reserved(Reserved<'a, K, G>),
    /// Another thread is about to fill a slot with the same key.
    Coming,
    /// No slot.
    Full,
}

/// A reserved slot. If dropped unfilled, the slot is free.
pub(super) struct Reserved<'a, K, G> {
    places: &'a Places<K, G>,
    hash: u64,
    index: usize,
    partition: Option<Arc<Partition<K, G>>>,
}

/// A candidate for eviction. When dropped, it is a candidate for other keys again.
struct Looking<'a, K, G> {
    places: &'a Places<K, G>,
    /// `None` if the candidate is parked.
    index: Option<usize>,
    candidate: Arc<Partition<K, G>>,
    /// If true, a parked candidate was evicted.
    is_gone: bool,
}

impl<K, G> Places<K, G> {
    pub(super) fn new(max_keys: usize) -> Self {
        let list = List {
            places: Vec::new(),
            free: Vec::new(),
            hand: 0,
            coming: Vec::new(),
            parked: VecDeque::new(),
        };
        Self {
            list: Mutex::new(list),
            max_keys,
        }
    }

    /// Reserves a slot for a new key: a free one while there are fewer than the bound, else that of
    /// a partition that `evict` lets go. The argument of `evict` is the number of references that
    /// the map and this search hold.
    pub(super) fn reserve(
        &self,
        hash: u64,
        evict: impl Fn(&Arc<Partition<K, G>>, usize) -> Fate,
    ) -> Room<'_, K, G> {
        for looked in 0.. {
            let mut list = self.lock();
            if list.coming.contains(&hash) {
                return Room::Coming;
            }
            if let Some(index) = list.vacant(self.max_keys) {
                list.coming.push(hash);
                drop(list);
                return Room::Reserved(self.reserved(index, hash));
            }
            let candidate = match looked < CANDIDATES {
                true => list.next_candidate(),
                false => None,
            };
            let swept = list.parked.len().min(SWEPT);
            let parked: Vec<_> = list.parked.drain(..swept).collect();
            drop(list);
            let candidate =
                candidate.map(|(index, candidate)| self.looking(Some(index), candidate));
            self.sweep(parked, hash, &evict);
            let Some(candidate) = candidate else { break };
            let fate = evict(&candidate.candidate, 3);
            if let Some(index) = candidate.end(fate, hash) {
                return Room::Reserved(self.reserved(index, hash));
            }
        }
        Room::Full
    }

    /// Removes parked partitions that no handle watches any more. Checks a few each time, so that
    /// soon only watched ones are left.
    fn sweep(
        &self,
        parked: Vec<Arc<Partition<K, G>>>,
        hash: u64,
        evict: &impl Fn(&Arc<Partition<K, G>>, usize) -> Fate,
    ) {
        // All are wrapped first, so that none is lost if a check panics.
        let parked: Vec<_> = parked
            .into_iter()
            .map(|parked| self.looking(None, parked))
            .collect();
        for parked in parked {
            let fate = evict(&parked.candidate, 2);
            parked.end(fate, hash);
        }
    }

    fn reserved(&self, index: usize, hash: u64) -> Reserved<'_, K, G> {
        Reserved {
            places: self,
            hash,
            index,
            partition: None,
        }
    }

    fn looking(&self, index: Option<usize>, candidate: Arc<Partition<K, G>>) -> Looking<'_, K, G> {
        Looking {
            places: self,
            index,
            candidate,
            is_gone: false,
        }
    }

    /// Returns how many partitions may be parked: as many again as the bound, or a number that
    /// costs little.
    fn max_parked(&self) -> usize {
        self.max_keys.max(FEW)
    }

    fn lock(&self) -> MutexGuard<'_, List<K, G>> {
        // No panic can occur under it between two changes that belong together.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, G> List<K, G> {
    /// Returns the index of a free slot.
    fn vacant(&mut self, max_keys: usize) -> Option<usize> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = self.places.len();
        (index < max_keys).then(|| {
            self.places.push(Place {
                partition: None,
                is_looked_at: false,
            });
            index
        })
    }

    /// Returns the next candidate for eviction. `None` if all slots are being filled or checked.
    fn next_candidate(&mut self) -> Option<(usize, Arc<Partition<K, G>>)> {
        for _ in 0..self.places.len() {
            let index = self.hand;
            self.hand = (index + 1) % self.places.len();
            let place = &mut self.places[index];
            if let (Some(partition), false) = (&place.partition, place.is_looked_at) {
                place.is_looked_at = true;
                return Some((index, partition.clone()));
            }
        }
        None
    }
}

impl<K, G> Looking<'_, K, G> {
    /// Ends the check. Returns the slot if it is given to the new key with this hash.
    fn end(mut self, fate: Fate, hash: u64) -> Option<usize> {
        let mut list = self.places.lock();
        let parks = fate == Fate::Parked && list.parked.len() < self.places.max_parked();
        let Some(index) = self.index.filter(|_| parks || fate == Fate::Evicted) else {
            self.is_gone = fate == Fate::Evicted;
            // Unlocked, because `drop` of `self` locks again.
            drop(list);
            return None;
        };
        list.coming.push(hash);
        let left = list.places[index].partition.take();
        if parks {
            list.parked.extend(left.clone());
        }
        drop(list);
        // The last references are dropped without the lock, and the key and the gate with them.
        drop(left);
        Some(index)
    }
}

impl<K, G> Drop for Looking<'_, K, G> {
    fn drop(&mut self) {
        let mut list = self.places.lock();
        match self.index {
            Some(index) => list.places[index].is_looked_at = false,
            None if self.is_gone => {}
            None => list.parked.push_back(self.candidate.clone()),
        }
    }
}

impl<K, G> Reserved<'_, K, G> {
    pub(super) fn fill(mut self, partition: Arc<Partition<K, G>>) {
        self.partition = Some(partition);
    }
}

impl<K, G> Drop for Reserved<'_, K, G> {
    fn drop(&mut self) {
        let mut list = self.places.lock();
        if let Some(place) = list.coming.iter().position(|hash| *hash == self.hash) {
            list.coming.swap_remove(place);
        }
        match self.partition.take() {
            Some(partition) => list.places[self.index].partition = Some(partition),
            None => list.free.push(self.index),
        }
    }
}

impl<K, G> fmt::Debug for Places<K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

/// The number of partitions that a new key checks before it gives up: in a flood of keys, each must
/// not cost a walk through all partitions.
const CANDIDATES: usize = 8;
/// The number of parked partitions that it checks for each of these.
const SWEPT: usize = 4;
/// A number of parked partitions that costs little.
const FEW: usize = 1000;
