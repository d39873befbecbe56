//! Records results, which are counted or judge a probe.

use std::time::Duration;

use crate::{
    algorithm::{
        breaker::{
            Breaker, BreakerState, Cause, Counter, Pass, Transition,
            control::Control,
            pass::{Slowness, units},
        },
        window::{Class, Counted, Stamp},
    },
    call::Outcome,
    sync::Ordering,
};

/// A result that says something about the upstream.
#[derive(Debug, Clone, Copy)]
struct Finding {
    class: Class,
    /// If true, the call came to its end. A dropped call does not break a run of failures.
    ended: bool,
    /// The moment before which the upstream does not want to be called again, or 0 if it did not
    /// say.
    not_before: u64,
}

impl Finding {
    fn quick_success() -> Self {
        Self {
            class: Class::Success,
            ended: true,
            not_before: 0,
        }
    }
}

impl Breaker {
    /// Records the result of an admission, and returns the transition if it made one.
    /// [`Outcome::Ignore`] gives a probe back.
    ///
    /// `retry_after` is the upstream's own hint on when to come back. `stripe` is any number that
    /// threads rarely share.
    #[inline(always)]
    pub fn record(
        &self,
        pass: Pass,
        outcome: Outcome,
        retry_after: Option<Duration>,
        stripe: usize,
        now: u64,
    ) -> Option<Transition> {
        let control = self.load();
        if outcome == Outcome::Success && pass.is_quick_of(control) {
            return self.succeed(control, stripe, now);
        }
        self.record_otherwise(pass, outcome, retry_after, stripe, now)
    }

    /// Records a quick success of the current generation. Only what nearly all calls need is
    /// inlined: a circuit that counts, a tick that has begun, and no failure to which it could
    /// matter.
    #[inline(always)]
    fn succeed(&self, control: Control, stripe: usize, now: u64) -> Option<Transition> {
        if let (true, Counter::Time(window)) = (control.counts_calls(), &self.counter) {
            let stamp = window.stamp(control.generation(), now);
            if window.count_success_again(stamp, stripe) {
                // Read after the count: see `cause_in_time`.
                let watch = self.watch.load(Ordering::SeqCst);
                if watch == 0 && !self.streak.is_running(control.generation()) {
                    return None;
                }
                return self.judge_success(control, stamp, now);
            }
        }
        self.settle_success(control, stripe, now)
    }

    #[inline(never)]
    fn judge_success(&self, control: Control, stamp: Stamp, now: u64) -> Option<Transition> {
        let finding = Finding::quick_success();
        self.judge_count(control, finding, Counted::Again, stamp, now)
    }

    #[inline(never)]
    fn settle_success(&self, control: Control, stripe: usize, now: u64) -> Option<Transition> {
        self.settle(control, Finding::quick_success(), stripe, now)
    }

