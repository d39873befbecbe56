//! Bulkheads as the registry sees them.

use std::time::Duration;

use crate::{
    bulkhead::state::State,
    observe::{self, Instance, LearnedLimit, Observed, Tally},
};

impl Observed for State {
    fn layer(&self) -> &'static str {
        self.permits.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.permits.tally.name
    }

    fn observe(&self) -> Instance {
        let learned = self.learner().map(|learner| LearnedLimit {
            rtt: learner.rtt().map(|rtt| rtt.as_secs_f64()),
            baseline: learner.baseline().map(|rtt| rtt.as_secs_f64()),
        });
        let thresholds = Thresholds {
            limit: self.permits.in_flight.limit(),
            reclaim_after: self.config().reclaim_after,
            learned,
        };
        observe(&self.permits.tally, thresholds, Use::of(self))
    }
}

/// The thresholds, and the values that were learned.
pub(super) struct Thresholds {
    pub(super) limit: usize,
    pub(super) reclaim_after: Option<Duration>,
    pub(super) learned: Option<LearnedLimit>,
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
    Thresholds {
        limit,
        reclaim_after,
        learned,
    }: Thresholds,
    Use { in_flight, queued }: Use,
) -> Instance {
    #[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
    let mut config = vec![("limit", limit as f64)];
    if let Some(after) = reclaim_after {
        config.push(("reclaim_after", after.as_secs_f64()));
    }
    let state = observe::State::Bulkhead {
        in_flight,
        limit: limit as u64,
        queued,
        learned,
    };
    Instance::new(tally, config, state)
}
