//! The state that the layer, its services, its calls and its handles share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    Outcome, RejectedKind,
    observe::{self, Instance, Observed},
    protocol::Advice,
};

/// The numbers of a fallback at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Failed calls that the fallback answered with `Ok` so far, also those whose failing response
    /// it passed on.
    pub answered: u64,
    /// Failed calls that the fallback answered with an error so far.
    pub failed: u64,
    /// Calls so far that the fallback answered because a layer beneath had rejected them.
    pub rejections: u64,
    /// Calls so far that the fallback answered because the upstream was overloaded.
    pub overloads: u64,
    /// Calls so far that the fallback answered because of any other failure.
    pub failures: u64,
}

/// The settings and counts. All Relaxed: statistics.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    answered: AtomicU64,
    failed: AtomicU64,
    rejections: AtomicU64,
    overloads: AtomicU64,
    failures: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    pub(super) on_failure: bool,
    pub(super) on_overload: bool,
    pub(super) on_rejection: bool,
    pub(super) name: Option<&'static str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            on_failure: true,
            on_overload: true,
            on_rejection: true,
            name: None,
        }
    }
}

impl Settings {
    /// Returns whether a result gets another answer.
    pub(super) fn wants(&self, outcome: Outcome, advice: Advice) -> bool {
        match (outcome, advice) {
            (_, Advice::Rejected { .. }) => self.on_rejection,
            (Outcome::Failure, _) => self.on_failure,
            (Outcome::Overload, _) => self.on_overload,
            _ => false,
        }
    }
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejections: AtomicU64::new(0),
            overloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Counts a failed call that gets another answer, by its cause.
    pub(super) fn begin(&self, outcome: Outcome, rejected: Option<RejectedKind>) {
        let count = match (rejected, outcome) {
            (Some(_), _) => &self.rejections,
            (None, Outcome::Overload) => &self.overloads,
            (None, _) => &self.failures,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, answered: bool) {
        let count = if answered {
            &self.answered
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Snapshot {
            answered: of(&self.answered),
            failed: of(&self.failed),
            rejections: of(&self.rejections),
            overloads: of(&self.overloads),
            failures: of(&self.failures),
        }
    }
}

impl Observed for State {
    fn layer(&self) -> &'static str {
        "fallback"
    }

    fn name(&self) -> Option<&'static str> {
        self.settings.name
    }

    fn observe(&self) -> Instance {
        let now = self.snapshot();
        let state = observe::State::Fallback {
            answered: now.answered,
            failed: now.failed,
        };
        Instance::of((self.layer(), self.settings.name), Vec::new(), state)
    }
}
