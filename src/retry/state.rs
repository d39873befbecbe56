//! The state that the layer, its services, its calls and its handles share.

use std::{
    any::Any,
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Outcome, Rejected, RejectedKind,
    ambient::clock::nanos,
    budget::{Counting, KeyBudget, Purses, Token},
    gate::WatchedCircuits,
    observe::{self, Durations, Instance, Observed, RETRY_BACKOFF, Totals, trace},
    retry::{RetryConfig, RetryEvent, event::Hook},
    sync::PerThread,
};

/// The numbers of a retry at one moment.
///
/// Every call that has ended is in one of the totals from `first_try` on. Calls that were dropped
/// before their end are in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The retries that the budget would pay for. `None` without a budget. With [keyed
    /// budgets](crate::budget::KeyedBudgets), this is the shared budget of all calls that have none
    /// of their own.
    pub budget: Option<u32>,
    /// Attempts beyond the first that were sent, so far.
    pub retries: u64,
    /// Calls that succeeded at once.
    pub first_try: u64,
    /// Calls that succeeded after a retry.
    pub recovered: u64,
    /// Calls that failed in all attempts allowed.
    pub exhausted: u64,
    /// Calls that failed while the budget was empty.
    pub budget_denied: u64,
    /// Calls that ended with a result that is not retried, or not retried for that request.
    pub not_retryable: u64,
    /// Calls that failed and could not be sent again. The body was too long to keep or still in
    /// use, or the protocol kept nothing of the request.
    pub not_replayable: u64,
    /// Calls that ended with a rejection of a layer beneath.
    pub rejected: u64,
    /// Calls that failed and whose retry could not be sent. It would have come after the deadline
    /// or beyond the longest `Retry-After`, a circuit beneath was open, or the inner service did
    /// not become ready.
    pub not_sent: u64,
}

#[derive(Debug)]
pub(super) struct State {
    /// If true, more than one attempt is allowed: all that successful calls read of the config.
    /// Relaxed: a call that races a change honors one of the two.
    retries_at_all: AtomicBool,
    /// Locked only by calls that have failed, and by handles.
    config: Mutex<RetryConfig>,
    purses: Purses,
    fixed: Fixed,
    /// The circuits beneath. Only calls that have failed read them.
    circuits: Option<Arc<dyn WatchedCircuits>>,
    hook: Hook,
    counts: RetryCounts,
    /// The waits of a named layer.
    backoffs: Option<Durations>,
}

/// The settings that never change after the build.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub(super) enabled: bool,
    pub(super) retry_rejected: bool,
    pub(super) name: Option<&'static str>,
}

/// The end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryEnd {
    FirstTry,
    Recovered,
    Exhausted,
    BudgetDenied,
    NotRetryable,
    NotReplayable,
    Rejected,
    NotSent,
}

/// The reason for another attempt: what was wrong with the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The attempt failed, and may have been processed.
    Failure,
    /// The upstream was overloaded.
    Overload,
    /// The attempt did not reach the upstream.
    NotSent,
    /// A layer beneath has rejected it.
    Rejected,
}

/// The counts. All Relaxed: statistics.
#[derive(Debug)]
struct RetryCounts {
    often: PerThread<Often>,
    /// Retries, by their [`Cause`].
    retries: [AtomicU64; Cause::ALL.len()],
    recovered: AtomicU64,
    exhausted: AtomicU64,
    budget_denied: AtomicU64,
    not_retryable: AtomicU64,
    not_replayable: AtomicU64,
    not_sent: AtomicU64,
}

/// The counts of what may happen to every call. Per thread, so that threads do not contend.
#[derive(Debug, Default)]
struct Often {
    first_try: AtomicU64,
    rejected: AtomicU64,
}

impl State {
    pub(super) fn new(
        config: RetryConfig,
        purses: Purses,
        fixed: Fixed,
        (circuits, hook): (Option<Arc<dyn WatchedCircuits>>, Hook),
    ) -> Self {
        Self {
            retries_at_all: AtomicBool::new(fixed.enabled && config.attempts > 1),
            config: Mutex::new(config),
            purses,
            fixed,
            circuits,
            hook,
            counts: RetryCounts {
                often: PerThread::default(),
                retries: std::array::from_fn(|_| AtomicU64::new(0)),
                recovered: AtomicU64::new(0),
                exhausted: AtomicU64::new(0),
                budget_denied: AtomicU64::new(0),
                not_retryable: AtomicU64::new(0),
                not_replayable: AtomicU64::new(0),
                not_sent: AtomicU64::new(0),
            },
            backoffs: fixed
                .name
                .map(|_| Durations::new(RETRY_BACKOFF, &[["", ""]])),
        }
    }

