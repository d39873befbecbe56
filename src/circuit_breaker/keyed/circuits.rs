//! The circuits by key, and the one of all keys that have none.

use std::hash::Hash;

use crate::{
    ConfigError,
    algorithm::{Breaker, BreakerConfig},
    circuit_breaker::handle::State,
    keyed::registry::{Recipe, Registry},
    striped::{Held, Striped, stripe_count},
};

#[derive(Debug)]
pub(super) struct Circuits<K> {
    own: Registry<K, State, Making>,
    overflow: Striped<State>,
}

/// What circuits are made of.
#[derive(Debug, Clone, Copy)]
struct Making {
    config: BreakerConfig,
    enabled: bool,
    name: Option<&'static str>,
}

impl<K: Hash + Eq + Clone> Circuits<K> {
    pub(super) fn new(
        config: BreakerConfig,
        most: usize,
        enabled: bool,
        name: Option<&'static str>,
    ) -> Result<Self, ConfigError> {
        if most == 0 {
            return Err(ConfigError::new(
                "max_keys",
                most,
                "keep at least 1, or build a circuit breaker without keys",
            ));
        }
        let making = Making {
            config,
            enabled,
            name,
        };
        let overflow = Striped::new(making.circuit(stripe_count())?);
        Ok(Self {
            own: Registry::new(making, most),
            overflow,
        })
    }

    /// The key's circuit, made if it has none and there is a place; else that of the overflow.
    pub(super) fn circuit(&self, key: K) -> Held<State> {
        let own = self.own.find(&key).or_else(|| self.own.find_or_make(&key));
        own.unwrap_or_else(|| self.overflow.for_call())
    }

    pub(super) fn find(&self, key: &K) -> Option<Held<State>> {
        self.own.find(key)
    }

    pub(super) fn overflow(&self) -> Striped<State> {
        self.overflow.clone()
    }

    pub(super) fn all(&self) -> Vec<(K, Held<State>)> {
        self.own.all()
    }

    pub(super) fn update(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        let mut places = self.own.lock();
        // All have the same window, so that what one accepts they all do.
        self.overflow.update(config)?;
        places.recipe.config = config;
        places
            .taken
            .iter()
            .try_for_each(|(_, state)| state.update(config))
    }
}

impl Making {
    fn circuit(&self, stripes: usize) -> Result<State, ConfigError> {
        let breaker = Breaker::new(&self.config, stripes, rand::random())?;
        let state = State::new(breaker, self.config, self.name, false);
        if !self.enabled {
            state.disable();
        }
        Ok(state)
    }
}

impl<K> Recipe<K, State> for Making {
    fn make(&self, _: &K) -> Result<State, ConfigError> {
        // One stripe: there are many circuits, and few threads at each.
        self.circuit(1)
    }

    /// A caller that has just looked it up reports to a circuit that is gone: one result is
    /// missing, of which the next will tell.
    fn is_idle(&self, state: &State) -> bool {
        state.is_forgettable()
    }
}
