//! The circuits by key, never more than a bound.
//!
//! A key that is known costs a look-up in a map that readers share without writing to it. One that is new takes a place:
//! a free one, or that of a circuit which nobody would miss, looked for among the next eight by a hand that goes round.
//! If there is none, or somebody else is at it, the overflow circuit serves, which all such keys share. So a flood of
//! keys neither grows the map, nor drives out a circuit that knows something, nor makes anybody wait.

use std::{
    fmt,
    hash::Hash,
    sync::{Mutex, PoisonError, TryLockError},
};

use papaya::{HashMap, ResizeMode};

use crate::{
    ConfigError,
    algorithm::{Breaker, BreakerConfig},
    circuit_breaker::handle::State,
    striped::{Striped, stripe_count},
};

pub(super) struct Registry<K> {
    circuits: HashMap<K, Striped<State>>,
    /// Locked for new keys, to read all, and to change settings; for new keys only if nobody waits.
    places: Mutex<Places<K>>,
    overflow: Striped<State>,
    most: usize,
    enabled: bool,
    name: Option<&'static str>,
}

struct Places<K> {
    /// The keys of `circuits`, and the circuits themselves again: they need no look-up.
    taken: Vec<(K, Striped<State>)>,
    hand: usize,
    config: BreakerConfig,
}

impl<K: Hash + Eq + Clone> Registry<K> {
    pub(super) fn new(
        config: BreakerConfig,
        most: usize,
        enabled: bool,
        name: Option<&'static str>,
    ) -> Result<Self, ConfigError> {
        if most == 0 {
            return Err(ConfigError::new("most_keys", most, "keep at least 1, or build a circuit breaker without keys"));
        }
        Ok(Self {
            circuits: HashMap::builder().resize_mode(ResizeMode::Blocking).build(),
            places: Mutex::new(Places { taken: Vec::new(), hand: 0, config }),
            overflow: Striped::new(state(config, stripe_count(), enabled, name)?),
            most,
            enabled,
            name,
        })
    }

    /// The key's circuit, made if it has none and there is a place; else that of the overflow.
    pub(super) fn circuit(&self, key: K) -> Striped<State> {
        if let Some(state) = self.circuits.pin().get(&key) {
            return state.clone();
        }
        let mut places = match self.places.try_lock() {
            Ok(places) => places,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.overflow.clone(),
        };
        let circuits = self.circuits.pin();
        if let Some(state) = circuits.get(&key) {
            return state.clone();
        }
        let Some(place) = places.free(self.most) else { return self.overflow.clone() };
        // One stripe: there are many circuits, and few threads at each.
        let Ok(state) = state(places.config, 1, self.enabled, self.name) else { return self.overflow.clone() };
        let state = Striped::single(state);
        circuits.insert(key.clone(), state.clone());
        if let Some((forgotten, _)) = places.take(place, key, state.clone()) {
            circuits.remove(&forgotten);
        }
        state
    }

    pub(super) fn find(&self, key: &K) -> Option<Striped<State>> {
        self.circuits.pin().get(key).cloned()
    }

    pub(super) fn overflow(&self) -> Striped<State> {
        self.overflow.clone()
    }

    pub(super) fn all(&self) -> Vec<(K, Striped<State>)> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).taken.clone()
    }

    pub(super) fn update(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        // All have the same window, so that what one accepts they all do.
        self.overflow.update(config)?;
        places.config = config;
        places.taken.iter().try_for_each(|(_, state)| state.update(config))
    }
}

impl<K> Places<K> {
    /// A place for a new key: the end, while there are fewer than `most`; else one whose circuit nobody would miss.
    fn free(&mut self, most: usize) -> Option<usize> {
        let taken = self.taken.len();
        if taken < most {
            return Some(taken);
        }
        let first = self.hand;
        self.hand = (first + LOOKED_AT) % taken;
        (first..first + LOOKED_AT.min(taken)).map(|place| place % taken).find(|place| {
            let state = &self.taken[*place].1;
            // Held by this list and by the map alone: no call is out whose result would be lost.
            state.holders() == 2 && state.is_forgettable()
        })
    }

    /// Hands out whom it takes the place of.
    fn take(&mut self, place: usize, key: K, state: Striped<State>) -> Option<(K, Striped<State>)> {
        match self.taken.get_mut(place) {
            Some(taken) => Some(std::mem::replace(taken, (key, state))),
            None => {
                self.taken.push((key, state));
                None
            }
        }
    }
}

impl<K> fmt::Debug for Registry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("most", &self.most).finish_non_exhaustive()
    }
}

fn state(config: BreakerConfig, stripes: usize, enabled: bool, name: Option<&'static str>) -> Result<State, ConfigError> {
    let state = State::new(Breaker::new(&config, stripes, rand::random())?, config, name, false);
    if !enabled {
        state.disable();
    }
    Ok(state)
}

/// Places that a new key looks at before it gives up: a flood of keys must not cost a walk through all of them each.
const LOOKED_AT: usize = 8;
