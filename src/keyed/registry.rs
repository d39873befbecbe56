//! A machine for each key, never more than a bound.
//!
//! A key that is known costs a look-up in a map that readers share without writing to it. One that
//! is new takes a mutex and a place: a free one, or that of a machine which nobody would miss,
//! looked for among the next eight by a hand that goes round. If there is none, it gets nothing. So
//! a flood of keys neither grows the map nor drives out a machine that knows something.

use std::{
    fmt,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use papaya::{HashMap, ResizeMode};

use crate::{ConfigError, striped::Held};

pub(crate) struct Registry<K, V, R> {
    machines: HashMap<K, Held<V>>,
    /// Locked for new keys, to read all, and to change them.
    places: Mutex<Places<K, V, R>>,
    most: usize,
}

pub(crate) struct Places<K, V, R> {
    pub(crate) recipe: R,
    /// The keys of `machines`, and the machines themselves again: they need no look-up.
    pub(crate) taken: Vec<(K, Held<V>)>,
    hand: usize,
}

/// How machines are made, and when they may be forgotten.
pub(crate) trait Recipe<K, V> {
    /// # Errors
    /// The key gets no machine.
    fn make(&self, key: &K) -> Result<V, ConfigError>;

    /// Whether nobody would miss it.
    fn is_idle(&self, machine: &V) -> bool;

    /// Forgets it if that is still so: a caller may just have looked it up.
    fn forget(&self, machine: &Held<V>) -> bool {
        self.is_idle(machine)
    }
}

impl<K: Hash + Eq + Clone, V, R: Recipe<K, V>> Registry<K, V, R> {
    pub(crate) fn new(recipe: R, most: usize) -> Self {
        Self {
            machines: HashMap::builder().resize_mode(ResizeMode::Blocking).build(),
            places: Mutex::new(Places {
                recipe,
                taken: Vec::new(),
                hand: 0,
            }),
            most,
        }
    }

    pub(crate) fn find(&self, key: &K) -> Option<Held<V>> {
        self.machines.pin().get(key).map(Held::for_call)
    }

    /// The key's machine, made if it has none and there is a place.
    pub(crate) fn find_or_make(&self, key: &K) -> Option<Held<V>> {
        let mut places = self.lock();
        let machines = self.machines.pin();
        if let Some(machine) = machines.get(key) {
            return Some(machine.for_call());
        }
        // First a place, so that a flood of keys makes nothing; and all that is strangers' code
        // before anything is changed.
        let place = places.free(self.most)?;
        let keys = [(); 2].map(|()| key.clone());
        let machine = Held::single(places.recipe.make(key).ok()?);
        if let Some((forgotten, old)) = places.taken.get(place) {
            if !places.recipe.forget(old) {
                return None;
            }
            machines.remove(forgotten);
        }
        let [listed, mapped] = keys;
        places.put(place, listed, machine.for_call());
        machines.insert(mapped, machine.for_call());
        Some(machine)
    }

    pub(crate) fn all(&self) -> Vec<(K, Held<V>)> {
        self.lock()
            .taken
            .iter()
            .map(|(key, machine)| (key.clone(), machine.for_call()))
            .collect()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Places<K, V, R>> {
        // A recipe that panics does so before anything is changed.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V, R: Recipe<K, V>> Places<K, V, R> {
    /// A place for a new key: the end, while there are fewer than `most`; else one whose machine
    /// nobody would miss.
    fn free(&mut self, most: usize) -> Option<usize> {
        let taken = self.taken.len();
        if taken < most {
            return Some(taken);
        }
        let first = self.hand;
        self.hand = (first + LOOKED_AT) % taken;
        (first..first + LOOKED_AT.min(taken))
            .map(|place| place % taken)
            .find(|place| {
                let machine = &self.taken[*place].1;
                is_unheld(machine) && self.recipe.is_idle(machine)
            })
    }

    fn put(&mut self, place: usize, key: K, machine: Held<V>) {
        match self.taken.get_mut(place) {
            Some(taken) => *taken = (key, machine),
            None => self.taken.push((key, machine)),
        }
    }
}

/// Held by the list of places and by the map alone: no call is out whose result would be lost.
pub(crate) fn is_unheld<V>(machine: &Held<V>) -> bool {
    machine.holders() == 2
}

impl<K, V, R> fmt::Debug for Registry<K, V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

/// Places that a new key looks at before it gives up: a flood of keys must not cost a walk through
/// all of them each.
const LOOKED_AT: usize = 8;