    #[inline(never)]
    fn record_otherwise(
        &self,
        pass: Pass,
        outcome: Outcome,
        retry_after: Option<Duration>,
        stripe: usize,
        now: u64,
    ) -> Option<Transition> {
        let slow = self.leave(&pass, now);
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::Failure | Outcome::Overload => true,
            Outcome::Ignore => return self.give_back(&pass, now),
        };
        let control = self.load();
        if !pass.is_of(control) {
            return self.count_late(&pass);
        }
        if !failed && !slow {
            return self.succeed(control, stripe, now);
        }
        let not_before = match retry_after {
            Some(wait) if failed => {
                now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
            }
            _ => 0,
        };
        let finding = Finding {
            class: Class::new(failed, slow),
            ended: true,
            not_before,
        };
        self.settle(control, finding, stripe, now)
    }

    /// Returns whether [`Outcome::Ignore`] has nothing to record for an admission, so that no time
    /// is needed. It is no probe, and its start is not counted.
    #[cfg(any(feature = "layers", all(test, not(keep_loom))))]
    #[inline]
    pub(crate) fn ignores(&self, pass: &Pass) -> bool {
        self.load().state() != BreakerState::HalfOpen && pass.is_untimed()
    }

    /// Takes back an admission that was dropped without a result. The call has failed if dropped
    /// calls are failures, and is slow if it already was. Otherwise it counts for nothing if it or
    /// others were answered, and gives a probe back. If none was answered, see
    /// [`open_on_no_answer`](crate::algorithm::BreakerConfig::open_on_no_answer).
    pub fn abandon(&self, pass: Pass, stripe: usize, now: u64) -> Option<Transition> {
        let slow = self.leave(&pass, now);
        let class = match (self.settings.load().cancelled_as_failure, slow) {
            (true, _) => Class::new(true, slow),
            (false, true) => Class::SlowAbandoned,
            (false, false) if pass.has_answer() => Class::Answered,
            (false, false) => Class::Abandoned,
        };
        let control = self.load();
        if !pass.is_of(control) {
            // A call that counts for nothing is not late either.
            return class.is_judged().then(|| self.count_late(&pass)).flatten();
        }
        let finding = Finding {
            class,
            ended: false,
            not_before: 0,
        };
        self.settle(control, finding, stripe, now)
    }

    /// Takes back an admission that its caller's own deadline has ended. Below the threshold of
    /// slow calls it says nothing, and gives a probe back. Otherwise the call was abandoned and
    /// slow. If slow calls are not watched, `late` decides. It means that good answers would have
    /// arrived by then, so the call is a failure.
    pub fn cut_short(&self, pass: Pass, late: bool, stripe: usize, now: u64) -> Option<Transition> {
        if !self.settings.watches_slow() {
            let outcome = match late {
                true => Outcome::Failure,
                false => Outcome::Ignore,
            };
            return self.record(pass, outcome, None, stripe, now);
        }
        if self.is_slow(&pass, now) {
            self.abandon(pass, stripe, now)
        } else {
            self.record(pass, Outcome::Ignore, None, stripe, now)
        }
    }

    /// Records that the head of a response has arrived, whose end is still to follow. This decides
    /// whether the call was slow, so that a slow reader of the body does not make a slow upstream.
    /// The call is no longer among those that may hang.
    ///
    /// Without it, slowness is judged at the end. A second call does nothing.
    pub fn head(&self, pass: &mut Pass, now: u64) {
        if !pass.is_nothing() && !pass.has_answer() {
            pass.judge(self.leave(pass, now));
        }
    }

    /// Removes a call from those in flight, and returns whether it was slow.
    fn leave(&self, pass: &Pass, now: u64) -> bool {
        match pass.slowness(now) {
            Slowness::Judged { slow } => slow,
            Slowness::Running { started, age, row } => {
                let control = self.load();
                if let (Some(ages), Some(row)) = (self.ages.get(), row) {
                    // A transition has emptied the ages of its calls.
                    if pass.is_of(control) {
                        ages.leave(control.generation(), row, started);
                    }
                }
                self.is_slow_at(age)
            }
        }
    }

    /// Returns whether a call that ends now is slow.
    fn is_slow(&self, pass: &Pass, now: u64) -> bool {
        match pass.slowness(now) {
            Slowness::Judged { slow } => slow,
            Slowness::Running { age, .. } => self.is_slow_at(age),
        }
    }

    /// Returns whether a call of this age is slow. An update that stops watching slow calls keeps
    /// their time.
    fn is_slow_at(&self, age: u64) -> bool {
        age >= units(self.slow_after.load(Ordering::Relaxed)) && self.settings.watches_slow()
    }

    fn give_back(&self, pass: &Pass, now: u64) -> Option<Transition> {
        let control = self.load();
        let probe = pass.is_of(control) && control.state() == BreakerState::HalfOpen;
        probe.then(|| self.judge(control, None, now)).flatten()
    }

    /// Counts or judges a finding about the upstream, from a call of the current generation.
    #[inline(never)]
    fn settle(
        &self,
        control: Control,
        finding: Finding,
        stripe: usize,
        now: u64,
    ) -> Option<Transition> {
        if matches!(self.counter, Counter::Calls(_)) && finding.class != Class::Success {
            self.harmed.fetch_max(now, Ordering::Relaxed);
        }
        match control.state() {
            BreakerState::HalfOpen => {
                self.take_hint(control, finding, now);
                let judged = finding.class.is_judged();
                self.judge(control, judged.then_some(finding.class), now)
            }
            BreakerState::Closed | BreakerState::MetricsOnly => {
                self.count(control, finding, stripe, now)
            }
            _ => None,
        }
    }

    fn count_class(&self, control: Control, class: Class, stamp: Stamp, stripe: usize) -> Counted {
        let generation = control.generation();
        let is_current = || self.generation() == generation;
        match &self.counter {
            Counter::Time(window) => window.count(class, stamp, stripe, is_current),
            Counter::Calls(window) => {
                let counted = if class.is_judged() {
                    window.count(class, generation, is_current)
                } else {
                    Counted::Again
                };
                match class {
                    Class::Answered => window.end_abandoned(generation),
                    _ if class.is_abandoned() => {
                        window.abandon(class.is_judged(), generation, is_current);
                    }
                    _ => {}
                }
                counted
            }
        }
    }

    fn take_hint(&self, control: Control, finding: Finding, now: u64) {
        if finding.not_before > now {
            self.hints.add(self.place(control, now), finding.not_before);
        }
    }

    /// Counts a result, and opens a closed circuit if that gives cause.
    fn count(
        &self,
        control: Control,
        finding: Finding,
        stripe: usize,
        now: u64,
    ) -> Option<Transition> {
        let stamp = self.stamp(control.generation(), now);
        let counted = self.count_class(control, finding.class, stamp, stripe);
        if counted == Counted::Late {
            self.late.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.take_hint(control, finding, now);
        self.judge_count(control, finding, counted, stamp, now)
    }

    /// Judges after a result was counted: ends or lengthens a run, and opens if there is cause.
    #[cold]
    fn judge_count(
        &self,
        control: Control,
        finding: Finding,
        counted: Counted,
        stamp: Stamp,
        now: u64,
    ) -> Option<Transition> {
        let (class, generation) = (finding.class, control.generation());
        let run = match finding {
            _ if class.is_failure() => self
                .streak
                .fail(generation, || self.generation() == generation),
            Finding { ended: false, .. } => 0,
            _ => {
                self.streak.end(generation);
                0
            }
        };
        if control.state() != BreakerState::Closed
            || (class == Class::Success && !self.may_trip_on_success(counted, stamp))
        {
            return None;
        }
        let settings = self.settings.load();
        let by_run = settings.consecutive > 0 && run >= settings.consecutive;
        let by_silence =
            || class.is_abandoned() && self.has_no_answer(stamp, generation, &settings);
        let cause = class
            .is_judged()
            .then(|| self.cause(stamp, generation, &settings, 0))
            .flatten();
        let cause = cause
            .or(by_run.then_some(Cause::ConsecutiveFailures))
            .or_else(|| by_silence().then_some(Cause::NoAnswer))?;
        self.trip(control, cause, &settings, now)
    }

    /// Takes a probe back. With `None`, its slot goes to another.
    fn judge(&self, admitted: Control, class: Option<Class>, now: u64) -> Option<Transition> {
        let settings = self.settings.load();
        let mut control = admitted;
        loop {
            let probes = control.probes().take_back(class);
            let verdict = settings.verdict_on(probes);
            let next = match verdict {
                None => control.with(probes),
                Some(cause) => self.after_verdict(control, cause, &settings, now),
            };
            match self.swap(control, next) {
                Ok(()) => {
                    return verdict.map(|cause| control.transition(next, cause, probes.counts()));
                }
                Err(current) if current.generation() != admitted.generation() => {
                    if class.is_some() {
                        self.late.fetch_add(1, Ordering::Relaxed);
                    }
                    return None;
                }
                // Another probe was admitted or came back.
                Err(current) => control = current,
            }
        }
    }

    /// Counts a result of an older generation, unless nothing was admitted. Returns `None`.
    fn count_late(&self, pass: &Pass) -> Option<Transition> {
        if !pass.is_nothing() {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    pub(super) fn stamp(&self, generation: u32, now: u64) -> Stamp {
        match &self.counter {
            Counter::Time(window) => window.stamp(generation, now),
            // A window of calls does not need the time.
            Counter::Calls(_) => Stamp::default(),
        }
    }
}
