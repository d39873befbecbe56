//! Sliding window as an exact log: at most N in any window, whatever its start.
//!
//! It remembers the time of each of the last N units in a ring. The next unit takes the place of
//! the oldest, and may do so once that is a whole window old. So N a window holds for *every*
//! window, which is what a contract usually means; a token bucket admits up to twice as many in the
//! window after an idle time, and a counter that is reset each window does so around the reset.
//!
//! **Claimed, then published.** A cell is claimed by moving `head` on, and published by storing its
//! stamp. Between the two it still bears the stamp of the lap before. So each cell says which lap
//! it is of, and an unpublished cell counts as just used: a slow publisher makes others wait, never
//! over-admits. It does so only if it is stopped between the two for longer than the window, and
//! for no longer than that: with windows of a few milliseconds on a machine with more threads than
//! cores this happens.
//!
//! **Guarantee.** No window `[t, t + W)` holds more than N admitted units, by the times that
//! callers gave: of any N + 1 units two share a cell, and the later of the two was admitted at
//! least `W` after the earlier. Times are rounded to a microsecond, to the strict side, and for
//! windows from 8 ms on to twice that with each doubling, up to 4 microseconds: a thousandth of the
//! window at most. They last 142 years; then time stands still, and all is rejected once the window
//! is full. After the limit was lowered, calls that race may be off by what their clocks differ by.
//!
//! **Refunds and debts.** Units are alike, so a refund forgets the *oldest* in the window: what
//! stays is never older than what was really used. A charge overwrites the oldest with the present;
//! the ring holds N, so a debt above N is forgotten. **Cost.** For n units n + 5 loads, one
//! compare-and-swap for the claim and one for each unit; rejected: no write. After the limit was
//! lowered, once as many loads as it was lowered by, and then one write more a call. 8 bytes for
//! each of N.

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
    /// `lap:12 | stamp:52`: the lap in which it was last published, counted from 1, and when, in
    /// units of time and 1, 0 for never. The lap says of each word by itself what it is worth,
    /// whatever else has been seen: an older value than the newest reads as unpublished. So all
    /// accesses are Relaxed.
    cells: Box<[AtomicU64]>,
    /// Units ever claimed. The next takes cell `head % N` in lap `head / N + 1`. Relaxed: the cells
    /// need no order.
    head: AtomicU64,
    /// How many of the cells may be in use. Relaxed: an admission that races a change obeys one of
    /// the two limits.
    limit: AtomicU32,
    /// Up to which position the cells that a lowered limit does not use were seen to be free.
    /// Relaxed: a free cell stays free until `head` has passed it, and a claim fails if that moves.
    unused_to: AtomicU64,
    /// In units: nothing before this. Relaxed: it publishes nothing else.
    closed: AtomicU64,
    /// In units, rounded up.
    window: u64,
    /// A unit of time is [`FINEST`] times 2 to the power of this, in nanoseconds.
    shift: u32,
    per: Duration,
    epoch: Epoch,
}

impl SlidingLog {
    /// At most `rate.count()` units in any window of `rate.per()`.
    ///
    /// # Errors
    /// A count of 0 or above 16 million; a window below a millisecond or above a year.
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
                // Cells of a newer lap read as unpublished; they deny only under the head that they
                // were read for.
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
                    // The loser has lost to an admission and looks at the cells that are left.
                    Err(current) => current,
                }
            };
            head = found;
        }
    }

    /// Stamps what was claimed. A charge may have claimed a cell anew before its last claimant came
    /// to publish: the newer lap stays, or the cell would read as unpublished forever. So does the
    /// later stamp, which a charge may find that comes with an older time.
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

    /// From when `cost` units fit, in units of time, if the head is where it is. All their cells
    /// are looked at: threads that read the clock before others and claimed after them leave stamps
    /// slightly out of order. Cells that a lowered limit does not use must be free too, of which
    /// those that were seen to be are skipped.
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

    /// When all that is in the way of these positions has left.
    fn leave(&self, positions: Range<u64>, now: u64) -> u64 {
        positions
            .map(|position| self.leaves(position, now))
            .fold(0, u64::max)
    }

    /// When the unit that is in the way of the one at `position` leaves the window.
    fn leaves(&self, position: u64, now: u64) -> u64 {
        let word = self.cell(position).load(Ordering::Relaxed);
        match word & STAMPS {
            // Claimed a lap ago and not published yet: used just now, for all that is known.
            _ if lap_of(word) != self.lap(position).wrapping_sub(1) & LAPS => now + self.window,
            0 => 0,
            stamp => stamp - 1 + self.window,
        }
    }

    /// How many of the oldest cells are free. They are in order, but for what threads have
    /// overtaken each other by.
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

    /// Wraps: no publisher is 2048 laps late. Each takes a window, or a debt of all its units.
    fn lap(&self, position: u64) -> u64 {
        (position / self.size() + 1) & LAPS
    }

    /// In units of time, up to the last that has room for a window after it.
    fn moment(&self, now: u64) -> u64 {
        ((now >> self.shift) / FINEST).min(STAMPS - self.window - 2)
    }

    /// In units of time and 1, rounded up; 0 is never.
    fn stamp(&self, now: u64) -> u64 {
        let last = STAMPS - self.window - 1;
        self.units(now).saturating_add(1).min(last)
    }

    /// In units of time, rounded up.
    fn units(&self, nanos: u64) -> u64 {
        (nanos.saturating_add((FINEST << self.shift) - 1) >> self.shift) / FINEST
    }

    /// Of units of time.
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
        // A whole window's worth that waits before it leaves, at the earliest, a window later.
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
            // Lost to a publisher, not yet published, or newer: that refund is lost, which errs
            // towards admitting less.
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

    /// Units that are claimed and not published yet stay counted.
    fn reset(&self, _: u64) {
        for cell in &self.cells {
            // Relaxed, as all accesses of a cell: without a stamp it is free, in whatever lap.
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

    /// Looks at every cell.
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

    /// Changes the count, which may not grow above that with which the log was made: it has no
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

/// Of the unit for a window of so many nanoseconds: fine enough that rounding costs no more than a
/// thousandth, and coarse enough that stamps last for a century.
fn shift_of(window: u64) -> u32 {
    (window / SHORTEST).max(1).ilog2().clamp(2, 4)
}

/// The finest unit, in nanoseconds: round windows have whole numbers of it.
const FINEST: u64 = 250;
/// Of windows, in nanoseconds.
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
    fn no_cell_is_used_twice_in_a_window_though_its_stamp_is_not_published_yet() {
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
    fn a_charge_that_overtakes_a_publisher_leaves_the_log_open() {
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
