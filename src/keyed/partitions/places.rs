//! The places of a bounded number of partitions.

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
    /// Where the search for a partition to evict goes on.
    hand: usize,
    /// The hashes of keys that have a place and are not in it yet.
    coming: Vec<u64>,
    /// Those that have no place: what only lists of keys watch, and what calls use since.
    parked: VecDeque<Arc<Partition<K, G>>>,
}

struct Place<K, G> {
    /// `None` while it is being filled, or free.
    partition: Option<Arc<Partition<K, G>>>,
    /// A new key just looks whether it may have this place, and another one takes the next.
    is_looked_at: bool,
}

/// What a new key finds.
pub(super) enum Room<'a, K, G> {
    /// A place of its own.
    Reserved(Reserved<'a, K, G>),
    /// Another thread is about to put this very key into one.
    Coming,
    /// None.
    Full,
}

/// A place that is to be filled. Dropped unfilled, it is free.
pub(super) struct Reserved<'a, K, G> {
    places: &'a Places<K, G>,
    hash: u64,
    index: usize,
    partition: Option<Arc<Partition<K, G>>>,
}

/// A candidate. Dropped, it is a candidate for others again.
struct Looking<'a, K, G> {
    places: &'a Places<K, G>,
    /// `None` if it is parked.
    index: Option<usize>,
    candidate: Arc<Partition<K, G>>,
    /// A parked one was evicted.
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

    /// A place for a new key: while there are fewer than the bound, a new one; else that of a
    /// partition which `evict` says may go. It is told how many references are the map's and ours.
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

    /// Forgets those that nobody watches any more: some at each turn, so that there are soon no
    /// more than lists of keys watch.
    fn sweep(
        &self,
        parked: Vec<Arc<Partition<K, G>>>,
        hash: u64,
        evict: &impl Fn(&Arc<Partition<K, G>>, usize) -> Fate,
    ) {
        // First all of them, so that none is lost if one panics.
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

    /// As many again, or as many as cost little.
    fn max_parked(&self) -> usize {
        self.max_keys.max(FEW)
    }

    fn lock(&self) -> MutexGuard<'_, List<K, G>> {
        // Nothing panics under it between two changes that belong together.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, G> List<K, G> {
    /// A place that nobody has.
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

    /// The next partition that may have to go, unless all are just coming, or looked at.
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
    /// Its place, if it leaves that to the new key of this hash.
    fn end(mut self, fate: Fate, hash: u64) -> Option<usize> {
        let mut list = self.places.lock();
        let parks = fate == Fate::Parked && list.parked.len() < self.places.max_parked();
        let Some(index) = self.index.filter(|_| parks || fate == Fate::Evicted) else {
            self.is_gone = fate == Fate::Evicted;
            // Its own lock follows.
            drop(list);
            return None;
        };
        list.coming.push(hash);
        let left = list.places[index].partition.take();
        if parks {
            list.parked.extend(left.clone());
        }
        drop(list);
        // The last references go without the lock, and the key and the gate with them.
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

/// Partitions that a new key looks at before it gives up: a flood of keys must not cost a walk
/// through all of them each.
const CANDIDATES: usize = 8;
/// Partitions without a place that it looks at for each of them.
const SWEPT: usize = 4;
/// So many partitions without a place are no trouble.
const FEW: usize = 1000;
