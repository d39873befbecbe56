//! What results do: they are counted, they trip, they judge a probe.

use std::time::Duration;

use crate::{
    algorithm::{
        breaker::{
            Breaker, BreakerState, Cause, Counter, JUDGE_NEXT, Pass, Transition,
            control::Control,
            pass::{Slowness, units},
            settings::Settings,
        },
        window::{Class, Counted, Stamp, TimeWindow},
    },
    outcome::Outcome,
    sync::{Ordering, after_seq_cst_write},
};

/// A result that says something about the peer.
#[derive(Debug, Clone, Copy)]
struct Finding {
    class: Class,
    /// Whether the call came to its end. One that was dropped does not break a run of failures.
    ended: bool,
    /// Before when the peer does not want to be called again; 0 if it did not say.
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
    /// Takes an admission's result; returns the transition if it made one. [`Outcome::Ignore`]
    /// gives a probe back.
    ///
    /// `retry_after` is the peer's own word on when to come back; `stripe` any number that threads
    /// rarely share.
    #[inline]
    pub fn record(
        &self,
        pass: Pass,
        outcome: Outcome,
        retry_after: Option<Duration>,
        stripe: usize,
        now: u64,
    ) -> Option<Transition> {
        let control = self.load();
        if outcome == Outcome::Success && pass.is_untimed_of(control) {
            return self.succeed(control, stripe, now);
        }
        self.record_otherwise(pass, outcome, retry_after, stripe, now)
    }

