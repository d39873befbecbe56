//! Bulkheads as the registry sees them.

use crate::{
    bulkhead::state::State,
    observe::{self, Instance, Observed, Tally},
};

impl Observed for State {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        observe(
            &self.tally,
            self.places.in_flight.limit(),
            [self].into_iter(),
        )
    }
}

/// Bulkheads of one layer as the registry sees them.
pub(super) fn observe<'a>(
    tally: &Tally,
    limit: usize,
    bulkheads: impl Iterator<Item = &'a State>,
) -> Instance {
    let (mut in_flight, mut queued) = (0, 0);
    for bulkhead in bulkheads {
        in_flight += bulkhead.places.in_flight.count() as u64;
        queued += bulkhead.places.queue.len() as u64;
    }
    #[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
    let config = vec![("limit", limit as f64)];
    let state = observe::State::Bulkhead {
        in_flight,
        limit: limit as u64,
        queued,
    };
    Instance::new(tally, config, state)
}
