//! Bulkheads as the registry sees them.

use crate::{
    bulkhead::state::State,
    observe::{self, Instance, LearnedLimit, Observed, Tally},
};

impl Observed for State {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let learned = self.learner.as_ref().map(|learner| LearnedLimit {
            rtt: learner.rtt().map(|rtt| rtt.as_secs_f64()),
            baseline: learner.baseline().map(|rtt| rtt.as_secs_f64()),
        });
        let limit = self.permits.in_flight.limit();
        observe(&self.tally, (limit, learned), Use::of(self))
    }
}

/// How much of the bulkheads of one layer is in use.
pub(super) struct Use {
    in_flight: u64,
    queued: u64,
}

impl Use {
    pub(super) fn of(bulkhead: &State) -> Self {
        Self {
            in_flight: bulkhead.permits.in_flight.count() as u64,
            queued: bulkhead.permits.queue.waiting() as u64,
        }
    }

    pub(super) fn add(&mut self, bulkhead: &State) {
        let other = Self::of(bulkhead);
        self.in_flight += other.in_flight;
        self.queued += other.queued;
    }
}

/// Bulkheads of one layer as the registry sees them.
pub(super) fn observe(
    tally: &Tally,
    (limit, learned): (usize, Option<LearnedLimit>),
    Use { in_flight, queued }: Use,
) -> Instance {
    #[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
    let config = vec![("limit", limit as f64)];
    let state = observe::State::Bulkhead {
        in_flight,
        limit: limit as u64,
        queued,
        learned,
    };
    Instance::new(tally, config, state)
}
