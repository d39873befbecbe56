//! Leaky bucket: calls leave evenly spaced, in the order in which they came.
//!
//! It is a shaper. A call does not ask whether it may go but *when*: it reserves a departure time and goes then, so
//! nobody polls, and the order of reservation is the order of departure. The queue is nothing but the time that has
//! been given away, hence one word; it is as long as callers are ready to wait.
//!
//! Why not a token bucket with a burst of 1? It has the same rate but must be asked at the right moment: each wait that
//! ends a little late pushes all later ones back. Here `slack` makes up for that: after being late by at most so much,
//! the next may leave so much earlier.
//!
//! **Guarantee.** Any span `W` holds at most `1 + (W + slack) / T` departures of cost 1, those counted as of their turn that
//! have waited for it as a [`Limit`] and were woken late by at most [`TIMER_TICK`]. A call of cost `n` leaves when
//! its turn comes, and the next `n` intervals after it. **Cost.** A load and a compare-and-swap; refused: no write.
//!
//! **Cancelling.** The last reservation is given back exactly. One in the middle is not: moving the end of the queue back by
//! its length would keep the long-run rate, but let a newcomer leave together with one who is already waiting, and a
//! shaper that bunches is none. Who needs every slot back waits in a queue instead and acquires when its turn comes,
//! as the rate-limit layer does.

use std::time::Duration;

use crate::{
    algorithm::{
        Denied, Limit, Rate, TIMER_TICK,
        token_bucket::quota::{MAX_AHEAD, Quota, UNITS_PER_NANO},
    },
    config::ConfigError,
    sync::{AtomicU64, Ordering},
};

/// A limit on a rate without bursts: it spaces calls out. Starts idle. 24 bytes.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::algorithm::{LeakyBucket, Rate};
///
/// let shaper = LeakyBucket::new(Rate::per_second(10), Duration::ZERO)?;
/// let now = 0;
/// let waits = [(); 3].map(|()| shaper.reserve(1, Duration::from_secs(1), now).unwrap().wait);
/// assert_eq!(waits.map(|wait| wait.as_millis()), [0, 100, 200]);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct LeakyBucket {
    /// Its burst is always 1.
    quota: Quota,
    /// When the next call may leave, in 128ths of a nanosecond since the caller's start, modulo 2^64. Nothing else is
    /// published through it, so all accesses are Relaxed: the single word's order of modification is the order of
    /// departure.
    next: AtomicU64,
    /// In the same unit.
    slack: u64,
}

/// A reserved time of departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the slot is taken: leave at its time, or cancel it"]
pub struct Departure {
    /// How long to wait, from the `now` of the reservation.
    pub wait: Duration,
    start: u64,
    end: u64,
}

impl LeakyBucket {
    /// One call each `1 / rate`; after a departure that was late by at most `slack`, the next makes up for it.
    ///
    /// # Errors
    /// A rate of nothing, over nothing, above 128 a nanosecond or below one a year; a slack above an hour.
    pub fn new(rate: Rate, slack: Duration) -> Result<Self, ConfigError> {
        let slack = crate::config::nanos_within(
            "slack",
            slack,
            Duration::ZERO..=Duration::from_secs(3600),
            "use what your timers are late by, such as 1ms",
        )?;
        Ok(Self { quota: Quota::new(rate, 1)?, next: AtomicU64::new(0), slack: slack * UNITS_PER_NANO })
    }

    /// Reserves the next departure, if that is at most `longest` away.
    ///
    /// # Errors
    /// [`Denied`]: nothing was reserved, and the queue is as short as asked after that wait.
    pub fn reserve(&self, cost: u32, longest: Duration, now: u64) -> Result<Departure, Denied> {
        self.reserve_with(self.slack, cost, longest, now)
    }

