//! The cooldowns and counts that calls share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    ambient::clock::{Clock, nanos},
    observe::{self, Instance, Observed},
    protocol::SPILL_RESULTS as RESULTS,
};

/// The counts of a backend's results, in the order of their names.
pub(super) type BackendCounts = [u64; RESULTS.len()];

#[derive(Debug)]
pub(super) struct State {
    pub(super) name: Option<&'static str>,
    clock: Clock,
    backends: Vec<BackendState>,
}

/// The state of one backend.
#[derive(Debug)]
struct BackendState {
    name: &'static str,
    /// The time from which the backend may be tried again, in nanoseconds since the clock's start.
    /// Relaxed: it publishes nothing else, and a call that races a new pause may still try.
    cools_until: AtomicU64,
    /// The counts. All Relaxed: statistics.
    counts: [AtomicU64; RESULTS.len()],
}

impl State {
    pub(super) fn new(
        name: Option<&'static str>,
        backends: impl Iterator<Item = &'static str>,
    ) -> Self {
        let place = |name| BackendState {
            name,
            cools_until: AtomicU64::new(0),
            counts: Default::default(),
        };
        Self {
            name,
            clock: Clock::start(),
            backends: backends.map(place).collect(),
        }
    }

    /// Counts a backend's result in a call, by its index in [`RESULTS`].
    pub(super) fn count(&self, backend: usize, result: usize) {
        self.backends[backend].counts[result].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how long a backend still pauses.
    pub(super) fn cooling(&self, backend: usize) -> Option<Duration> {
        let until = self.backends[backend].cools_until.load(Ordering::Relaxed);
        let left = until.saturating_sub(self.clock.now());
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Pauses a backend. Of two pauses the later end counts.
    pub(super) fn cool(&self, backend: usize, wait: Duration) {
        let until = self.clock.now().saturating_add(nanos(wait));
        let place = &self.backends[backend];
        place.cools_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Ends all cooldowns.
    pub(super) fn reset(&self) {
        for place in &self.backends {
            place.cools_until.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Vec<(&'static str, BackendCounts)> {
        let of = |place: &BackendState| {
            let counts = std::array::from_fn(|at| place.counts[at].load(Ordering::Relaxed));
            (place.name, counts)
        };
        self.backends.iter().map(of).collect()
    }
}

impl Observed for State {
    fn layer(&self) -> &'static str {
        "spill"
    }

    fn name(&self) -> Option<&'static str> {
        self.name
    }

    fn observe(&self) -> Instance {
        let of_backend = |(name, counts): (&'static str, BackendCounts)| {
            let results = RESULTS.into_iter().zip(counts);
            results.map(move |(result, count)| (name, result, count))
        };
        let state = observe::State::Spill {
            backends: self.counts().into_iter().flat_map(of_backend).collect(),
        };
        Instance::of((self.layer(), self.name), Vec::new(), state)
    }
}
