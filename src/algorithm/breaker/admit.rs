//! Admissions and rejections.

use std::time::Duration;

use crate::{
    algorithm::breaker::{
        Breaker, BreakerState, Cause, CircuitOpen, Counter, GOLDEN, Pass, Transition,
        ages::Entered,
        control::{Control, Probes},
        pass::whole_units,
    },
    sync::Ordering,
};

impl Breaker {
    /// Admits without the time, if possible: while disabled, and while closed or metrics-only
    /// unless slow calls are watched or a ramp may be in progress. Otherwise use
    /// [`admit`](Self::admit).
    #[must_use]
    #[inline]
    pub fn admit_if_closed(&self) -> Option<Pass> {
        let control = self.load();
        let admitted = match control.state() {
            BreakerState::Disabled => true,
            BreakerState::Closed if control.is_new() && self.settings.load().ramp > 0 => false,
            BreakerState::Closed | BreakerState::MetricsOnly => self.ages.get().is_none(),
            _ => false,
        };
        admitted.then(|| Pass::untimed(control))
    }

    /// Rejects without more, if the circuit is open or was forced open. Otherwise use
    /// [`admit`](Self::admit).
    #[cfg(any(feature = "layers", all(test, not(keep_loom))))]
    #[inline]
    pub(crate) fn rejection(&self, now: u64) -> Option<CircuitOpen> {
        let control = self.load();
        match control.state() {
            BreakerState::ForcedOpen => Some(CircuitOpen { wait: None }),
            BreakerState::Open if now < control.deadline(now) => Some(control.rejected(now)),
            _ => None,
        }
    }

    /// Admits a call, or rejects it with the time until calls may be admitted again. Also returns
    /// the transition, if this call made one.
    ///
    /// `stripe` is any number that threads rarely share.
    pub fn admit(
        &self,
        stripe: usize,
        now: u64,
    ) -> (Result<Pass, CircuitOpen>, Option<Transition>) {
        let mut control = self.load();
        loop {
            let (next, cause) = match self.step(control, now) {
                Step::Admit => return self.enter(control, stripe, now),
                Step::Reject(refused) => return (Err(refused), None),
                Step::To(next, cause) => (next, cause),
            };
            if next.state() == BreakerState::HalfOpen {
                // Relaxed: published by the Release below, before any thread can see this probe.
                self.probed.fetch_max(now, Ordering::Relaxed);
            }
            match self.swap(control, next) {
                Ok(()) => {
                    let decision = if next.state() == BreakerState::Open {
                        Err(next.rejected(now))
                    } else {
                        Ok(Pass::started(next, now))
                    };
                    return (
                        decision,
                        cause.map(|cause| control.transition(next, cause, control.counts())),
                    );
                }
                // Another probe was admitted or came back, or another thread made the transition:
                // decide again.
                Err(current) => control = current,
            }
        }
    }

    /// Returns whether [`admit`](Self::admit) would reject now. Changes nothing. A ramp may still
    /// reject.
    #[must_use]
    pub fn refuses(&self, now: u64) -> bool {
        match self.step(self.load(), now) {
            Step::Admit => false,
            Step::Reject(_) => true,
            Step::To(next, _) => next.state() == BreakerState::Open,
        }
    }

    /// Opens a half-open circuit whose probes are overdue. [`admit`](Self::admit) does so itself.
    /// Use this if callers wait until they may call, because then none of them calls `admit`.
    pub fn expire(&self, now: u64) -> Option<Transition> {
        let mut control = self.load();
        loop {
            match self.step(control, now) {
                Step::To(next, Some(cause)) if next.state() == BreakerState::Open => {
                    match self.swap(control, next) {
                        Ok(()) => return Some(control.transition(next, cause, control.counts())),
                        // A probe came back, or another thread opened it: check again.
                        Err(current) => control = current,
                    }
                }
                _ => return None,
            }
        }
    }

    /// Returns the step that an admission takes from a state.
    fn step(&self, control: Control, now: u64) -> Step {
        match control.state() {
            BreakerState::Closed | BreakerState::Disabled | BreakerState::MetricsOnly => {
                Step::Admit
            }
            BreakerState::ForcedOpen => Step::Reject(CircuitOpen { wait: None }),
            BreakerState::Open if now < control.deadline(now) => {
                Step::Reject(control.rejected(now))
            }
            BreakerState::Open => Step::To(control.half_open(), Some(Cause::OpenElapsed)),
            BreakerState::HalfOpen => self.step_half_open(control, now),
        }
    }

