//! A limit as the registry sees it, and as the store that grants its units sees it.

use crate::{
    observe::{self, Instance, Observed},
    rate_limit::{bucket, fleet::Granted, key_hash::KeyHash, state::State},
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

    /// Returns whether the limit was ever on: the registry leaves out a limit that never was.
    fn is_there(&self) -> bool {
        self.switch.was_on()
    }
}

impl Granted for State {
    fn granted(&self, _: KeyHash) {
        self.bucket().notify();
    }
}
