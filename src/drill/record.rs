//! Records of single runs.

use std::{collections::BTreeMap, time::Duration};

use super::caller::CallEnd;
use crate::{
    RejectedKind,
    algorithm::BreakerState,
    observe::{Instance, Registry, State},
};

/// One run: a stack and a seed.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// In the order in which they were made.
    pub(super) asked: Vec<Asked>,
    /// The times at which calls arrived at any upstream, in sorted nanoseconds.
    pub(super) sent: Vec<u64>,
    pub(super) counted: LayerCounts,
    /// The number of open circuits, at each reading.
    pub(super) open: Vec<u64>,
    /// A fingerprint of all events. If it differs, the runs differ.
    pub(super) digest: u64,
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// The number of the kind of clients.
    pub(super) crowd: usize,
    /// The time of the call, in nanoseconds.
    pub(super) at: u64,
    /// Its duration, in nanoseconds.
    pub(super) took: u64,
    pub(super) end: CallEnd,
}

/// The counters of the layers of all clients together.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerCounts {
    /// Events by their names.
    pub(super) events: BTreeMap<&'static str, u64>,
    /// Rejections by layer and kind.
    pub(super) rejected: BTreeMap<(&'static str, &'static str), u64>,
    /// Settings by layer and name. If there are several layers of a kind, the last counts.
    pub(super) settings: BTreeMap<(&'static str, &'static str), f64>,
    /// The number of layers of each kind.
    pub(super) layers: BTreeMap<&'static str, u64>,
    /// Retries that were sent, by the problem of the attempt before.
    pub(super) retries: BTreeMap<&'static str, u64>,
}

impl Record {
    /// Adds an event to the fingerprint.
    pub(super) fn digest(&mut self, words: [u64; 3]) {
        for word in words {
            // FNV-1a, a word at a time.
            self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

impl LayerCounts {
    /// Reads all layers of a registry.
    pub(super) fn read(registry: &Registry) -> Self {
        let mut counted = Self::default();
        for instance in registry.snapshot() {
            counted.add(&instance);
        }
        counted
    }

    /// Returns how many circuits are open now.
    pub(super) fn open_circuits(registry: &Registry) -> u64 {
        let instances = registry.snapshot().into_iter();
        let open = instances.map(|instance| match instance.state {
            State::CircuitBreaker(circuits) => {
                let states = circuits.states.into_iter();
                let open = states.filter(|(state, _)| *state == BreakerState::Open);
                open.map(|(_, count)| count).sum()
            }
            _ => 0,
        });
        open.sum()
    }

    pub(super) fn of(&self, event: &'static str) -> u64 {
        self.events.get(event).copied().unwrap_or(0)
    }

    pub(super) fn rejections(&self, kind: RejectedKind) -> u64 {
        let kinds = self.rejected.iter();
        kinds
            .filter(|((_, known), _)| *known == kind.as_str())
            .map(|(_, count)| count)
            .sum()
    }

    /// Adds the counters of another run.
    pub(super) fn merge(&mut self, other: &Self) {
        for (event, count) in &other.events {
            *self.events.entry(event).or_default() += count;
        }
        for (key, count) in &other.rejected {
            *self.rejected.entry(*key).or_default() += count;
        }
        for (cause, count) in &other.retries {
            *self.retries.entry(cause).or_default() += count;
        }
        self.settings.extend(&other.settings);
        self.layers.extend(&other.layers);
    }

    fn add(&mut self, instance: &Instance) {
        *self.layers.entry(instance.layer).or_default() += 1;
        for (kind, count) in instance.totals.rejected.iter() {
            if count > 0 {
                let key = (instance.layer, kind.as_str());
                *self.rejected.entry(key).or_default() += count;
            }
        }
        let settings = instance.config.iter();
        self.settings
            .extend(settings.map(|(name, value)| ((instance.layer, *name), *value)));
        self.count_state(instance);
    }

    fn count_state(&mut self, instance: &Instance) {
        match &instance.state {
            State::CircuitBreaker(circuits) => {
                for (from, to, _, count) in &circuits.transitions {
                    let event = match (from, to) {
                        (BreakerState::HalfOpen, BreakerState::Open) => REOPENED,
                        (_, BreakerState::Open) => OPENED,
                        (BreakerState::HalfOpen, BreakerState::Closed) => CLOSED,
                        _ => continue,
                    };
                    self.note(event, *count);
                }
            }
            State::Retry {
                calls, attempts, ..
            } => {
                for (name, count) in calls {
                    self.note(name, *count);
                }
                for (cause, count) in attempts {
                    self.note(RETRIED, *count);
                    *self.retries.entry(cause).or_default() += count;
                }
            }
            State::Hedge { sent, wins, .. } => {
                self.note(HEDGED, *sent);
                let won = wins.iter().filter(|(winner, _)| *winner == "hedge");
                self.note(HEDGE_WON, won.map(|(_, count)| count).sum());
            }
            State::Fallback { answered, .. } => self.note(FELL_BACK, *answered),
            State::Timeout { total } => {
                let event = if *total {
                    TOTAL_TIMEOUT
                } else {
                    ATTEMPT_TIMEOUT
                };
                self.note(event, instance.totals.rejected.of(RejectedKind::TimedOut));
            }
            _ => {}
        }
    }

    fn note(&mut self, event: &'static str, count: u64) {
        *self.events.entry(event).or_default() += count;
    }
}

impl Asked {
    /// Returns whether it was answered before its caller left.
    pub(super) fn is_good(&self) -> bool {
        self.end == CallEnd::Answered
    }

    pub(super) fn took(&self) -> Duration {
        Duration::from_nanos(self.took)
    }
}

impl CallEnd {
    /// Returns a number for fingerprints.
    pub(super) fn code(self) -> u64 {
        match self {
            Self::Answered => 0,
            Self::Failed => 1,
            Self::Left => 2,
            Self::Unfinished => 3,
            Self::Rejected(kind) => 4 + kind as u64,
        }
    }
}

// The names of events. A retry names its own calls.
pub(super) const OPENED: &str = "opened";
pub(super) const REOPENED: &str = "reopened";
pub(super) const CLOSED: &str = "closed";
pub(super) const RETRIED: &str = "retried";
pub(super) const RECOVERED: &str = "recovered";
pub(super) const DENIED: &str = "budget_denied";
pub(super) const HEDGED: &str = "hedged";
pub(super) const HEDGE_WON: &str = "hedge_won";
pub(super) const FELL_BACK: &str = "fell_back";
pub(super) const ATTEMPT_TIMEOUT: &str = "attempt_timeout";
pub(super) const TOTAL_TIMEOUT: &str = "total_timeout";
/// The cause of a retry that costs no token.
pub(super) const NOT_SENT: &str = "not_sent";
