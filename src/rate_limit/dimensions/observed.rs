//! The quotas as the registry sees them.

use std::sync::Weak;

use super::state::{ObservedDimension, State};
use crate::{
    observe::{self, FleetCounts, Instance, Observed},
    rate_limit::bucket,
};

impl<const N: usize> Observed for State<N> {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let queued = Some(self.queue.waiting() as u64);
        let settings = Some(&self.settings);
        let fleet = self.own.limits.fleet().map(|fleet| fleet.counts());
        bucket::observe(
            (&self.tally, settings),
            None::<(_, u64)>,
            seen(queued, fleet),
        )
    }
}

impl<const N: usize> Observed for ObservedDimension<N> {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let state = self.state.get().and_then(Weak::upgrade);
        let quota = state.map(|state| state.own.limits.quota(self.place));
        bucket::observe((&self.tally, None), quota, seen(None, None))
    }
}

/// Returns the registry's view of the state beside the counts.
pub(super) fn seen(queued: Option<u64>, fleet: Option<FleetCounts>) -> observe::State {
    observe::State::RateLimit {
        queued,
        keys: None,
        evictions: None,
        fleet,
    }
}