    fn step_half_open(&self, control: Control, now: u64) -> Step {
        let (probes, settings) = (control.probes(), self.settings.load());
        if let Some(cause) = settings.verdict_on(probes) {
            // An update has lowered the number of probes to those judged already, so no further
            // result will bring the verdict.
            Step::To(
                self.after_verdict(control, cause, &settings, now),
                Some(cause),
            )
        } else if probes.taken() < settings.probes {
            Step::To(control.with(probes.issue()), None)
        } else if self.lease_is_over(probes, settings.lease, now) {
            Step::To(
                self.reopened(control, &settings, now),
                Some(Cause::LeaseExpired),
            )
        } else {
            Step::Reject(CircuitOpen { wait: None })
        }
    }

    /// Admits to a circuit that admits calls, unless its ramp or the age of the calls in flight
    /// prevents it.
    fn enter(
        &self,
        control: Control,
        stripe: usize,
        now: u64,
    ) -> (Result<Pass, CircuitOpen>, Option<Transition>) {
        if let Err(refused) = self.ramp(control, now) {
            return (Err(refused), None);
        }
        let generation = control.generation();
        let Some(ages) = self.ages.get() else {
            return (Ok(Pass::started(control, now)), None);
        };
        let row = ages.row_of(stripe);
        let is_current = || self.generation() == generation;
        match ages.enter(generation, row, is_current, whole_units(now)) {
            Entered::Uncounted => return (Ok(Pass::started(control, now)), None),
            Entered::Again => {}
            // Perhaps no call has ended for long, so that no result triggers this check: count hung
            // calls.
            Entered::First => {
                if let Some(tripped) = self.trip_on_hung(control, now) {
                    // Its entry was in the generation that has ended, like all the ages.
                    return (
                        Err(CircuitOpen {
                            wait: self.until_half_open(now),
                        }),
                        Some(tripped),
                    );
                }
            }
        }
        (Ok(Pass::counted(control, row, now)), None)
    }

    /// Rejects a share of the calls while the circuit has not been closed for long.
    ///
    /// The multiples of the golden ratio decide which calls. Any stretch of calls then holds the
    /// share to within one or two, where random draws would scatter.
    fn ramp(&self, control: Control, now: u64) -> Result<(), CircuitOpen> {
        let Some(closed_at) = (control.state() == BreakerState::Closed)
            .then(|| control.closed_at(now))
            .flatten()
        else {
            return Ok(());
        };
        let (ramp, age) = (self.settings.load().ramp, now.saturating_sub(closed_at));
        if age >= ramp {
            self.settle_in(control, now);
            return Ok(());
        }
        let share = (u128::from(age) << 64) / u128::from(ramp);
        let place = self
            .ramped
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(GOLDEN);
        if u128::from(place) < share.max(LEAST_SHARE) {
            return Ok(());
        }
        Err(CircuitOpen {
            wait: Some(Duration::from_nanos(ramp - age)),
        })
    }

    /// Forgets the moment of closing once the ramp is over, so that admissions need no time again.
    /// A window of time still needs that moment until closed has held for a window, which also ends
    /// the streak. A loser of the race finds that done, or finds a transition that replaces the
    /// word.
    fn settle_in(&self, control: Control, now: u64) {
        let held = self.has_held(control, now);
        if held || matches!(self.counter, Counter::Calls(_)) {
            let _ = self.swap(control, control.settled_in(held));
        }
    }

    fn lease_is_over(&self, probes: Probes, lease: u64, now: u64) -> bool {
        // Relaxed: `control` was loaded with Acquire, and showed the probes whose times these are.
        let newest = self.probed.load(Ordering::Relaxed);
        probes.out > 0 && now.saturating_sub(newest) >= lease
    }
}

/// The step that an admission takes from a state.
enum Step {
    /// The state admits calls.
    Admit,
    Reject(CircuitOpen),
    /// The next word, with a cause if that is a transition. If it is open, this caller is rejected,
    /// else admitted.
    To(Control, Option<Cause>),
}

/// A tenth, as a share of 2^64: a ramp from zero would not show whether the upstream holds.
const LEAST_SHARE: u128 = (1 << 64) / 10;