    fn reserve_with(&self, slack: u64, cost: u32, longest: Duration, now: u64) -> Result<Departure, Denied> {
        let length = u64::from(cost).checked_mul(self.quota.pace().interval).filter(|length| *length <= MAX_AHEAD);
        let length = length.ok_or(Denied::CostAboveBurst)?;
        let longest = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        let now = now.wrapping_mul(UNITS_PER_NANO);
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let behind = now.wrapping_sub(next);
            let (start, wait) = if signed_is_past(behind) {
                (now.wrapping_sub(behind.min(slack)), 0)
            } else {
                (next, next.wrapping_sub(now).div_ceil(UNITS_PER_NANO))
            };
            if wait > longest || wait > MAX_AHEAD / UNITS_PER_NANO {
                return Err(Denied::until(wait - longest.min(wait)));
            }
            let end = start.wrapping_add(length);
            match self.next.compare_exchange_weak(next, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Departure { wait: Duration::from_nanos(wait), start, end }),
                // Another has reserved first and leaves first; the loser reserves behind it.
                Err(current) => next = current,
            }
        }
    }

    /// Gives a reservation back. Returns whether its slot will be used again: it will if it was the last.
    pub fn cancel(&self, departure: Departure) -> bool {
        // The loser of this exchange has somebody behind it; its slot stays empty. That errs towards a lower rate.
        self.next.compare_exchange(departure.end, departure.start, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// How long until the next departure, in 128ths of a nanosecond.
    fn ahead(&self, now: u64) -> u64 {
        let ahead = self.next.load(Ordering::Relaxed).wrapping_sub(now.wrapping_mul(UNITS_PER_NANO));
        if ahead > u64::MAX / 2 { 0 } else { ahead }
    }

    /// Moves the next departure, in one step, unless it stays; the loser moves what the winner left.
    fn shift(&self, now: u64, new: impl Fn(u64) -> u64) {
        let scaled = now.wrapping_mul(UNITS_PER_NANO);
        let _ = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let ahead = if signed_is_past(scaled.wrapping_sub(next)) { 0 } else { next.wrapping_sub(scaled) };
            let shifted = new(ahead).min(MAX_AHEAD);
            (shifted != ahead).then(|| scaled.wrapping_add(shifted))
        });
    }
}

impl Limit for LeakyBucket {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), Denied> {
        self.reserve(cost, Duration::ZERO, now).map(|_| ())
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), Denied> {
        let late = now.saturating_sub(due).min(TIMER_TICK) * UNITS_PER_NANO;
        self.reserve_with(self.slack.max(late), cost, Duration::ZERO, now).map(|_| ())
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        let before = units.saturating_sub(1).saturating_mul(self.quota.pace().interval);
        Duration::from_nanos(self.ahead(now).saturating_add(before).div_ceil(UNITS_PER_NANO))
    }

    /// A call leaves at the beginning of its time, whatever it costs.
    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        self.wait(before.saturating_add(u64::from(cost > 0)), now)
    }

    fn refund(&self, cost: u32, now: u64) {
        let length = u64::from(cost).saturating_mul(self.quota.pace().interval);
        self.shift(now, |ahead| ahead.saturating_sub(length));
    }

    fn charge(&self, cost: u32, now: u64) {
        let length = u64::from(cost).saturating_mul(self.quota.pace().interval);
        self.shift(now, |ahead| ahead.saturating_add(length));
    }

    fn close_until(&self, until: u64, now: u64) {
        let closed = until.saturating_sub(now).saturating_mul(UNITS_PER_NANO);
        self.shift(now, |ahead| ahead.max(closed));
    }

    fn available(&self, now: u64) -> u32 {
        u32::from(self.ahead(now) == 0)
    }

    fn burst(&self) -> u32 {
        1
    }

    fn largest_cost(&self) -> u32 {
        u32::try_from(MAX_AHEAD / self.quota.pace().interval).unwrap_or(u32::MAX)
    }

    fn rate(&self) -> Rate {
        self.quota.pace().rate()
    }

    /// Idle for at least its slack: before that, a new one could make up for more.
    fn is_as_new(&self, now: u64) -> bool {
        let behind = now.wrapping_mul(UNITS_PER_NANO).wrapping_sub(self.next.load(Ordering::Relaxed));
        signed_is_past(behind) && behind >= self.slack
    }

    /// Changes the rate. The burst of a leaky bucket is always 1.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        if burst != 1 {
            return Err(ConfigError::new("burst", burst, "a leaky bucket has a burst of 1; use a token bucket for more"));
        }
        self.quota.update(rate, 1)
    }
}

