//! Sliding window as two counters: about N in a window, in one word for any N.
//!
//! It counts by fixed windows. To the current window's count it adds the share of the last window's
//! count that still overlaps the sliding window, as if those calls had arrived evenly.
//!
//! **Accuracy.** If calls did arrive evenly, the count is exact, to a unit. Of N a window the last
//! would fit only as the window ends. So callers that always want more get N - 1, and with N = 1
//! one in two windows. At worst all calls arrived at the end of their window. Then up to 1.9 N pass
//! within one window's length: N at once after an idle time, and nearly N more, as the share falls,
//! before those are a window old. In theory the bound is just short of 2 N. If N is a promise, use
//! the [log](super::SlidingLog) or the [ring](super::SlidingRing).
//!
//! **Time that goes back** counts as the start of the newest window, however far back it goes.
//!
//! **Cost.** Admitted: loads of four words, and one compare-and-swap. Rejected: the loads alone.
//! The first call of a window writes one word more.

use std::time::Duration;

use crate::{
    algorithm::{
        Limit, OverLimit, Rate,
        epoch::Epoch,
        sliding::{MAX_COUNT, changed_count, count_of, window_of},
    },
    config::ConfigError,
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// A limit on a window, approximately. Starts empty. 48 bytes.
#[derive(Debug)]
pub struct SlidingCounter {
    /// `epoch:16 | previous:24 | current:24`: the number of the current fixed window, and the
    /// counts of the window before it and of itself. Release, partner of the Acquire in every load:
    /// a thread that sees an epoch here sees it in `newest` too.
    word: AtomicU64,
    /// The full number of the newest window that any call was in. It distinguishes a clock that
    /// went back from a call after a long time, which the 16 bits of `word` cannot. Raised before
    /// the word is changed. Relaxed, because the word's Release publishes it.
    newest: AtomicU64,
    /// The limit. Relaxed: an admission that races a change uses one of the two limits.
    limit: AtomicU32,
    /// The time before which nothing is admitted, in nanoseconds. Relaxed: it publishes nothing
    /// else.
    closed: AtomicU64,
    window: u64,
    epoch: Epoch,
}

/// The counts at one moment, `elapsed` nanoseconds into the current fixed window.
#[derive(Debug, Clone, Copy)]
struct Counts {
    epoch: u16,
    previous: u32,
    current: u32,
    elapsed: u64,
}

impl SlidingCounter {
    /// Creates a limit of about `rate.count()` units in any window of `rate.per()`.
    ///
    /// # Errors
    /// A count of 0 or above 16 million. A window below a millisecond or above a year.
    pub fn new(rate: Rate) -> Result<Self, ConfigError> {
        Ok(Self {
            word: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            limit: AtomicU32::new(count_of(rate, MAX_COUNT)?),
            closed: AtomicU64::new(0),
            window: window_of(rate)?,
            epoch: Epoch::unset(),
        })
    }

    /// Returns what the word, loaded with Acquire before, means at `now`.
    fn counts(&self, word: u64, now: u64) -> Counts {
        let newest = self.newest.load(Ordering::Relaxed);
        let (of_now, elapsed) = (now / self.window, now % self.window);
        // A clock that went back counts as the start of the newest window.
        let (full, elapsed) = if of_now < newest {
            (newest, 0)
        } else {
            (of_now, elapsed)
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "takes the word apart, and epochs wrap"
        )]
        let (stored, epoch) = ((word >> 48) as u16, full as u16);
        #[expect(clippy::cast_possible_truncation, reason = "24 bits each")]
        let (previous, current) = ((word >> 24) as u32 & MAX_COUNT, word as u32 & MAX_COUNT);
        let (previous, current) = match epoch.wrapping_sub(stored) {
            // Nothing was counted in the last window: an equal epoch is one of 65 536 windows ago.
            _ if full - newest > 1 => (0, 0),
            0 => (previous, current),
            1 => (current, 0),
            _ => (0, 0),
        };
        Counts {
            epoch,
            previous,
            current,
            elapsed,
        }
    }

    fn load(&self, now: u64) -> Counts {
        self.counts(self.word.load(Ordering::Acquire), now)
    }

    fn change<E>(&self, now: u64, new: impl Fn(Counts) -> Result<Counts, E>) -> Result<(), E> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let changed = new(self.counts(word, now))?.packed();
            // After the counts were read, because they depend on which window was the newest
            // before.
            if now / self.window > self.newest.load(Ordering::Relaxed) {
                self.newest.fetch_max(now / self.window, Ordering::Relaxed);
            }
            match self.word.compare_exchange_weak(
                word,
                changed,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Ok(()),
                // The loser counts again on top of the winner.
                Err(current) => word = current,
            }
        }
    }

    /// Returns how many nanoseconds until `units` fit beside the counted ones.
    fn until(&self, counts: Counts, units: u64, now: u64) -> u64 {
        let limit = u64::from(self.burst());
        let closed = self.closed.load(Ordering::Relaxed).saturating_sub(now);
        let current = u64::from(counts.current);
        let wait = if current + units <= limit {
            self.fades(counts.previous, limit - current - units)
                .saturating_sub(counts.elapsed)
        } else {
            // In the next window, in which the current count is the previous one. Beyond that, one
            // window for each time that the limit is used up.
            let before = units.saturating_sub(1);
            let (laps, rest) = (before / limit, before % limit + 1);
            let later = (self.window - counts.elapsed)
                .saturating_add(self.fades(counts.current, limit - rest));
            later.saturating_add(laps.saturating_mul(self.window))
        };
        wait.max(closed)
    }

    /// Returns how far into a window the share of the `previous` one has fallen to `room`.
    fn fades(&self, previous: u32, room: u64) -> u64 {
        let Some(excess) = u64::from(previous)
            .checked_sub(room)
            .filter(|excess| *excess > 0)
        else {
            return 0;
        };
        let elapsed = (u128::from(self.window) * u128::from(excess)).div_ceil(u128::from(previous));
        u64::try_from(elapsed).unwrap_or(self.window)
    }

    fn used(&self, counts: Counts) -> u64 {
        let left = u128::from(counts.previous) * u128::from(self.window - counts.elapsed);
        u64::from(counts.current)
            + u64::try_from(left.div_ceil(u128::from(self.window))).unwrap_or(0)
    }
}

