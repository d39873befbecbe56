//! The theoretical arrival time: all the state that a token bucket has, in one word.

use std::convert::Infallible;

use crate::{
    algorithm::{
        OverLimit, TIMER_TICK,
        token_bucket::quota::{Pace, Scale},
    },
    sync::{AtomicU64, Ordering},
};

/// When a bucket will be full again. The quota comes in with each call, so that many buckets can
/// share one.
#[derive(Debug)]
pub(crate) struct Tat {
    /// Since the caller's start, in units of the quota's [`Scale`]. At or behind `now`, and 0: the
    /// bucket is full. Changed with `AcqRel`, for the keyed table alone, which orders its evictions
    /// by it; on a TAT that nobody else can take over it publishes nothing. Loads are Relaxed.
    word: AtomicU64,
}

/// What a change did, so that it can be undone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    before: u64,
    after: u64,
}

impl Tat {
    pub(crate) fn full() -> Self {
        Self {
            word: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn acquire(&self, pace: Pace, cost: u64, now: u64) -> Result<(), OverLimit> {
        self.take(pace, cost, now).map(|_| ())
    }

    /// As [`acquire`](Self::acquire), for a caller that may have to undo it.
    #[inline]
    pub(crate) fn take(&self, pace: Pace, cost: u64, now: u64) -> Result<Change, OverLimit> {
        self.take_late(pace, cost, now, now)
    }

    /// As [`take`](Self::take), for a caller whose turn was at `due`: what the bucket has earned
    /// between that and `now`, at most [`TIMER_TICK`], is not lost though it was full.
    ///
    /// To decide as of `due` would not do: if those ahead were late by more, it fits now and did
    /// not fit then.
    #[inline]
    pub(crate) fn take_late(
        &self,
        pace: Pace,
        cost: u64,
        due: u64,
        now: u64,
    ) -> Result<Change, OverLimit> {
        // One comparison for both: 0 wraps to the largest.
        if cost.wrapping_sub(1) >= pace.burst {
            return self.take_unusual(cost);
        }
        let due = due.clamp(now.saturating_sub(TIMER_TICK), now);
        let capacity = pace.capacity + pace.scale.units(now - due);
        // The loser has lost to an admission, which took tokens: it decides again on what is left,
        // and is denied after at most `burst` losses.
        self.change(pace.scale, due, |ahead| {
            // Neither overflows: `cost <= burst`, `capacity <= 2^57` and a tick. Of `ahead` what
            // the clock went back by may be a part, up to the whole range.
            let ahead = ahead.saturating_add(cost * pace.interval);
            match ahead.checked_sub(capacity) {
                None | Some(0) => Ok(ahead),
                Some(excess) => Err(OverLimit::until(pace.scale.nanos(excess))),
            }
        })
    }

    /// What costs nothing is free, also of a bucket in debt; what costs more than the burst never
    /// fits.
    #[cold]
    fn take_unusual(&self, cost: u64) -> Result<Change, OverLimit> {
        let before = self.word.load(Ordering::Relaxed);
        let unchanged = Change {
            before,
            after: before,
        };
        (cost == 0)
            .then_some(unchanged)
            .ok_or(OverLimit::CostAboveBurst)
    }

    /// Full and free of debt and penalty, as if it had never been used.
    pub(crate) fn reset(&self, scale: Scale, now: u64) {
        self.reset_if(scale, now, || true);
    }

    /// As [`reset`](Self::reset), under the condition of [`refund_if`](Self::refund_if).
    pub(crate) fn reset_if(&self, scale: Scale, now: u64, owned: impl Fn() -> bool) {
        // Full already, or another key's: left alone.
        let _ = self.change(scale, now, |ahead| {
            if ahead == 0 || !owned() {
                Err(())
            } else {
                Ok(0)
            }
        });
    }

    /// How many nanoseconds until `units` more have all fitted, one after the other.
    pub(crate) fn wait(&self, pace: Pace, units: u64, now: u64) -> u64 {
        let ahead = self
            .ahead(pace.scale, now)
            .saturating_add(units.saturating_mul(pace.interval));
        pace.scale.nanos(ahead.saturating_sub(pace.capacity))
    }

    /// Takes a change back, unless another has come since. Then what it took stays taken: time may
    /// have paid for it already, and the unit given back would be one too many.
    pub(crate) fn undo(&self, change: Change) {
        let Change { before, after } = change;
        // The loser leaves the bucket with too little, never with too much.
        let _ = self
            .word
            .compare_exchange(after, before, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(crate) fn refund(&self, pace: Pace, cost: u64, now: u64) {
        self.refund_if(pace, cost, now, || true);
    }

    /// Refunds if `owned` still holds after the TAT was read and before it is changed, which is
    /// then one step with it: a key that takes an indebted bucket over, and admits, has changed its
    /// TAT.
    pub(crate) fn refund_if(&self, pace: Pace, cost: u64, now: u64, owned: impl Fn() -> bool) {
        let units = cost.saturating_mul(pace.interval);
        // A full bucket is left alone: there is no room for what comes back, and no error to
        // report.
        let _ = self.change(pace.scale, now, |ahead| {
            if ahead == 0 || !owned() {
                Err(())
            } else {
                Ok(ahead.saturating_sub(units))
            }
        });
    }

    pub(crate) fn charge(&self, pace: Pace, cost: u64, now: u64) -> Change {
        let units = cost.saturating_mul(pace.interval);
        self.raise(pace.scale, now, |ahead| ahead.saturating_add(units))
    }

    pub(crate) fn close_until(&self, pace: Pace, until: u64, now: u64) -> Change {
        let closed = pace.scale.units(until.saturating_sub(now));
        // At `until` there is room for one unit.
        self.raise(pace.scale, now, |ahead| {
            ahead.max(closed.saturating_add(pace.capacity - pace.interval))
        })
    }

    /// Moves the TAT so far ahead at least: somebody else has used what lies before it.
    #[cfg(any(feature = "layers", test))]
    pub(crate) fn raise_to(&self, scale: Scale, least: u64, now: u64) {
        self.raise(scale, now, |ahead| ahead.max(least));
    }

    pub(crate) fn available(&self, pace: Pace, now: u64) -> u64 {
        pace.capacity.saturating_sub(self.ahead(pace.scale, now)) / pace.interval
    }

    /// How far the TAT lies ahead of `now`; 0 if it has passed.
    pub(crate) fn ahead(&self, scale: Scale, now: u64) -> u64 {
        scale.ahead(self.word.load(Ordering::Relaxed), scale.moment(now))
    }

    /// Whether the bucket is full, by a write of the TAT that leaves it as it is: so an admission
    /// comes either before it, and is seen here, or after it, and then sees all that this thread
    /// has written before (`AcqRel`, which pairs with that of `change`).
    pub(crate) fn confirm_idle(&self, scale: Scale, now: u64) -> bool {
        let tat = self.word.fetch_add(0, Ordering::AcqRel);
        scale.ahead(tat, scale.moment(now)) == 0
    }

    /// Forgets that the bucket was full before `now`, if it was: a caller with an older time finds
    /// it as it is then.
    pub(crate) fn full_since(&self, scale: Scale, now: u64) {
        let Ok(_) = self.change(scale, now, Ok::<_, Infallible>);
    }

    /// Moves the TAT away from `now`, but never further than [`Scale::max_ahead`]: more debt than
    /// that is forgotten. What is further ahead already, because the clock went back, stays.
    fn raise(&self, scale: Scale, now: u64, further: impl Fn(u64) -> u64) -> Change {
        let Ok(change) = self.change(scale, now, |ahead| {
            Ok::<_, Infallible>(further(ahead).min(scale.max_ahead()).max(ahead))
        });
        change
    }

    /// Replaces how far the TAT lies ahead, in one step, or leaves it.
    #[inline]
    fn change<E>(
        &self,
        scale: Scale,
        now: u64,
        new: impl Fn(u64) -> Result<u64, E>,
    ) -> Result<Change, E> {
        let moment = scale.moment(now);
        let mut tat = self.word.load(Ordering::Relaxed);
        loop {
            let changed = scale.arrival(moment, new(scale.ahead(tat, moment))?);
            match self
                .word
                .compare_exchange_weak(tat, changed, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(before) => {
                    return Ok(Change {
                        before,
                        after: changed,
                    });
                }
                // Computed again from what the winner left.
                Err(current) => tat = current,
            }
        }
    }
}
