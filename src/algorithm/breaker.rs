//! Circuit breaker: stops calling a peer that fails, and finds out when it is back.
//!
//! Closed, it counts; when enough calls of the last window failed, it opens and refuses all; after a while it lets a
//! few probes through (half-open), whose results close it or open it again. The pattern is Nygard's (*Release It!*,
//! 2007).
//!
//! The whole state is one word that carries a *generation*, raised by one in every transition. An admission hands out
//! the generation ([`Pass`]), and a result is counted only if the generation is still the same. So a call that was
//! admitted while closed, and that ends when the circuit is half-open, neither closes nor opens it; and a new
//! generation starts with an empty window, because counts carry their generation too.
//!
//! Why not a lock around a state and its window? The admission of every call would then write what all threads share.
//! Here it is one load of a word that changes only with transitions and probes. And why not an atomic state beside
//! atomic counters? A result could be counted into a state that it does not belong to; and of two threads that see the
//! same rate both would trip.
//!
//! **Guarantee.** Each transition is one compare-and-swap and is returned to the one caller that made it. In half-open,
//! probes out and probes judged never exceed `probes`. **Cost.** Closed: admission one load; success one
//! compare-and-swap on a word of the thread's own stripe, and one load; failure one compare-and-swap on a shared word
//! and ten loads, and ten loads more a stripe when the failures could trip. Open: one load.

use std::time::Duration;

use crate::{
    algorithm::{
        Counts,
        padded::Padded,
        window::{Counted, Stamp, TimeWindow},
    },
    config::ConfigError,
    outcome::Outcome,
    sync::{AtomicU64, Ordering},
};

use config::Settings;
pub use config::{BreakerConfig, Verdict};
use control::{Control, Probes};

mod config;
mod control;
#[cfg(all(test, keep_loom))]
mod loom_model;
#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A state of a [`Breaker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// Lets all calls through and counts them.
    Closed,
    /// Refuses all calls until its time is over.
    Open,
    /// Lets a few probes through.
    HalfOpen,
    /// Refuses all calls until told otherwise.
    ForcedOpen,
    /// Lets all calls through and counts nothing.
    Disabled,
}

/// An admission, and the generation it belongs to. It must come back once, to [`Breaker::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a probe that is never recorded is out until its lease ends"]
pub struct Pass {
    generation: u32,
}

/// A refusal, and how long until probes are let through, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// `None` while forced open, and while the probes are out.
    pub wait: Option<Duration>,
}

/// A change of state. Whoever receives it made it, and nobody else receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The state that was left.
    pub from: BreakerState,
    /// The state that began.
    pub to: BreakerState,
    /// The new state's generation: one more than the old one's, modulo 2^21.
    pub generation: u32,
    /// What brought it about.
    pub cause: Cause,
}

/// Why a [`Transition`] came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Too large a share of the window's calls failed.
    FailureRate,
    /// The time of the open state was over.
    OpenElapsed,
    /// The probes showed a peer that still fails.
    ProbesFailed,
    /// The probes showed a peer that works.
    ProbesSucceeded,
    /// The probes did not come back in time.
    LeaseExpired,
    /// Somebody asked for it.
    ByHand,
}

/// The state machine of one circuit. 640 bytes and 128 more for each stripe.
#[derive(Debug)]
pub struct Breaker {
    /// Written on transitions and for probes only; what it holds is told at [`Control`].
    control: Padded<AtomicU64>,
    /// When the newest probe was let out, in nanoseconds. Written before the probe appears in `control`, whose
    /// Release publishes it. Only ever raised, so a loser of that race can lengthen a lease, never shorten one.
    probed: AtomicU64,
    /// [`Stamp::as_flag`] of a tick in which a success may trip, because the failures would do but the calls are too
    /// few; else anything else.
    watch: AtomicU64,
    /// Results of older generations, all told. Relaxed: a statistic.
    late: AtomicU64,
    window: TimeWindow,
    settings: Settings,
}

impl Breaker {
    /// A closed circuit, whose successes are counted on `stripes` rings: as many as there are cores, or 1.
    ///
    /// # Errors
    /// A setting outside the range that [`BreakerConfig`] gives for it.
    pub fn new(config: BreakerConfig, stripes: usize) -> Result<Self, ConfigError> {
        let settings = Settings::new(config)?;
        Ok(Self {
            control: Padded(AtomicU64::new(Control::closed().word())),
            probed: AtomicU64::new(0),
            watch: AtomicU64::new(0),
            late: AtomicU64::new(0),
            window: TimeWindow::new(settings.window, stripes),
            settings,
        })
    }