impl Counts {
    fn packed(self) -> u64 {
        u64::from(self.epoch) << 48 | u64::from(self.previous) << 24 | u64::from(self.current)
    }

    /// Adds to the count. A count that does not fit stays at 16 million: above any limit, it
    /// rejects all.
    fn more(self, cost: u32) -> Self {
        Self {
            current: self.current.saturating_add(cost).min(MAX_COUNT),
            ..self
        }
    }

    /// Removes the oldest units first, which weigh the least.
    fn fewer(self, cost: u32) -> Self {
        let left = cost.saturating_sub(self.previous);
        Self {
            previous: self.previous.saturating_sub(cost),
            current: self.current.saturating_sub(left),
            ..self
        }
    }
}

impl Limit for SlidingCounter {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        if cost == 0 {
            return Ok(());
        }
        if cost > self.burst() {
            return Err(OverLimit::CostAboveBurst);
        }
        self.change(now, |counts| {
            match self.until(counts, u64::from(cost), now) {
                0 => Ok(counts.more(cost)),
                wait => Err(OverLimit::until(wait)),
            }
        })
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        Duration::from_nanos(self.until(self.load(now), units, now))
    }

    fn refund(&self, cost: u32, now: u64) {
        let _ = self.change(now, |counts| Ok::<_, ()>(counts.fewer(cost)));
    }

    fn charge(&self, cost: u32, now: u64) {
        let _ = self.change(now, |counts| Ok::<_, ()>(counts.more(cost)));
    }

    fn close_until(&self, until: u64, _: u64) {
        self.closed.fetch_max(until, Ordering::Relaxed);
    }

    fn reset(&self, now: u64) {
        let empty = |counts| Counts {
            previous: 0,
            current: 0,
            ..counts
        };
        let _ = self.change(now, |counts| Ok::<_, ()>(empty(counts)));
        self.closed.store(0, Ordering::Relaxed);
    }

    fn available(&self, now: u64) -> u32 {
        if self.closed.load(Ordering::Relaxed) > now {
            return 0;
        }
        let free = u64::from(self.burst()).saturating_sub(self.used(self.load(now)));
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    fn burst(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    fn refund_lag(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    fn begin(&self, at: u64) -> u64 {
        self.epoch.begin(at)
    }

    fn rate(&self) -> Rate {
        Rate::new(u64::from(self.burst()), Duration::from_nanos(self.window))
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.limit.store(
            changed_count(rate, burst, self.window, MAX_COUNT)?,
            Ordering::Relaxed,
        );
        Ok(())
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLI;

    fn counter(count: u64) -> SlidingCounter {
        SlidingCounter::new(Rate::per_second(count)).unwrap()
    }

    fn admitted(counter: &SlidingCounter, times: usize, now: u64) -> usize {
        (0..times)
            .filter(|_| counter.acquire(1, now).is_ok())
            .count()
    }

    #[test]
    fn half_a_window_later_half_the_last_one_still_counts() {
        let counter = counter(100);
        assert_eq!(admitted(&counter, 200, 0), 100);
        assert_eq!(counter.available(1500 * MILLI), 50);
        assert_eq!(admitted(&counter, 200, 1500 * MILLI), 50);
    }

    #[test]
    fn the_worst_case_is_just_short_of_twice_the_count() {
        let counter = counter(100);
        assert_eq!(admitted(&counter, 200, 999 * MILLI), 100);
        let more = (1000..1999)
            .map(|milli| admitted(&counter, 200, milli * MILLI))
            .sum::<usize>();
        assert_eq!(more, 99);
    }

    #[test]
    fn after_two_idle_windows_nothing_counts() {
        let counter = counter(10);
        assert_eq!(admitted(&counter, 20, 0), 10);
        assert_eq!(admitted(&counter, 20, 2 * SECOND), 10);
        assert_eq!(admitted(&counter, 20, 40_000 * SECOND), 10);
    }

    #[test]
    fn a_clock_that_goes_back_stays_in_the_newest_window() {
        let counter = counter(10);
        assert_eq!(admitted(&counter, 20, 9 * SECOND + 900 * MILLI), 10);
        assert_eq!(admitted(&counter, 20, 5 * SECOND), 0);
        assert_eq!(admitted(&counter, 20, 10 * SECOND + 500 * MILLI), 5);
        assert_eq!(admitted(&counter, 20, 9 * SECOND), 0);
    }

    /// Regression: ten were admitted at 100 s, ten at 83 s, and ten again at 100 s.
    #[test]
    fn a_clock_that_goes_far_back_gives_nothing_back() {
        for back in [17, 100, 65_536, 70_000] {
            for uptime in [100_000, 30 * YEAR, 100 * YEAR] {
                let (counter, now) = (counter(10), uptime * SECOND);
                assert_eq!(admitted(&counter, 20, now), 10);
                assert_eq!(admitted(&counter, 20, now - back * SECOND), 0);
                assert_eq!(admitted(&counter, 20, now), 0);
                assert_eq!(admitted(&counter, 20, now + 2 * SECOND), 10);
            }
        }
    }

    const YEAR: u64 = 365 * 24 * 3600;

    #[test]
    fn a_counter_that_idled_for_years_is_empty() {
        for idle in [2, 65_534, 65_535, 65_536, 65_537, 30 * YEAR, 100 * YEAR] {
            let counter = counter(10);
            assert_eq!(admitted(&counter, 20, SECOND), 10);
            assert_eq!(counter.available((1 + idle) * SECOND), 10);
            assert_eq!(admitted(&counter, 20, (1 + idle) * SECOND), 10);
            assert_eq!(admitted(&counter, 20, (1 + idle) * SECOND), 0);
        }
    }

    #[test]
    fn a_closed_counter_opens_and_debts_outlast_a_window() {
        let counter = counter(10);
        counter.close_until(3 * SECOND, 0);
        assert_eq!(
            counter.acquire(1, SECOND),
            Err(OverLimit::until(2 * SECOND))
        );
        counter.charge(20, 3 * SECOND);
        assert_eq!(
            counter.acquire(1, 3 * SECOND),
            Err(OverLimit::until(SECOND + 550 * MILLI))
        );
        assert_eq!(
            counter.acquire(11, 3 * SECOND),
            Err(OverLimit::CostAboveBurst)
        );
    }

    #[test]
    fn a_limit_can_change_but_not_its_window() {
        let counter = counter(10);
        counter.update(Rate::per_second(3), 3).unwrap();
        assert_eq!(admitted(&counter, 20, 0), 3);
        assert_eq!(
            counter.update(Rate::per_minute(3), 3).unwrap_err().field,
            "rate"
        );
    }

    proptest! {
        #[test]
        fn counts_as_two_plain_numbers_do(
            steps in prop::collection::vec((0u8..6, 0u32..8, -(300 * MILLI as i64)..800 * MILLI as i64), 1..200),
        ) {
            let counter = counter(10);
            let (mut counts, mut now) = ((0u64, 0, 0), 0u64);
            for (step, cost, elapsed) in steps {
                let (mut epoch, mut previous, mut current) = counts;
                // A clock may go back as far as it likes.
                now = now.saturating_add_signed(elapsed * if step == 0 { 100 } else { 1 });
                while epoch < now / SECOND {
                    (epoch, previous, current) = (epoch + 1, current, 0);
                }
                // Counted as at the start of the newest window that any unit was counted in.
                let left = if epoch > now / SECOND { SECOND } else { SECOND - now % SECOND };
                let units = u64::from(cost);
                match step {
                    0 => {
                        counter.refund(cost, now);
                        let old = units.min(previous);
                        counts = (epoch, previous - old, current.saturating_sub(units - old));
                    }
                    1 => { counter.charge(cost, now); counts = (epoch, previous, current + units); }
                    _ if cost == 0 => prop_assert!(counter.acquire(0, now).is_ok()),
                    _ => {
                        let fits = previous * left + (current + units) * SECOND <= 10 * SECOND;
                        prop_assert_eq!(counter.acquire(cost, now).is_ok(), fits);
                        counts = if fits { (epoch, previous, current + units) } else { counts };
                    }
                }
            }
        }

        #[test]
        fn waiting_the_hint_is_enough_and_less_is_not(
            count in 1u64..50, steps in prop::collection::vec((0u64..100 * MILLI, 1u32..5), 1..300),
        ) {
            let counter = counter(count);
            let mut now = 0;
            for (elapsed, cost) in steps {
                now += elapsed;
                if let Err(OverLimit::Until { wait }) = counter.acquire(cost, now) {
                    let wait = u64::try_from(wait.as_nanos()).unwrap();
                    prop_assert!(counter.acquire(cost, now + wait - 1).is_err());
                    now += wait;
                    prop_assert!(counter.acquire(cost, now).is_ok());
                }
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn two_threads_that_open_a_window_count_each_other() {
        loom::model(|| {
            let counter = Arc::new(SlidingCounter::new(Rate::per_second(3)).unwrap());
            counter.acquire(2, 0).unwrap();
            let other = counter.clone();
            // Half of the two still count, so two more fit.
            let thread = thread::spawn(move || {
                (0..2)
                    .filter(|_| other.acquire(1, 1_500_000_000).is_ok())
                    .count()
            });
            let here = (0..2)
                .filter(|_| counter.acquire(1, 1_500_000_000).is_ok())
                .count();
            assert_eq!(here + thread.join().unwrap(), 2);
        });
    }
}
