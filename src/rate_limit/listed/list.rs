//! The limits by key, and the one that keys share which have none.

use std::{fmt, hash::Hash, time::Duration};

use crate::{
    ConfigError, Rejected, RejectedKind,
    algorithm::{Limit, Overflow},
    keyed::registry::{Recipe, Registry, is_unheld},
    rate_limit::{
        Meter, Missing,
        limits::Limits,
        state::{Admission, Settings, State},
    },
    striped::{Held, Striped},
    time::Clock,
};

#[derive(Debug)]
pub(super) struct Listed<K> {
    pub(super) own: Registry<K, State, Making<K>>,
    pub(super) shared: Striped<State>,
    pub(super) overflow: Overflow,
    pub(super) missing: Missing,
}

/// What limits are made of. They all have one clock, so that a limit may be part of several.
pub(super) struct Making<K> {
    pub(super) limit: MakeLimit<K>,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
}

pub(super) type MakeLimit<K> = Box<dyn Fn(&K) -> Result<Box<dyn Limit>, ConfigError> + Send + Sync>;

impl<K: Hash + Eq + Clone> Listed<K> {
    /// Admits a request under its key's limit, and says which that was.
    pub(super) fn admit<Req>(
        &self,
        key: Option<K>,
        meter: &impl Meter<Req>,
        request: &Req,
    ) -> (Held<State>, Admission) {
        if !self.shared.settings.enabled {
            return self.without_limit(Admission::Free);
        }
        let Some(key) = key else {
            return match self.missing {
                Missing::Share => self.admit_shared(meter, request),
                Missing::Reject => self.without_limit(self.refused(RejectedKind::MissingKey, None)),
                Missing::Allow => self.without_limit(Admission::Free),
            };
        };
        let mut own = self.own.find(&key);
        loop {
            let Some(state) = own.or_else(|| self.own.find_or_make(&key)) else {
                return match self.overflow {
                    Overflow::Shared => self.admit_shared(meter, request),
                    Overflow::Reject => self.without_limit(
                        self.refused(RejectedKind::RateLimited, Some(self.one_unit())),
                    ),
                    Overflow::Allow => self.without_limit(Admission::Free),
                };
            };
            let admission = state.admit(meter, request);
            if !state.leaving.is_evicting() {
                return (state, admission);
            }
            // Just being forgotten: what was done to it would be forgotten too. The registry's
            // mutex waits for that to be over.
            state.take_back(admission);
            own = None;
        }
    }

    /// The key's own limit, for somebody who will use it.
    pub(super) fn find(&self, key: &K) -> Option<Held<State>> {
        loop {
            let state = self.own.find(key)?;
            if !state.leaving.is_evicting() {
                return Some(state);
            }
            // Not before the registry is done with it.
            drop(self.own.lock());
        }
    }

    fn admit_shared<Req>(
        &self,
        meter: &impl Meter<Req>,
        request: &Req,
    ) -> (Held<State>, Admission) {
        let admission = self.shared.admit(meter, request);
        (self.shared.for_call(), admission)
    }

    fn without_limit(&self, admission: Admission) -> (Held<State>, Admission) {
        (self.shared.for_call(), admission)
    }

    fn refused(&self, kind: RejectedKind, retry_after: Option<Duration>) -> Admission {
        let rejected = Rejected {
            kind,
            layer: "rate_limit",
            name: self.shared.settings.name,
            retry_after,
        };
        Admission::Rejected {
            key: None,
            rejected,
        }
    }

    /// About when a key that found no place may try again.
    fn one_unit(&self) -> Duration {
        let rate = self.shared.limits.with(0, |limit| limit.rate());
        u32::try_from(rate.count()).map_or(Duration::ZERO, |count| rate.per() / count.max(1))
    }
}

impl<K> Recipe<K, State> for Making<K> {
    fn make(&self, key: &K) -> Result<State, ConfigError> {
        Ok(State::new(
            Limits::one((self.limit)(key)?),
            self.clock,
            self.settings,
        ))
    }

    fn is_idle(&self, state: &State) -> bool {
        state.is_fresh()
    }

    fn forget(&self, state: &Held<State>) -> bool {
        state
            .leaving
            .evict_if(|| is_unheld(state) && state.is_fresh())
    }
}

impl<K> fmt::Debug for Making<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Making")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
