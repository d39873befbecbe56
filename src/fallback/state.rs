//! What the layer, its services, its calls and its handles share.

use std::{
    fmt,
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Outcome,
    observe::{self, Instance, Observed, Totals},
    protocol::Advice,
};

/// Answers in place of a call that has failed.
///
/// The two closures of [`FallbackLayer::builder`](super::FallbackLayer::builder) are one.
pub trait Answer<Req, Res, Err> {
    /// What is kept of a request.
    type Kept;
    /// The answer to come.
    type Future: Future<Output = Result<Res, Err>>;

    /// Keeps of a request what the answer needs.
    fn keep(&self, request: &Req) -> Self::Kept;

    /// Answers, or passes the failure on.
    fn answer(&self, kept: Self::Kept, failure: Result<Res, Err>) -> Self::Future;
}

/// A closure that keeps, and one that answers.
#[derive(Clone, Copy)]
pub struct With<K, A> {
    pub(super) keep: K,
    pub(super) answer: A,
}

impl<Req, Res, Err, K, A, T, F> Answer<Req, Res, Err> for With<K, A>
where
    K: Fn(&Req) -> T,
    A: Fn(T, Result<Res, Err>) -> F,
    F: Future<Output = Result<Res, Err>>,
{
    type Kept = T;
    type Future = F;

    fn keep(&self, request: &Req) -> T {
        (self.keep)(request)
    }

    fn answer(&self, kept: T, failure: Result<Res, Err>) -> F {
        (self.answer)(kept, failure)
    }
}

impl<K, A> fmt::Debug for With<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("With").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// Relaxed, both: statistics.
    answered: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    pub(super) on_failure: bool,
    pub(super) on_overload: bool,
    pub(super) on_rejection: bool,
    pub(super) name: Option<&'static str>,
}

impl Settings {
    /// Whether a result calls for another answer.
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
        }
    }

    pub(super) fn count(&self, answered: bool) {
        let count = if answered {
            &self.answered
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many fallbacks answered, and how many failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (
            self.answered.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
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
        let (answered, failed) = self.counts();
        Instance {
            layer: self.layer(),
            name: self.settings.name.unwrap_or_default(),
            totals: Totals::default(),
            config: Vec::new(),
            state: observe::State::Fallback { answered, failed },
        }
    }
}