    #[inline]
    pub(super) fn fixed(&self) -> Fixed {
        self.fixed
    }

    /// Returns whether a circuit beneath is certain to reject an attempt at that moment.
    pub(super) fn is_open_at(&self, key: Option<&dyn Any>, moment: Instant) -> bool {
        let circuits = self.circuits.as_ref();
        circuits.is_some_and(|circuits| circuits.is_open_at(key, moment))
    }

    pub(super) fn config(&self) -> RetryConfig {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the config, and returns the one before.
    pub(super) fn set_config(&self, config: RetryConfig) -> RetryConfig {
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let enabled = self.fixed.enabled && config.attempts > 1;
        self.retries_at_all.store(enabled, Ordering::Relaxed);
        std::mem::replace(&mut current, config)
    }

    /// Begins a call, or returns why its request is not worth keeping. `can_be_free` is true if a
    /// retry may turn out to need no token.
    #[inline]
    pub(super) fn begin(&self, own: Option<&KeyBudget>, can_be_free: bool) -> Result<(), RetryEnd> {
        if !self.retries_at_all.load(Ordering::Relaxed) {
            return Err(RetryEnd::Exhausted);
        }
        if self.purses.pays(own) || can_be_free {
            Ok(())
        } else {
            Err(RetryEnd::BudgetDenied)
        }
    }

    /// Enters the poll of a call.
    #[inline]
    pub(super) fn enter(&self, own: Option<&KeyBudget>, has_begun: &mut bool) -> Counting {
        self.purses.enter(own, has_begun)
    }

    /// Counts a call that succeeded at once. `counted` is true if a layer beneath has paid the
    /// budget.
    #[inline]
    pub(super) fn first_try(&self, own: Option<&KeyBudget>, counted: bool) {
        self.counts.often.add(1, |counts| &counts.first_try);
        if !counted {
            self.succeeded(own);
        }
        trace::outcome("success");
    }

    #[inline]
    pub(super) fn succeeded(&self, own: Option<&KeyBudget>) {
        self.purses.succeeded(own);
    }

    /// Counts a failed attempt for which the budget was not asked for a retry.
    pub(super) fn failed(&self, own: Option<&KeyBudget>) {
        self.purses.failed(own);
    }

    /// Takes a token for a retry, if there is one. `counted` is true if a layer beneath has counted
    /// the failure.
    pub(super) fn withdraw(&self, own: Option<&KeyBudget>, counted: bool) -> Option<Token> {
        self.purses.expire(own, || self.counts.successes());
        self.purses.withdraw(own, counted)
    }

    /// Makes the answer of a call whose last response was dropped, and whose retry would come too
    /// late. Not a local rejection: an attempt has reached the upstream.
    pub(super) fn too_late(&self) -> Box<Rejected> {
        let mut rejected = Box::new(Rejected::new(RejectedKind::TimedOut, "retry"));
        rejected.name = self.fixed.name;
        rejected
    }

    /// Counts a retry that is sent.
    pub(super) fn count_retry(&self, cause: Cause) {
        self.counts.retries[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Records the wait before a retry.
    pub(super) fn backs_off(&self, delay: Duration) {
        if let Some(durations) = &self.backoffs {
            durations.record(0, nanos(delay));
        }
    }

    /// Reports a planned retry to the trace and to the hook, before its wait.
    pub(super) fn retries<'a>(
        &self,
        (attempt, wait, outcome): (u32, Duration, Outcome),
        status: Option<u16>,
        error: Option<&'a (dyn Error + 'static)>,
        request: Option<&'a dyn Any>,
        words: &'a dyn Fn() -> String,
    ) {
        let name = self.fixed.name;
        trace::retry(name, (attempt, wait), outcome, words);
        self.hook.tell(&RetryEvent {
            name,
            attempt,
            wait,
            outcome,
            status,
            error,
            request,
            words,
        });
    }

    pub(super) fn count(&self, end: RetryEnd) {
        let counts = &self.counts;
        let add = |count: &AtomicU64| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        match end {
            RetryEnd::FirstTry => counts.often.add(1, |counts| &counts.first_try),
            RetryEnd::Recovered => add(&counts.recovered),
            RetryEnd::Exhausted => add(&counts.exhausted),
            RetryEnd::BudgetDenied => add(&counts.budget_denied),
            RetryEnd::NotRetryable => add(&counts.not_retryable),
            RetryEnd::NotReplayable => add(&counts.not_replayable),
            RetryEnd::Rejected => counts.often.add(1, |counts| &counts.rejected),
            RetryEnd::NotSent => add(&counts.not_sent),
        }
        match end {
            RetryEnd::FirstTry | RetryEnd::Recovered => trace::outcome("success"),
            // The layer that has rejected the call reports it.
            RetryEnd::Rejected => {}
            _ => trace::outcome("failure"),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let counts = &self.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Snapshot {
            retries: counts.retries(),
            first_try: counts.sum(|counts| &counts.first_try),
            recovered: of(&counts.recovered),
            exhausted: of(&counts.exhausted),
            budget_denied: of(&counts.budget_denied),
            not_retryable: of(&counts.not_retryable),
            not_replayable: of(&counts.not_replayable),
            rejected: counts.sum(|counts| &counts.rejected),
            not_sent: of(&counts.not_sent),
            budget: self.purses.available(),
        }
    }
}

impl Cause {
    const ALL: [Self; 4] = [Self::Failure, Self::Overload, Self::NotSent, Self::Rejected];

    fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Overload => "overload",
            Self::NotSent => "not_sent",
            Self::Rejected => "rejected",
        }
    }
}