    /// A quick success of the current generation. Inlined is only what nearly all calls need: a
    /// circuit that counts, a tick that has begun, and no failure that it could matter to.
    #[inline]
    fn succeed(&self, control: Control, stripe: usize, now: u64) -> Option<Transition> {
        if let (true, Counter::Time { window, .. }) = (control.counts_calls(), &self.counter) {
            let stamp = window.stamp(control.generation(), now);
            if window.count_success_again(stamp, stripe) {
                // Read after the count: see `cause_in_time`.
                let watch = self.watch.load(Ordering::SeqCst);
                if watch == 0 && !self.run.is_running(control.generation()) {
                    return None;
                }
                let finding = Finding::quick_success();
                return self.judge_count(control, finding, Counted::Again, stamp, now);
            }
        }
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

    /// Takes back an admission that ended without a result: dropped. It gives a probe back and
    /// counts for nothing, unless it already was slow, or dropped calls are failures.
    pub fn abandon(&self, pass: Pass, stripe: usize, now: u64) -> Option<Transition> {
        let slow = self.leave(&pass, now);
        let failed = self.settings.load().cancelled_as_failure;
        if !slow && !failed {
            return self.give_back(&pass, now);
        }
        let control = self.load();
        if !pass.is_of(control) {
            return self.count_late(&pass);
        }
        let finding = Finding {
            class: Class::new(failed, slow),
            ended: false,
            not_before: 0,
        };
        self.settle(control, finding, stripe, now)
    }

    /// The head of a response has come, whose end is still to follow: whether the call was slow is
    /// decided now, so that a slow reader of the body does not make a slow peer. The call is no
    /// longer among those that may hang.
    ///
    /// Without it slowness is judged at the end. A second time does nothing.
    pub fn head(&self, pass: &mut Pass, now: u64) {
        if matches!(pass.slowness(now), Slowness::Running { .. }) {
            pass.judge(self.leave(pass, now));
        }
    }

    /// Takes a call out of those in flight; tells whether it was slow.
    fn leave(&self, pass: &Pass, now: u64) -> bool {
        match pass.slowness(now) {
            Slowness::Judged { slow } => slow,
            Slowness::Running { started, age, row } => {
                let control = self.load();
                if let (Some(ages), Some(row)) = (&self.ages, row) {
                    // A transition has emptied the ages of its calls.
                    if pass.is_of(control) {
                        ages.leave(control.generation(), row, started);
                    }
                }
                age >= units(self.foundation.slow_after)
            }
        }
    }

    fn give_back(&self, pass: &Pass, now: u64) -> Option<Transition> {
        let control = self.load();
        let probe = pass.is_of(control) && control.state() == BreakerState::HalfOpen;
        probe.then(|| self.judge(control, None, now)).flatten()
    }

    /// Takes what says something about the peer, of a call of the current generation.
    #[inline(never)]
    fn settle(
        &self,
        control: Control,
        finding: Finding,
        stripe: usize,
        now: u64,
    ) -> Option<Transition> {
        match control.state() {
            BreakerState::HalfOpen => {
                self.take_hint(control, finding, now);
                self.judge(control, Some(finding.class), now)
            }
            BreakerState::Closed | BreakerState::MetricsOnly => {
                self.count(control, finding, stripe, now)
            }
            _ => None,
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
        let (class, generation) = (finding.class, control.generation());
        let is_current = || self.generation() == generation;
        let stamp = self.stamp(generation, now);
        let counted = match &self.counter {
            Counter::Time { window, .. } => window.count(class, stamp, stripe, is_current),
            Counter::Calls(window) => window.count(class, generation, is_current),
        };
        if counted == Counted::Late {
            self.late.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.take_hint(control, finding, now);
        self.judge_count(control, finding, counted, stamp, now)
    }

    /// After a result was counted: ends or lengthens a run, and opens if there is cause.
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
                .run
                .fail(generation, || self.generation() == generation),
            Finding { ended: false, .. } => 0,
            _ => {
                self.run.end(generation);
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
        let cause = self
            .cause(stamp, generation, &settings, 0)
            .or(by_run.then_some(Cause::ConsecutiveFailures))?;
        self.trip(control, cause, &settings, now)
    }

    /// Whether a quick success can be the one to trip: because the window has slid, so that
    /// successes may have left it; because it brings the calls up to the minimum; or because the
    /// settings have changed.
    fn may_trip_on_success(&self, counted: Counted, stamp: Stamp) -> bool {
        if matches!(self.counter, Counter::Calls(_)) {
            return true;
        }
        let watch = self.watch.load(Ordering::SeqCst);
        if watch == JUDGE_NEXT {
            // A failed exchange: another result judges too, or another update has come.
            return self
                .watch
                .compare_exchange(JUDGE_NEXT, 0, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok();
        }
        counted == Counted::First || stamp.is_flagged_by(watch)
    }

    /// Opens if calls that have not ended make too many slow ones.
    pub(super) fn trip_on_hung(&self, control: Control, now: u64) -> Option<Transition> {
        let hung = self.hung(now);
        if hung == 0 || control.state() != BreakerState::Closed {
            return None;
        }
        let (settings, generation) = (self.settings.load(), control.generation());
        let cause = self.cause(self.stamp(generation, now), generation, &settings, hung)?;
        self.trip(control, cause, &settings, now)
    }

    /// What the window, with so many hung calls besides, gives cause for.
    fn cause(
        &self,
        stamp: Stamp,
        generation: u32,
        settings: &Settings,
        hung: u64,
    ) -> Option<Cause> {
        let mut counts = match &self.counter {
            Counter::Time { window, .. } => {
                return self.cause_in_time(window, stamp, settings, hung);
            }
            Counter::Calls(window) => window.counts(generation),
        };
        counts.successes += hung;
        counts.slow += hung;
        settings.cause(counts)
    }

    /// Why the counts and the watch are `SeqCst`: a failure counts itself, then reads the
    /// successes; the success that makes up the minimum counts itself, then reads the watch. With
    /// anything weaker both reads may miss both writes (the store-buffer interleaving), and the
    /// circuit would stay closed until the next call. On x86-64 it costs nothing: the counts are
    /// read-modify-writes and the reads plain loads either way.
    fn cause_in_time(
        &self,
        window: &TimeWindow,
        stamp: Stamp,
        settings: &Settings,
        hung: u64,
    ) -> Option<Cause> {
        let mut counts = window.harm(stamp, self.ages.is_some());
        counts.successes += hung;
        counts.slow += hung;
        if !settings.could_trip(counts) {
            return None;
        }
        let harm = counts.successes;
        counts.successes += window.quick_successes(stamp);
        let flag = stamp.as_flag();
        if counts.total() < settings.min_calls {
            self.watch.store(flag, Ordering::SeqCst);
            after_seq_cst_write();
            // Again, for the successes that did not see the watch.
            counts.successes = harm + window.quick_successes(stamp);
        } else if self.watch.load(Ordering::SeqCst) == flag {
            // The calls suffice now, and in this tick only grow: successes need not look any more.
            // A failed exchange has met the watch of another tick, which must stay.
            let _ = self
                .watch
                .compare_exchange(flag, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        settings.cause(counts)
    }

    pub(super) fn trip(
        &self,
        closed: Control,
        cause: Cause,
        settings: &Settings,
        now: u64,
    ) -> Option<Transition> {
        let mut control = closed;
        loop {
            let streak = if self.has_held(control, now) {
                1
            } else {
                control.streak() + 1
            };
            let open = self.opened(control, streak, settings, now);
            match self.swap(control, open) {
                Ok(()) => return Some(control.transition(open, cause)),
                // It has settled in, and is as closed as before.
                Err(current) if current.generation() == closed.generation() => control = current,
                // Opened already, or settled by hand: either way there is nothing left to do.
                Err(_) => return None,
            }
        }
    }

    /// Takes a probe back; `None` gives its slot to another.
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
                Ok(()) => return verdict.map(|cause| control.transition(next, cause)),
                Err(current) if current.generation() != admitted.generation() => {
                    if class.is_some() {
                        self.late.fetch_add(1, Ordering::Relaxed);
                    }
                    return None;
                }
                // Another probe left or came back.
                Err(current) => control = current,
            }
        }
    }

    /// A result of an older generation. None if nothing was admitted.
    fn count_late(&self, pass: &Pass) -> Option<Transition> {
        if !pass.is_nothing() {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    fn stamp(&self, generation: u32, now: u64) -> Stamp {
        match &self.counter {
            Counter::Time { window, .. } => window.stamp(generation, now),
            // A window of calls does not ask when.
            Counter::Calls(_) => Stamp::default(),
        }
    }
}
