//! A limit as others see it: the registry, and the store that it has its units from.

use crate::{
    observe::{self, Instance, Observed},
    rate_limit::{bucket, fleet::Granted, state::State},
};

impl Observed for State {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let limit = self.limit.get();
        let state = observe::State::RateLimit {
            queued: Some(self.queue.waiting() as u64),
            keys: None,
            evictions: None,
            fleet: self.fleet().map(|fleet| fleet.counts()),
        };
        let quota = self.switch.is_on().then(|| (limit.rate(), limit.burst()));
        bucket::observe((&self.tally, Some(&self.settings)), quota, state)
    }

    /// One that was never on is none.
    fn is_there(&self) -> bool {
        self.switch.was_on()
    }
}

impl Granted for State {
    fn granted(&self, _: u64) {
        self.bucket().notify();
    }
}
