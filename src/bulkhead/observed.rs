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
        observe(&self.tally, (limit, learned), [self].into_iter())
    }
}

/// Bulkheads of one layer as the registry sees them.
pub(super) fn observe<'a>(
    tally: &Tally,
    (limit, learned): (usize, Option<LearnedLimit>),
    bulkheads: impl Iterator<Item = &'a State>,
) -> Instance {
    let (mut in_flight, mut queued) = (0, 0);
    for bulkhead in bulkheads {
        in_flight += bulkhead.permits.in_flight.count() as u64;
        queued += bulkhead.permits.queue.len() as u64;
    }
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