    /// Admits without needing the time: while closed or disabled. Otherwise ask [`admit`](Self::admit).
    #[must_use]
    pub fn admit_if_closed(&self) -> Option<Pass> {
        let control = self.load();
        matches!(control.state(), BreakerState::Closed | BreakerState::Disabled).then(|| control.pass())
    }

    /// Admits, or refuses with the time until it may admit again; and hands out the transition if this call made one.
    pub fn admit(&self, now: u64) -> (Result<Pass, Refused>, Option<Transition>) {
        let mut control = self.load();
        loop {
            let (next, cause) = match self.step(control, now) {
                Step::Stay(decision) => return (decision, None),
                Step::To(next, cause) => (next, cause),
            };
            if next.state() == BreakerState::HalfOpen {
                // Relaxed: published by the Release below, before anybody can see this probe.
                self.probed.fetch_max(now, Ordering::Relaxed);
            }
            match self.swap(control, next) {
                Ok(()) => {
                    let decision = if next.state() == BreakerState::Open { Err(next.refused(now)) } else { Ok(next.pass()) };
                    return (decision, cause.map(|cause| control.transition(next, cause)));
                }
                // Another probe left or came back, or another thread made the transition: look again.
                Err(current) => control = current,
            }
        }
    }

    /// Whether [`admit`](Self::admit) would refuse; changes nothing.
    #[must_use]
    pub fn refuses(&self, now: u64) -> bool {
        match self.step(self.load(), now) {
            Step::Stay(decision) => decision.is_err(),
            Step::To(next, _) => next.state() == BreakerState::Open,
        }
    }

    /// Takes an admission's result; returns the transition if it made one. [`Outcome::Ignore`] gives a probe back.
    ///
    /// `stripe` is any number that threads rarely share.
    pub fn record(&self, pass: Pass, outcome: Outcome, stripe: usize, now: u64) -> Option<Transition> {
        let control = self.load();
        if control.generation() != pass.generation {
            self.late.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        match (control.state(), outcome) {
            (BreakerState::HalfOpen, _) => self.judge(control, outcome, now),
            (BreakerState::Closed, Outcome::Success) => self.succeed(control, stripe, now),
            (BreakerState::Closed, Outcome::Failure | Outcome::Overload) => self.fail(control, now),
            _ => None,
        }
    }

    /// Takes back an admission that ended without a result: dropped, or turned away further in. A probe's slot is free
    /// again.
    pub fn abandon(&self, pass: Pass) {
        let control = self.load();
        if control.generation() == pass.generation && control.state() == BreakerState::HalfOpen {
            // A neutral outcome makes no transition, so the time does not matter.
            self.judge(control, Outcome::Ignore, 0);
        }
    }

    /// The state that the next call would meet, but for the end of an open time, which only a call brings about.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.load().state()
    }