impl RetryCounts {
    fn causes(&self) -> Vec<(&'static str, u64)> {
        let causes = Cause::ALL.into_iter().zip(&self.retries);
        causes
            .map(|(cause, count)| (cause.as_str(), count.load(Ordering::Relaxed)))
            .collect()
    }

    fn retries(&self) -> u64 {
        self.causes().into_iter().map(|(_, count)| count).sum()
    }

    /// Sums a count over all threads.
    fn sum(&self, count: impl Fn(&Often) -> &AtomicU64) -> u64 {
        let counts = self.often.iter().map(count);
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn successes(&self) -> u64 {
        self.sum(|counts| &counts.first_try) + self.recovered.load(Ordering::Relaxed)
    }
}

impl Observed for State {
    fn layer(&self) -> &'static str {
        "retry"
    }

    fn name(&self) -> Option<&'static str> {
        self.fixed.name
    }

    fn observe(&self) -> Instance {
        let (now, config) = (self.snapshot(), self.config());
        let calls = vec![
            ("first_try", now.first_try),
            ("recovered", now.recovered),
            ("exhausted", now.exhausted),
            ("budget_denied", now.budget_denied),
            ("not_retryable", now.not_retryable),
            ("not_replayable", now.not_replayable),
            ("not_sent", now.not_sent),
            ("rejected", now.rejected),
        ];
        let success = now.first_try + now.recovered;
        let admitted = calls.iter().map(|(_, count)| count).sum();
        let mut totals = Totals::default();
        (totals.admitted, totals.success) = (admitted, success);
        (totals.ignored, totals.failure) = (now.rejected, admitted - success - now.rejected);
        let mut settings = vec![
            ("attempts", f64::from(config.attempts)),
            ("backoff_base", config.backoff.base().as_secs_f64()),
            ("backoff_max", config.backoff.max().as_secs_f64()),
            ("max_retry_after", config.max_retry_after.as_secs_f64()),
        ];
        settings.extend(self.purses.settings());
        let state = observe::State::Retry {
            calls,
            attempts: self.counts.causes(),
            budget: now.budget.map(u64::from),
        };
        let backoffs = self.backoffs.as_ref().map(Durations::read);
        Instance {
            totals,
            histograms: backoffs.unwrap_or_default(),
            ..Instance::of((self.layer(), self.fixed.name), settings, state)
        }
    }
}
