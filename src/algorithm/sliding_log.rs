//! Sliding window as an exact log: at most N in any window, whatever its start.
//!
//! It keeps the time of each of the last N units in a ring. The next unit takes the cell of the
//! oldest, and may do so once that is a whole window old. So N a window holds for *every* window,
//! which is what a contract usually means. A token bucket admits up to twice as many in the window
//! after an idle time. A counter that is reset each window does so around the reset.
//!
//! **Claimed, then published.** A cell is claimed by moving `head` ahead, and published by storing
//! its stamp. Between the two it still has the stamp of the lap before. So each cell names its lap,
//! and an unpublished cell counts as just used: a slow publisher makes others wait, and never
//! over-admits. Others wait only if it is stopped between the two steps for longer than the window,
//! and only until it continues. With windows of a few milliseconds and more threads than cores this
//! happens.
//!
//! **Guarantee.** No window `[t, t + W)` holds more than N admitted units, by the times that
//! callers gave. The reason: of any N + 1 units two share a cell, and the later of the two was
//! admitted at least `W` after the earlier. Times are rounded to a microsecond, to the strict side.
//! For windows from 8 ms on the unit is 2 microseconds, and from 16 ms on 4: a thousandth of the
//! window at most. Times last 142 years. After that time stands still, and all calls are rejected
//! once the window is full. After the limit was lowered, calls that race may be off by the
//! difference of their clocks.
//!
//! **Refunds and debts.** Units are alike, so a refund removes the *oldest* in the window: the
//! remaining units are never older than those really used. A charge overwrites the oldest units
//! with the present. The ring holds N, so a debt above N is forgotten.
//!
//! **Cost.** For n units 2n + 5 loads, one compare-and-swap for the claim and one for each unit. A
//! rejection writes nothing. After the limit was lowered, one call loads as many cells as it was
//! lowered by, and then each call writes one word more. 8 bytes for each of N.

use std::{ops::Range, time::Duration};

use crate::{
    algorithm::{
        Limit, OverLimit, Rate,
        epoch::Epoch,
        sliding::{MAX_COUNT, changed_count, count_of, window_of},
    },
    config::ConfigError,
    sync::{AtomicU32, AtomicU64, Ordering},
};

#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A limit on any window, exactly. Starts empty.
///
/// ```
/// use tower_keep::algorithm::{Limit, Rate, SlidingLog};
///
/// let log = SlidingLog::new(Rate::per_second(2))?;
/// let at = |millis: u64| log.acquire(1, millis * 1_000_000).is_ok();
/// assert!(at(0) && at(900));
/// assert!(at(1000) && !at(1001), "the first has left the window, the second has not");
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct SlidingLog {
    /// `lap:12 | stamp:52`: the lap in which the cell was last published, counted from 1, and the
    /// time plus 1, in units of time, or 0 for never. The lap tells by itself whether a word
    /// counts: an older value than the newest reads as unpublished. So all accesses are Relaxed.
    cells: Box<[AtomicU64]>,
    /// Units ever claimed. The next takes cell `head % N` in lap `head / N + 1`. Relaxed: the cells
    /// need no order.
    head: AtomicU64,
    /// The number of cells that may be in use. Relaxed: an admission that races a change uses one
    /// of the two limits.
    limit: AtomicU32,
    /// The position up to which the cells that a lowered limit does not use were seen to be free.
    /// Relaxed: a free cell stays free until `head` has passed it, and a claim fails if `head`
    /// moves.
    unused_to: AtomicU64,
    /// The time before which nothing is admitted, in units. Relaxed: it publishes nothing else.
    closed: AtomicU64,
    /// The length of the window, in units, rounded up.
    window: u64,
    /// The size of a unit of time: [`FINEST`] times 2 to the power of this, in nanoseconds.
    shift: u32,
    per: Duration,
    epoch: Epoch,
}

impl SlidingLog {
    /// Creates a limit of at most `rate.count()` units in any window of `rate.per()`.
    ///
    /// # Errors
    /// A count of 0 or above 16 million. A window below a millisecond or above a year.
    pub fn new(rate: Rate) -> Result<Self, ConfigError> {
        let count = count_of(rate, MAX_COUNT)?;
        let window = window_of(rate)?;
        let shift = shift_of(window);
        Ok(Self {
            cells: (0..count).map(|_| AtomicU64::new(0)).collect(),
            head: AtomicU64::new(0),
            limit: AtomicU32::new(count),
            unused_to: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            window: window.div_ceil(FINEST << shift),
            shift,
            per: rate.per(),
            epoch: Epoch::unset(),
        })
    }