/// Whether a wrapping difference `now - then` says that `then` is not after `now`.
fn signed_is_past(difference: u64) -> bool {
    difference <= u64::MAX / 2
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLI;

    fn ten_a_second() -> LeakyBucket {
        LeakyBucket::new(Rate::per_second(10), Duration::ZERO).unwrap()
    }

    fn millis(departure: Result<Departure, Denied>) -> u128 {
        departure.unwrap().wait.as_millis()
    }

    #[test]
    fn calls_leave_evenly_spaced_in_order_of_arrival() {
        let shaper = ten_a_second();
        let longest = Duration::from_secs(1);
        assert_eq!([(); 3].map(|()| millis(shaper.reserve(1, longest, 0))), [0, 100, 200]);
        assert_eq!(millis(shaper.reserve(1, longest, 50 * MILLI)), 250);
    }

    #[test]
    fn an_idle_time_saves_nothing_up() {
        let shaper = ten_a_second();
        assert_eq!([(); 2].map(|()| millis(shaper.reserve(1, Duration::MAX, 60 * SECOND))), [0, 100]);
    }

    #[test]
    fn a_departure_too_far_away_is_refused_and_reserves_nothing() {
        let shaper = LeakyBucket::new(Rate::per_minute(1), Duration::ZERO).unwrap();
        let longest = Duration::from_millis(100);
        assert_eq!(millis(shaper.reserve(1, longest, 0)), 0);
        let wait = Duration::from_millis(59_900);
        assert_eq!(shaper.reserve(1, longest, 0), Err(Denied::Until { wait }));
        assert_eq!(millis(shaper.reserve(1, longest, 59_900 * MILLI)), 100);
    }

    #[test]
    fn a_costly_call_leaves_at_its_turn_and_the_next_waits_for_all_of_it() {
        let shaper = ten_a_second();
        assert_eq!(millis(shaper.reserve(5, Duration::MAX, 0)), 0);
        assert_eq!(millis(shaper.reserve(1, Duration::MAX, 0)), 500);
    }

    #[test]
    fn the_last_reservation_is_given_back_and_one_in_the_middle_bunches_nobody() {
        // given
        let shaper = ten_a_second();
        let [_, middle, last] = [(); 3].map(|()| shaper.reserve(1, Duration::MAX, 0).unwrap());
        // when
        assert!(!shaper.cancel(middle));
        // then
        assert_eq!(millis(shaper.reserve(1, Duration::MAX, 0)), 300);
        assert!(!shaper.cancel(last));
        let newest = shaper.reserve(1, Duration::MAX, 0).unwrap();
        assert!(shaper.cancel(newest));
        assert_eq!(shaper.reserve(1, Duration::MAX, 0), Ok(newest));
    }

    #[test]
    fn slack_makes_up_for_a_late_timer_and_for_no_more() {
        let shaper = LeakyBucket::new(Rate::per_second(1000), Duration::from_millis(1)).unwrap();
        assert!(shaper.acquire(1, 10 * MILLI).is_ok());
        // After an idle time one more may leave at once, and then one each millisecond.
        assert!(shaper.acquire(1, 10 * MILLI).is_ok());
        assert!(shaper.acquire(1, 10 * MILLI).is_err());
        for late in 1..100 {
            assert!(shaper.acquire(1, (10 + late) * MILLI + MILLI / 2).is_ok());
        }
    }

    #[test]
    fn a_closed_shaper_opens_at_its_time() {
        let shaper = ten_a_second();
        shaper.close_until(2 * SECOND, SECOND);
        assert_eq!(shaper.acquire(1, SECOND), Err(Denied::Until { wait: Duration::from_secs(1) }));
        assert!(shaper.acquire(1, 2 * SECOND).is_ok());
    }

    #[test]
    fn refuses_settings_that_cannot_work() {
        assert_eq!(LeakyBucket::new(Rate::per_second(0), Duration::ZERO).unwrap_err().field, "rate");
        assert_eq!(LeakyBucket::new(Rate::per_second(1), Duration::MAX).unwrap_err().field, "slack");
        assert_eq!(ten_a_second().update(Rate::per_second(1), 2).unwrap_err().field, "burst");
        let slow = LeakyBucket::new(Rate::new(1, Duration::from_secs(400 * 86_400)), Duration::ZERO).unwrap();
        assert_eq!(slow.reserve(2, Duration::MAX, 0), Err(Denied::CostAboveBurst));
    }

    #[test]
    fn a_waiter_woken_late_leaves_as_of_its_turn_but_by_no_more_than_a_tick() {
        let shaper = LeakyBucket::new(Rate::per_second(10_000), Duration::ZERO).unwrap();
        let late = |due, now| (0..100).filter(|_| shaper.acquire_late(1, due, now).is_ok()).count();
        assert!(shaper.acquire(1, 0).is_ok());
        // All that could have left within the last tick; who comes now saves nothing up.
        assert_eq!(late(0, 5 * MILLI), 21);
        assert_eq!((late(5 * MILLI, 5 * MILLI), late(9 * MILLI, 8 * MILLI)), (0, 1));
    }

    #[test]
    fn it_is_as_new_only_when_its_slack_has_passed_too() {
        let shaper = LeakyBucket::new(Rate::per_second(10), Duration::from_millis(50)).unwrap();
        assert!(shaper.reserve(1, Duration::ZERO, SECOND).is_ok());
        let departed = |millis| shaper.is_as_new(SECOND + millis * MILLI);
        // It left as if 50 ms ago, so the next may leave after 50 ms, and the slack is whole after 50 more.
        assert!(!departed(0) && !departed(99) && departed(100));
    }

    proptest! {
        #[test]
        fn departs_as_a_plain_queue_does(
            steps in prop::collection::vec((0u64..SECOND / 2, 0u32..5, 0u64..3000, any::<bool>()), 1..200),
        ) {
            let shaper = ten_a_second();
            let (mut now, mut free) = (0, 0);
            for (elapsed, cost, longest, cancelled) in steps {
                now += elapsed;
                let (start, before) = (free.max(now), free);
                let reserved = shaper.reserve(cost, Duration::from_millis(longest), now);
                prop_assert_eq!(reserved.is_ok(), start - now <= longest * MILLI);
                let Ok(departure) = reserved else { continue };
                prop_assert_eq!(departure.wait, Duration::from_nanos(start - now));
                free = start + u64::from(cost) * 100 * MILLI;
                if cancelled {
                    prop_assert!(shaper.cancel(departure));
                    free = if start == now { now } else { before };
                }
            }
        }

        #[test]
        fn keeps_the_books_through_refunds_charges_and_old_times(
            steps in prop::collection::vec((0u8..6, 0u32..5, -(300 * MILLI as i64)..500 * MILLI as i64, 0u64..1000), 1..200),
        ) {
            let shaper = ten_a_second();
            let (mut now, mut free) = (SECOND, 0u64);
            for (step, cost, elapsed, longest) in steps {
                now = now.saturating_add_signed(elapsed);
                let length = u64::from(cost) * 100 * MILLI;
                match step {
                    0 => {
                        shaper.refund(cost, now);
                        free = if free > now { now.max(free.saturating_sub(length)) } else { free };
                    }
                    1 => {
                        shaper.charge(cost, now);
                        free = if length > 0 { free.max(now) + length } else { free };
                    }
                    2 => {
                        let until = now + longest * MILLI;
                        shaper.close_until(until, now);
                        free = if until > now { free.max(until) } else { free };
                    }
                    _ => {
                        let wait = free.max(now) - now;
                        let reserved = shaper.reserve(cost, Duration::from_millis(longest), now).map(|departure| departure.wait);
                        if wait <= longest * MILLI {
                            prop_assert_eq!(reserved, Ok(Duration::from_nanos(wait)));
                            free = now + wait + length;
                        } else {
                            prop_assert_eq!(reserved, Err(Denied::until(wait - longest * MILLI)));
                        }
                    }
                }
            }
        }

        #[test]
        fn no_two_departures_are_closer_than_the_interval_even_if_the_clock_goes_back(
            steps in prop::collection::vec(-(300 * MILLI as i64)..300 * MILLI as i64, 1..100),
        ) {
            let shaper = ten_a_second();
            let (mut now, mut last) = (SECOND, None);
            for step in steps {
                now = now.saturating_add_signed(step);
                let departure = now + u64::try_from(shaper.reserve(1, Duration::MAX, now).unwrap().wait.as_nanos()).unwrap();
                prop_assert!(last.is_none_or(|last| departure >= last + 100 * MILLI));
                last = Some(departure);
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn two_never_leave_at_once_and_a_cancelled_slot_is_used_again_or_left_empty() {
        loom::model(|| {
            let shaper = Arc::new(LeakyBucket::new(Rate::per_second(1), Duration::ZERO).unwrap());
            let other = shaper.clone();
            let thread = thread::spawn(move || {
                let departure = other.reserve(1, Duration::MAX, 0).unwrap();
                other.cancel(departure)
            });
            let here = shaper.reserve(1, Duration::MAX, 0).unwrap();
            let given_back = thread.join().unwrap();
            let next = shaper.reserve(1, Duration::MAX, 0).unwrap();
            assert!(next.wait >= here.wait + Duration::from_secs(1));
            assert!(!given_back || next.wait == here.wait + Duration::from_secs(1));
        });
    }
}