    /// How many transitions there have been, modulo 2^21.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.load().generation()
    }

    /// How long until probes are let through; `None` unless open.
    #[must_use]
    pub fn until_half_open(&self, now: u64) -> Option<Duration> {
        let control = self.load();
        let open = control.state() == BreakerState::Open;
        open.then(|| Duration::from_nanos(control.deadline().saturating_sub(now)))
    }

    /// What the window holds.
    #[must_use]
    pub fn counts(&self, now: u64) -> Counts {
        self.window.counts(self.window.stamp(self.generation(), now))
    }

    /// How many results came too late to count, because the state had changed since their admission.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Refuses everything from now on. `None` if it did already.
    pub fn force_open(&self) -> Option<Transition> {
        self.change(|control| (control.state() != BreakerState::ForcedOpen).then(|| control.settle(BreakerState::ForcedOpen)))
    }

    /// Lets everything through from now on, uncounted. `None` if it did already.
    pub fn disable(&self) -> Option<Transition> {
        self.change(|control| (control.state() != BreakerState::Disabled).then(|| control.settle(BreakerState::Disabled)))
    }

    /// Closes with an empty window, from any state; a closed circuit is emptied.
    pub fn close(&self) -> Option<Transition> {
        self.change(|control| Some(control.settle(BreakerState::Closed)))
    }

    /// What an admission does to a state.
    fn step(&self, control: Control, now: u64) -> Step {
        match control.state() {
            BreakerState::Closed | BreakerState::Disabled => Step::Stay(Ok(control.pass())),
            BreakerState::ForcedOpen => Step::Stay(Err(Refused { wait: None })),
            BreakerState::Open if now < control.deadline() => Step::Stay(Err(control.refused(now))),
            BreakerState::Open => Step::To(control.half_open(), Some(Cause::OpenElapsed)),
            BreakerState::HalfOpen => {
                let probes = control.probes();
                if probes.taken() < self.settings.probes {
                    Step::To(control.with(probes.issue()), None)
                } else if self.lease_is_over(probes, now) {
                    Step::To(control.open(now.saturating_add(self.settings.open_for)), Some(Cause::LeaseExpired))
                } else {
                    Step::Stay(Err(Refused { wait: None }))
                }
            }
        }
    }

    fn succeed(&self, control: Control, stripe: usize, now: u64) -> Option<Transition> {
        let stamp = self.window.stamp(control.generation(), now);
        match self.window.succeed(stamp, stripe) {
            Counted::Late => self.count_late(),
            Counted::Again if self.watch.load(Ordering::SeqCst) != stamp.as_flag() => None,
            // The window has slid, so successes may have left it; or this one may bring the calls up to the minimum.
            Counted::First | Counted::Again => self.evaluate(control, stamp, now),
        }
    }

    fn fail(&self, control: Control, now: u64) -> Option<Transition> {
        let stamp = self.window.stamp(control.generation(), now);
        match self.window.fail(stamp) {
            Counted::Late => self.count_late(),
            Counted::First | Counted::Again => self.evaluate(control, stamp, now),
        }
    }

    fn count_late(&self) -> Option<Transition> {
        self.late.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Opens if the window says so.
    ///
    /// Why the counts and the watch are `SeqCst`: a failure counts itself, then reads the successes; the success that
    /// makes up the minimum counts itself, then reads the watch. With anything weaker both reads may miss both writes
    /// (the store-buffer interleaving), and the circuit would stay closed until the next call. On x86-64 it costs
    /// nothing: the counts are read-modify-writes and the reads plain loads either way.
    fn evaluate(&self, control: Control, stamp: Stamp, now: u64) -> Option<Transition> {
        let failures = self.window.failures(stamp);
        if failures < self.settings.least_failures {
            return None;
        }
        let mut total = failures + self.window.successes(stamp);
        if total < self.settings.min_calls {
            self.watch.store(stamp.as_flag(), Ordering::SeqCst);
            // Again, for the successes that did not see the watch.
            total = failures + self.window.successes(stamp);
        } else if self.watch.load(Ordering::SeqCst) == stamp.as_flag() {
            // The calls suffice now, and in this tick only grow: successes need not look any more.
            self.watch.store(0, Ordering::SeqCst);
        }
        let tripped = total >= self.settings.min_calls && self.settings.is_too_many(failures, total);
        let open = tripped.then(|| control.open(now.saturating_add(self.settings.open_for)))?;
        // A loser finds the circuit opened, or settled by hand: either way there is nothing left to do.
        self.swap(control, open).ok().map(|()| control.transition(open, Cause::FailureRate))
    }

    fn judge(&self, admitted: Control, outcome: Outcome, now: u64) -> Option<Transition> {
        let mut control = admitted;
        loop {
            let probes = control.probes().take_back(outcome);
            let (next, cause) = match self.settings.verdict_on(probes) {
                None => (control.with(probes), None),
                Some(true) => (control.settle(BreakerState::Closed), Some(Cause::ProbesSucceeded)),
                Some(false) => (control.open(now.saturating_add(self.settings.open_for)), Some(Cause::ProbesFailed)),
            };
            match self.swap(control, next) {
                Ok(()) => return cause.map(|cause| control.transition(next, cause)),
                Err(current) if current.generation() != admitted.generation() => return self.count_late(),
                // Another probe left or came back.
                Err(current) => control = current,
            }
        }
    }

    fn lease_is_over(&self, probes: Probes, now: u64) -> bool {
        // Relaxed: `control` was loaded with Acquire, and showed the probes whose times these are.
        let newest = self.probed.load(Ordering::Relaxed);
        probes.out > 0 && now.saturating_sub(newest) >= self.settings.lease
    }

    fn change(&self, next: impl Fn(Control) -> Option<Control>) -> Option<Transition> {
        let mut control = self.load();
        loop {
            let settled = next(control)?;
            match self.swap(control, settled) {
                Ok(()) => return Some(control.transition(settled, Cause::ByHand)),
                // The state moved on meanwhile; what was asked for holds for the new one as well.
                Err(current) => control = current,
            }
        }
    }

    /// Acquire: partner of the Release in `swap`, for `probed`.
    fn load(&self) -> Control {
        Control::from_word(self.control.load(Ordering::Acquire))
    }

    /// Release publishes `probed`; Acquire keeps earlier probes' times visible to whoever reads the new word.
    fn swap(&self, from: Control, to: Control) -> Result<(), Control> {
        let swapped = self.control.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Acquire);
        swapped.map(drop).map_err(Control::from_word)
    }
}

/// Where an admission leads from a state.
enum Step {
    /// Nowhere: the state answers as it is.
    Stay(Result<Pass, Refused>),
    /// To another word, with a cause if that is a transition: open refuses, half-open admits this caller.
    To(Control, Option<Cause>),
}