    fn claim(&self, cost: u32, now: u64) -> Result<u64, u64> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let earliest = self.earliest(head, cost, self.moment(now));
            let found = if earliest > self.moment(now) {
                // Cells of a newer lap read as unpublished. So a rejection holds only for the head
                // at which the cells were read.
                match self.head.load(Ordering::Relaxed) {
                    current if current == head => return Err(earliest),
                    current => current,
                }
            } else {
                match self.head.compare_exchange(
                    head,
                    head + u64::from(cost),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(claimed) => return Ok(claimed),
                    // The loser lost to an admission, and reads the cells that are left.
                    Err(current) => current,
                }
            };
            head = found;
        }
    }

    /// Stamps the claimed cells. A charge may have claimed a cell anew before its last claimant
    /// published. Then the newer lap stays, or the cell would read as unpublished forever. A later
    /// stamp stays too: a charge with an older time may find one.
    fn publish(&self, head: u64, cost: u32, now: u64) {
        let stamp = self.stamp(now);
        for position in head..head + u64::from(cost) {
            let lap = self.lap(position);
            let _ =
                self.cell(position)
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                        let newer = lap.wrapping_sub(lap_of(word)) & LAPS > LAPS / 2;
                        (!newer).then_some(lap << STAMP_BITS | stamp.max(word & STAMPS))
                    });
        }
    }

    /// Returns from when `cost` units fit, in units of time, if the head does not move. It reads
    /// all their cells, because threads that read the clock earlier but claimed later leave stamps
    /// slightly out of order. Cells that a lowered limit does not use must be free too. Those that
    /// were seen to be free are skipped.
    fn earliest(&self, head: u64, cost: u32, now: u64) -> u64 {
        let closed = self.closed.load(Ordering::Relaxed);
        let used = head + self.unused();
        let seen = self.unused_to.load(Ordering::Relaxed);
        let unused = self.leave(seen.clamp(head, used)..used, now);
        if unused > now {
            return unused.max(closed);
        }
        if used > head {
            self.unused_to.fetch_max(used, Ordering::Relaxed);
        }
        self.leave(used..used + u64::from(cost), now).max(closed)
    }

    /// Returns when all units in the way of these positions have left.
    fn leave(&self, positions: Range<u64>, now: u64) -> u64 {
        positions
            .map(|position| self.leaves(position, now))
            .fold(0, u64::max)
    }

    /// Returns when the unit in the way of the one at `position` leaves the window.
    fn leaves(&self, position: u64, now: u64) -> u64 {
        let word = self.cell(position).load(Ordering::Relaxed);
        match word & STAMPS {
            // Claimed a lap ago and not published yet: it may have been used just now.
            _ if lap_of(word) != self.lap(position).wrapping_sub(1) & LAPS => now + self.window,
            0 => 0,
            stamp => stamp - 1 + self.window,
        }
    }

    /// Returns how many of the oldest cells are free. Their stamps are in order, except where
    /// threads overtook each other.
    fn free(&self, head: u64, now: u64) -> u64 {
        let (mut low, mut high) = (0, self.size());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.leaves(head + middle, now) <= now {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn unused(&self) -> u64 {
        self.size() - u64::from(self.limit.load(Ordering::Relaxed))
    }

    /// Returns the lap of a position. Laps wrap. No publisher is 2048 laps late, because each lap
    /// takes a window, or a debt of all its units.
    fn lap(&self, position: u64) -> u64 {
        (position / self.size() + 1) & LAPS
    }

    /// Converts a moment to units of time, up to the last that leaves room for a window after it.
    fn moment(&self, now: u64) -> u64 {
        ((now >> self.shift) / FINEST).min(STAMPS - self.window - 2)
    }

    /// Converts a moment to units of time, rounded up, plus 1, because 0 is never.
    fn stamp(&self, now: u64) -> u64 {
        let last = STAMPS - self.window - 1;
        self.units(now).saturating_add(1).min(last)
    }

    /// Converts nanoseconds to units of time, rounded up.
    fn units(&self, nanos: u64) -> u64 {
        (nanos.saturating_add((FINEST << self.shift) - 1) >> self.shift) / FINEST
    }

    /// Converts units of time to nanoseconds.
    fn nanos(&self, units: u64) -> u64 {
        units.saturating_mul(FINEST << self.shift)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "below the length, which is a usize"
    )]
    fn cell(&self, position: u64) -> &AtomicU64 {
        &self.cells[(position % self.size()) as usize]
    }

    fn size(&self) -> u64 {
        self.cells.len() as u64
    }
}

