//! Distinguishes a queue that smooths bursts from one that never drains.
//!
//! A queue that fills and drains again is useful. A queue whose oldest call has waited long *all
//! the time* is not: it delays every call by the same amount, and serves callers that have lost
//! patience. Its length does not show the difference. Nor does an average, which is high after a
//! good burst too. The *minimum* of the wait over a time does: it falls to zero whenever the queue
//! drains.
//!
//! **Guarantee.** The queue is [standing](CoDel::is_standing) once the oldest call's wait was at
//! least `target` at every observation for `interval`, until an observation finds it empty. While
//! it is standing, serve the newest call first, because its caller is still there, and drop calls
//! that have waited [too long](CoDel::drops): over twice the target.
//!
//! A short wait does not end it, because the drops themselves make the wait short, in the middle of
//! the overload. The queue would fill for another interval and be dropped again, in waves.
//!
//! Dropping alone, in order of arrival, would serve each call just before it is dropped. Newest
//! first alone would keep the old calls until their callers give up.
//!
//! **Cost.** An observation is two comparisons. The state is four words, two of them settings,
//! which the caller guards together with its queue.
//!
//! The minimum, 5 ms and 100 ms are from Nichols and Jacobson, *Controlling Queue Delay* (ACM
//! Queue, 2012). Newest first, for the queue of a server, is from Maurer, *Fail at Scale* (ACM
//! Queue, 2015).

use std::time::Duration;

use crate::ConfigError;

/// A detector of standing queues, which observes how long the oldest call has waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoDel {
    target: u64,
    interval: u64,
    /// The time since which the wait was at least the target at every observation.
    above_since: Option<u64>,
    standing: bool,
}

impl CoDel {
    /// Creates a detector: a queue is standing once its oldest call has waited at least `target`,
    /// for `interval` without a break.
    ///
    /// The usual 5 ms and 100 ms fit calls that take some milliseconds. `target` should be longer
    /// than most waits for one permit, and `interval` longer than a burst takes to drain.
    ///
    /// # Errors
    /// The target is 0, at which every queue is standing, or the interval is shorter than the
    /// target.
    pub fn new(target: Duration, interval: Duration) -> Result<Self, ConfigError> {
        if target.is_zero() {
            let fix = "give the wait that is no trouble, such as 5 ms";
            return Err(ConfigError::new("target", Duration::ZERO, fix));
        }
        if interval < target {
            let fix = "make it several times the target, such as 100 ms";
            return Err(ConfigError::new("interval", interval, fix));
        }
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self {
            target: nanos(target),
            interval: nanos(interval),
            above_since: None,
            standing: false,
        })
    }

    /// Observes the queue: how long the oldest call in it has waited, or `None` if it is empty.
    /// Call this whenever a call joins or may leave.
    pub fn look(&mut self, oldest: Option<u64>, now: u64) {
        let Some(wait) = oldest else {
            self.above_since = None;
            self.standing = false;
            return;
        };
        if wait < self.target {
            self.above_since = None;
            return;
        }
        let since = *self.above_since.get_or_insert(now);
        // Backwards time saturates: the queue counts as standing a little later.
        self.standing |= now.saturating_sub(since) >= self.interval;
    }

    /// Returns whether the queue has not drained for the interval. If so, serve the newest call
    /// first.
    #[must_use]
    pub fn is_standing(&self) -> bool {
        self.standing
    }

    /// Returns whether to drop a call that has waited for so long.
    #[must_use]
    pub fn drops(&self, wait: u64) -> bool {
        self.standing && wait > self.target.saturating_mul(2)
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;

    fn usual() -> CoDel {
        CoDel::new(Duration::from_millis(5), Duration::from_millis(100)).unwrap()
    }

    fn look(codel: &mut CoDel, wait: u64, now: u64) -> bool {
        codel.look(Some(wait * MILLI), now * MILLI);
        codel.is_standing()
    }

    #[test]
    fn stands_once_the_wait_was_long_for_the_interval() {
        let mut codel = usual();
        assert!(!look(&mut codel, 5, 10));
        assert!(!look(&mut codel, 50, 109));
        assert!(look(&mut codel, 50, 110));
    }

    #[test]
    fn one_short_wait_starts_the_interval_again() {
        let mut codel = usual();
        assert!(!look(&mut codel, 50, 0));
        assert!(!look(&mut codel, 4, 99));
        assert!(!look(&mut codel, 50, 100));
        assert!(!look(&mut codel, 50, 199));
        assert!(look(&mut codel, 50, 200));
    }

    #[test]
    fn stands_until_it_is_empty() {
        let mut codel = usual();
        look(&mut codel, 50, 0);
        assert!(look(&mut codel, 50, 100));
        assert!(look(&mut codel, 1, 101));
        codel.look(None, 101 * MILLI);
        assert!(!codel.is_standing());
        assert!(!look(&mut codel, 50, 102));
    }

    #[test]
    fn drops_what_waits_twice_the_target_while_it_stands() {
        let mut codel = usual();
        look(&mut codel, 50, 0);
        assert!(!codel.drops(50 * MILLI));
        look(&mut codel, 50, 100);
        assert!(codel.drops(10 * MILLI + 1));
        assert!(!codel.drops(10 * MILLI));
    }

    #[test]
    fn bad_settings_are_errors_and_the_longest_work() {
        let (zero, short) = (Duration::ZERO, Duration::from_millis(1));
        assert!(CoDel::new(zero, short).is_err());
        assert!(CoDel::new(short * 2, short).is_err());
        let mut codel = CoDel::new(Duration::MAX, Duration::MAX).unwrap();
        codel.look(Some(u64::MAX), 0);
        codel.look(Some(u64::MAX), u64::MAX);
        assert!(codel.is_standing() && !codel.drops(u64::MAX));
    }

    proptest! {
        /// Compares with a model that keeps all observations, and with time that goes back.
        #[test]
        fn stands_as_the_minimum_of_the_last_looks_says(
            looks in prop::collection::vec((prop::option::weighted(0.9, 0u64..30), -3i64..40), 1..80),
        ) {
            let (mut codel, mut now, mut seen) = (usual(), 1000u64, Vec::new());
            let mut stood = false;
            for (wait, step) in looks {
                now = now.saturating_add_signed(step);
                codel.look(wait.map(|wait| wait * MILLI), now * MILLI);
                seen.push((wait, now));
                let above = |(wait, _): &&(Option<u64>, u64)| wait.is_some_and(|wait| wait >= 5);
                let first = seen.iter().rev().take_while(above).last();
                let long = first.is_some_and(|(_, first)| now.saturating_sub(*first) >= 100);
                stood = wait.is_some() && (stood || long);
                prop_assert_eq!(codel.is_standing(), stood);
            }
        }
    }
}
