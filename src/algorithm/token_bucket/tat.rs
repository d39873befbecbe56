//! The theoretical arrival time (TAT): the whole state of a token bucket, in one word.

use std::convert::Infallible;

use crate::{
    algorithm::{
        OverLimit, TIMER_TICK,
        token_bucket::quota::{Pace, Scale},
    },
    sync::{AtomicU64, Ordering},
};

/// The time at which a bucket will be full again. Each call passes the quota, so that many buckets
/// can share one.
#[derive(Debug)]
pub(crate) struct Tat {
    /// The arrival time since the caller's start, in units of the quota's [`Scale`]. If it is 0, or
    /// not after `now`, the bucket is full. Changes are `AcqRel` only for the keyed table, which
    /// orders its evictions by them. A TAT that no other key can take over publishes nothing. Loads
    /// are Relaxed.
    word: AtomicU64,
}

/// The words before and after a change, so that it can be undone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TatChange {
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

    /// Does the same as [`acquire`](Self::acquire), for a caller that may have to undo it.
    #[inline]
    pub(crate) fn take(&self, pace: Pace, cost: u64, now: u64) -> Result<TatChange, OverLimit> {
        self.take_late(pace, cost, now, now)
    }

    /// Does the same as [`take`](Self::take), for a waiter that was due at `due`. What the bucket
    /// has earned between `due` and `now`, at most [`TIMER_TICK`], is not lost even if it was full.
    ///
    /// Deciding as of `due` alone would be wrong: if the waiters ahead were later still, the call
    /// fits now although it did not fit then.
    #[inline]
    pub(crate) fn take_late(
        &self,
        pace: Pace,
        cost: u64,
        due: u64,
        now: u64,
    ) -> Result<TatChange, OverLimit> {
        // One comparison for both cases: a cost of 0 wraps to the largest number.
        if cost.wrapping_sub(1) >= pace.burst {
            return self.take_unusual(cost);
        }
        let due = due.clamp(now.saturating_sub(TIMER_TICK), now);
        let capacity = pace.capacity + pace.scale.units(now - due);
        // A loser decides again on what the winner left. An admission that wins takes tokens, so
        // after at most `burst` of them the loser is rejected.
        self.change(pace.scale, due, |ahead| {
            // Neither overflows: `cost <= burst`, and `capacity` is at most 2^57 and a tick.
            // `ahead` may include how far the clock went back, up to the whole range.
            let ahead = ahead.saturating_add(cost * pace.interval);
            match ahead.checked_sub(capacity) {
                None | Some(0) => Ok(ahead),
                Some(excess) => Err(OverLimit::until(pace.scale.nanos(excess))),
            }
        })
    }

    /// Admits a cost of 0, even if the bucket is in debt. A cost above the burst never fits.
    #[cold]
    fn take_unusual(&self, cost: u64) -> Result<TatChange, OverLimit> {
        let before = self.word.load(Ordering::Relaxed);
        let unchanged = TatChange {
            before,
            after: before,
        };
        (cost == 0)
            .then_some(unchanged)
            .ok_or(OverLimit::CostAboveBurst)
    }

    /// Makes the bucket full, without debt or penalty, as if it had never been used.
    pub(crate) fn reset(&self, scale: Scale, now: u64) {
        self.reset_if(scale, now, || true);
    }

    /// Does the same as [`reset`](Self::reset), on the condition of [`refund_if`](Self::refund_if).
    pub(crate) fn reset_if(&self, scale: Scale, now: u64, owned: impl Fn() -> bool) {
        // A bucket that is full already, or that another key owns, is left alone.
        let _ = self.change(scale, now, |ahead| {
            if ahead == 0 || !owned() {
                Err(())
            } else {
                Ok(0)
            }
        });
    }

    /// Returns how many nanoseconds until `units` more units have all fitted, one after the other.
    pub(crate) fn wait(&self, pace: Pace, units: u64, now: u64) -> u64 {
        let ahead = self
            .ahead(pace.scale, now)
            .saturating_add(units.saturating_mul(pace.interval));
        pace.scale.nanos(ahead.saturating_sub(pace.capacity))
    }

    /// Undoes a change, unless another change has followed. In that case the units stay taken: time
    /// may have paid for them already, and giving them back would admit too many.
    pub(crate) fn undo(&self, change: TatChange) {
        let TatChange { before, after } = change;
        // The loser leaves the bucket with too little, never with too much.
        let _ = self
            .word
            .compare_exchange(after, before, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(crate) fn refund(&self, pace: Pace, cost: u64, now: u64) {
        self.refund_if(pace, cost, now, || true);
    }

    /// Refunds down to `least` ahead of `now`.
    #[cfg(any(feature = "layers", test))]
    pub(crate) fn refund_above(&self, pace: Pace, cost: u64, least: u64, now: u64) {
        let units = cost.saturating_mul(pace.interval);
        let _ = self.change(pace.scale, now, |ahead| {
            let refunded = ahead.saturating_sub(units).max(least);
            (refunded < ahead).then_some(refunded).ok_or(())
        });
    }

    /// Refunds if `owned` holds, which is checked after the TAT is read and before it is changed.
    /// The compare-and-swap makes the check and the change one step: a key that takes over an
    /// indebted bucket, and admits a call, has changed its TAT.
    pub(crate) fn refund_if(&self, pace: Pace, cost: u64, now: u64, owned: impl Fn() -> bool) {
        let units = cost.saturating_mul(pace.interval);
        // A full bucket is left alone: it has no room for the refund, and there is no error to
        // report.
        let _ = self.change(pace.scale, now, |ahead| {
            if ahead == 0 || !owned() {
                Err(())
            } else {
                Ok(ahead.saturating_sub(units))
            }
        });
    }

    pub(crate) fn charge(&self, pace: Pace, cost: u64, now: u64) -> TatChange {
        let units = cost.saturating_mul(pace.interval);
        self.raise(pace.scale, now, |ahead| ahead.saturating_add(units))
    }

    pub(crate) fn close_until(&self, pace: Pace, until: u64, now: u64) -> TatChange {
        let closed = pace.scale.units(until.saturating_sub(now));
        // At `until` one unit fits.
        self.raise(pace.scale, now, |ahead| {
            ahead.max(closed.saturating_add(pace.capacity - pace.interval))
        })
    }

    /// Replaces how far the TAT lies ahead of `now`, at most [`Scale::max_ahead`].
    #[cfg(any(feature = "layers", test))]
    pub(crate) fn replace(&self, scale: Scale, now: u64, new: impl Fn(u64) -> u64) {
        let Ok(_) = self.change(scale, now, |ahead| {
            Ok::<_, Infallible>(new(ahead).min(scale.max_ahead()))
        });
    }

    pub(crate) fn available(&self, pace: Pace, now: u64) -> u64 {
        pace.capacity.saturating_sub(self.ahead(pace.scale, now)) / pace.interval
    }

    /// Returns how far the TAT lies ahead of `now`, or 0 if it has passed.
    pub(crate) fn ahead(&self, scale: Scale, now: u64) -> u64 {
        scale.ahead(self.word.load(Ordering::Relaxed), scale.moment(now))
    }

    /// Returns whether the bucket is full, by a write that leaves the TAT as it is. An admission
    /// that comes before this write is seen here. One that comes after it sees all that this thread
    /// has written before (`AcqRel`, which pairs with that of `change`).
    pub(crate) fn confirm_idle(&self, scale: Scale, now: u64) -> bool {
        let tat = self.word.fetch_add(0, Ordering::AcqRel);
        scale.ahead(tat, scale.moment(now)) == 0
    }

    /// Moves a TAT that has passed to `now`. A caller with an older time then finds a bucket that
    /// is full only from `now` on.
    pub(crate) fn full_since(&self, scale: Scale, now: u64) {
        let Ok(_) = self.change(scale, now, Ok::<_, Infallible>);
    }

    /// Moves the TAT away from `now`, but never further than [`Scale::max_ahead`]: a debt beyond
    /// that is forgotten. A TAT that is further ahead already, because the clock went back, stays.
    fn raise(&self, scale: Scale, now: u64, further: impl Fn(u64) -> u64) -> TatChange {
        let Ok(change) = self.change(scale, now, |ahead| {
            Ok::<_, Infallible>(further(ahead).min(scale.max_ahead()).max(ahead))
        });
        change
    }

    /// Replaces the distance of the TAT from `now` in one step, or leaves it if `new` fails.
    #[inline]
    fn change<E>(
        &self,
        scale: Scale,
        now: u64,
        new: impl Fn(u64) -> Result<u64, E>,
    ) -> Result<TatChange, E> {
        let moment = scale.moment(now);
        let mut tat = self.word.load(Ordering::Relaxed);
        loop {
            let changed = scale.arrival(moment, new(scale.ahead(tat, moment))?);
            match self
                .word
                .compare_exchange_weak(tat, changed, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(before) => {
                    return Ok(TatChange {
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
