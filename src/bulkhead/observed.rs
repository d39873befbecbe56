//! The view of bulkheads in the registry.

use std::time::Duration;

use crate::{
    Criticality,
    bulkhead::{settings::Settings, state::State},
    observe::{self, Instance, KeyState, LearnedLimit, Observed, Tally, used},
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
            max: self.max(),
            within: None,
            settings: self.settings,
            reclaim_after: self.config().reclaim_after,
            learned,
        };
        observe(&self.permits.tally, thresholds, Use::of(self))
    }
}

impl State {
    pub(super) fn key_state(&self) -> KeyState {
        KeyState::Bulkhead {
            in_flight: self.permits.in_flight.count() as u64,
            limit: self.permits.in_flight.limit() as u64,
            queued: self.permits.queue.waiting() as u64,
        }
    }
}

/// The thresholds, and the learned values.
pub(super) struct Thresholds {
    pub(super) limit: usize,
    /// The limit as it was set.
    pub(super) max: usize,
    /// The total of all keys.
    pub(super) within: Option<usize>,
    pub(super) settings: Settings,
    pub(super) reclaim_after: Option<Duration>,
    pub(super) learned: Option<LearnedLimit>,
}

/// The use of the bulkheads of one layer.
pub(super) struct Use {
    in_flight: u64,
    queued: u64,
    /// The fraction of the limit in use, of the fullest bulkhead.
    used: f64,
}

impl Use {
    pub(super) fn of(bulkhead: &State) -> Self {
        let in_flight = bulkhead.permits.in_flight.count() as u64;
        Self {
            in_flight,
            queued: bulkhead.permits.queue.waiting() as u64,
            used: used(in_flight, bulkhead.permits.in_flight.limit() as u64),
        }
    }

    pub(super) fn add(&mut self, bulkhead: &State) {
        let other = Self::of(bulkhead);
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        self.used = self.used.max(other.used);
    }
}

/// Describes the bulkheads of one layer for the registry.
pub(super) fn observe(
    tally: &Tally,
    thresholds: Thresholds,
    Use {
        in_flight,
        queued,
        used,
    }: Use,
) -> Instance {
    let config = params(&thresholds);
    let state = observe::State::Bulkhead {
        in_flight,
        limit: thresholds.limit as u64,
        queued,
        used,
        learned: thresholds.learned,
    };
    Instance::new(tally, config, state)
}

/// Lists all settings that can make a bulkhead reject calls or let them wait.
#[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
fn params(thresholds: &Thresholds) -> Vec<(&'static str, f64)> {
    let mut config = Vec::with_capacity(5);
    config.push(("limit", thresholds.limit as f64));
    if thresholds.learned.is_some() {
        config.push(("max_limit", thresholds.max as f64));
    }
    let within = thresholds.within;
    config.extend(within.map(|total| ("within", total as f64)));
    let settings = &thresholds.settings;
    if let Some(wait) = settings.max_wait {
        let waiting = settings.max_waiting(Criticality::CriticalPlus);
        config.push(("max_wait", wait.as_secs_f64()));
        config.push(("max_waiting", waiting as f64));
    }
    let after = thresholds.reclaim_after;
    config.extend(after.map(|after| ("reclaim_after", after.as_secs_f64())));
    config
}