impl Limit for SlidingLog {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        if cost == 0 {
            return Ok(());
        }
        if cost > self.burst() {
            return Err(OverLimit::CostAboveBurst);
        }
        match self.claim(cost, now) {
            Ok(head) => {
                self.publish(head, cost, now);
                Ok(())
            }
            Err(earliest) => Err(OverLimit::until(self.nanos(earliest).saturating_sub(now))),
        }
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        let (head, limit) = (self.head.load(Ordering::Relaxed), u64::from(self.burst()));
        let moment = self.moment(now);
        let (laps, rest) = (
            units.saturating_sub(1) / limit,
            units.min((units.max(1) - 1) % limit + 1),
        );
        let last = (self.unused() + rest)
            .checked_sub(1)
            .map_or(0, |last| self.leaves(head + last, moment));
        let first = last.max(moment);
        // A whole window's worth of units ahead of it leaves a window later, at the earliest.
        let turn = first
            .max(self.closed.load(Ordering::Relaxed))
            .saturating_add(laps.saturating_mul(self.window));
        Duration::from_nanos(self.nanos(turn).saturating_sub(now))
    }

    fn refund(&self, cost: u32, now: u64) {
        let head = self.head.load(Ordering::Relaxed);
        let oldest = head + self.free(head, self.moment(now));
        for position in (oldest..head + self.size()).take(cost as usize) {
            let lap = (self.lap(position).wrapping_sub(1) & LAPS) << STAMP_BITS;
            // A publisher was faster, or the cell is unpublished or newer. This refund is lost,
            // which errs towards admitting less.
            let _ =
                self.cell(position)
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                        (word & !STAMPS == lap && word & STAMPS <= self.stamp(now)).then_some(lap)
                    });
        }
    }

    fn charge(&self, cost: u32, now: u64) {
        #[expect(clippy::cast_possible_truncation, reason = "at most 24 bits")]
        let cost = cost.min(self.size() as u32);
        self.publish(
            self.head.fetch_add(u64::from(cost), Ordering::Relaxed),
            cost,
            now,
        );
    }

    fn close_until(&self, until: u64, _: u64) {
        self.closed.fetch_max(self.units(until), Ordering::Relaxed);
    }

    /// Clears all stamps. Units that are claimed and not published yet stay counted.
    fn reset(&self, _: u64) {
        for cell in &self.cells {
            // Relaxed, as all accesses of a cell: without a stamp it is free, in any lap.
            cell.fetch_and(!STAMPS, Ordering::Relaxed);
        }
        self.closed.store(0, Ordering::Relaxed);
    }

    fn available(&self, now: u64) -> u32 {
        let now = self.moment(now);
        if self.closed.load(Ordering::Relaxed) > now {
            return 0;
        }
        let free = self
            .free(self.head.load(Ordering::Relaxed), now)
            .saturating_sub(self.unused());
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    fn burst(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    fn refund_lag(&self) -> Duration {
        self.per
    }

    /// Returns whether every cell is free, which reads them all.
    fn is_fresh(&self, now: u64) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        self.earliest(head, self.burst(), self.moment(now)) <= self.moment(now)
    }

    fn begin(&self, at: u64) -> u64 {
        self.epoch.begin(at)
    }

    fn rate(&self) -> Rate {
        Rate::new(u64::from(self.burst()), self.per)
    }

    /// Changes the count. It may not exceed the count with which the log was created, which has no
    /// cells for more.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        let most = u32::try_from(self.size()).unwrap_or(MAX_COUNT);
        let count = changed_count(rate, burst, window_of(Rate::new(1, self.per))?, most)?;
        self.limit.store(count, Ordering::Relaxed);
        Ok(())
    }
}

fn lap_of(word: u64) -> u64 {
    word >> STAMP_BITS
}

/// Returns the size of a unit for a window of so many nanoseconds. It is so fine that rounding
/// costs at most a thousandth, and so coarse that stamps last for a century.
fn shift_of(window: u64) -> u32 {
    (window / SHORTEST).max(1).ilog2().clamp(2, 4)
}

/// The finest unit, in nanoseconds. Round windows are a whole number of it.
const FINEST: u64 = 250;
/// The shortest window, in nanoseconds.
const SHORTEST: u64 = 1_000_000;
const STAMP_BITS: u32 = 52;
const STAMPS: u64 = (1 << STAMP_BITS) - 1;
const LAPS: u64 = (1 << (u64::BITS - STAMP_BITS)) - 1;

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    const UNIT: u64 = 4000;

    #[test]
    fn an_unpublished_cell_is_not_used_twice_in_a_window() {
        loom::model(|| {
            let log = Arc::new(SlidingLog::new(Rate::per_second(2)).unwrap());
            let other = log.clone();
            let thread =
                thread::spawn(move || (0..2).filter(|_| other.acquire(1, UNIT).is_ok()).count());
            let here = (0..2).filter(|_| log.acquire(1, UNIT).is_ok()).count();
            assert_eq!(here + thread.join().unwrap(), 2);
        });
    }

    #[test]
    fn a_charge_that_overtakes_a_publisher_closes_no_log() {
        loom::model(|| {
            let log = Arc::new(SlidingLog::new(Rate::per_second(1)).unwrap());
            let other = log.clone();
            let thread = thread::spawn(move || other.charge(1, UNIT));
            let _ = log.acquire(1, UNIT);
            thread.join().unwrap();
            assert!(log.acquire(1, UNIT).is_err());
            assert!(log.acquire(1, 500_000 * UNIT).is_ok());
        });
    }
}
