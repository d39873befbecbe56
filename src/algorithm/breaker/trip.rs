//! Decides when a closed circuit opens.

use crate::{
    algorithm::{
        breaker::{
            Breaker, BreakerState, Cause, Counter, JUDGE_NEXT, Transition, control::Control,
            settings::Settings,
        },
        window::{Counted, Stamp, TimeWindow},
    },
    sync::{Ordering, after_seq_cst_write},
};

impl Breaker {
    /// Returns whether a quick success can trip. It can if the window has slid, so that successes
    /// may have left it. It can also if it brings the calls up to the minimum, or if the settings
    /// have changed.
    pub(super) fn may_trip_on_success(&self, counted: Counted, stamp: Stamp) -> bool {
        if matches!(self.counter, Counter::Calls(_)) {
            return true;
        }
        let watch = self.watch.load(Ordering::SeqCst);
        if watch == JUDGE_NEXT {
            // If the exchange fails, another result judges too, or another update has come.
            return self
                .watch
                .compare_exchange(JUDGE_NEXT, 0, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok();
        }
        counted == Counted::First || stamp.is_flagged_by(watch)
    }

    /// Opens if calls that have not ended bring the slow calls to their share.
    pub(super) fn trip_on_hung(&self, control: Control, now: u64) -> Option<Transition> {
        let hung = self.hung(now);
        if hung == 0 || control.state() != BreakerState::Closed {
            return None;
        }
        let (settings, generation) = (self.settings.load(), control.generation());
        let cause = self.cause(self.stamp(generation, now), generation, &settings, hung)?;
        self.trip(control, cause, &settings, now)
    }

    /// Returns the cause for opening that the window gives, with so many hung calls added.
    pub(super) fn cause(
        &self,
        stamp: Stamp,
        generation: u32,
        settings: &Settings,
        hung: u64,
    ) -> Option<Cause> {
        let mut counts = match &self.counter {
            Counter::Time(window) => {
                return self.cause_in_time(window, stamp, settings, hung);
            }
            Counter::Calls(window) => window.counts(generation),
        };
        counts.successes += hung;
        counts.slow += hung;
        settings.cause(counts)
    }

    /// Returns the cause for opening in a window of time, with so many hung calls added.
    ///
    /// The counts and the watch are `SeqCst`. A failure counts itself, then reads the successes.
    /// The success that brings the calls up to the minimum counts itself, then reads the watch.
    /// With a weaker ordering both reads may miss both writes (the store-buffer interleaving), and
    /// the circuit would stay closed until the next call. On x86-64 it costs nothing: the counts
    /// are read-modify-writes and the reads plain loads either way.
    fn cause_in_time(
        &self,
        window: &TimeWindow,
        stamp: Stamp,
        settings: &Settings,
        hung: u64,
    ) -> Option<Cause> {
        let mut counts = window.harm(stamp, self.ages.get().is_some());
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
            // Read again, for the successes that did not see the watch.
            counts.successes = harm + window.quick_successes(stamp);
        } else if self.watch.load(Ordering::SeqCst) == flag {
            // The calls suffice now, and in this tick only grow: successes need not check any more.
            // A failed exchange has met the watch of another tick, which must stay.
            let _ = self
                .watch
                .compare_exchange(flag, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        settings.cause(counts)
    }

    pub(super) fn has_no_answer(&self, stamp: Stamp, generation: u32, settings: &Settings) -> bool {
        let abandoned = match &self.counter {
            _ if !settings.open_on_no_answer => 0,
            Counter::Time(window) => window.only_abandoned(stamp),
            Counter::Calls(window) => window.only_abandoned(generation),
        };
        abandoned >= settings.min_calls
    }

    pub(super) fn trip(
        &self,
        closed: Control,
        cause: Cause,
        settings: &Settings,
        now: u64,
    ) -> Option<Transition> {
        let (mut control, counts) = (closed, self.counts_of(closed.generation(), now));
        loop {
            let streak = if self.has_held(control, now) {
                1
            } else {
                control.streak() + 1
            };
            let open = self.opened(control, streak, settings, now);
            match self.swap(control, open) {
                Ok(()) => return Some(control.transition(open, cause, counts)),
                // It has settled in, and is closed as before.
                Err(current) if current.generation() == closed.generation() => control = current,
                // It was opened already, or changed by hand: nothing is left to do.
                Err(_) => return None,
            }
        }
    }
}
