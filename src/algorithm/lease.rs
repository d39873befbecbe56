//! Lease: units that were already counted elsewhere, and are spent here without another round trip.
//!
//! A limit that several processes share is kept in one place. To ask there for each call costs a
//! round trip a call. To count locally and report later admits too much, by all that was not yet
//! reported, and that amount has no bound. So units are *prepaid*: the place that counts them (see
//! [`prepaid`](super::prepaid)) grants some ahead. A lease holds them until a call spends them, or
//! until they end.
//!
//! **Guarantee.** No more units are spent than were [added](Lease::add), and none at or after the
//! moment at which they end, whatever the number of threads. Time that goes back may let a lease
//! live longer, by as much as it went back.
//!
//! **Two cells.** Units of two grants end at different moments. In one word the later grant would
//! have to end with the earlier one, so a process that asks often would lose all its units once in
//! a lease's life. So there are two cells. The cell that ends first is spent first, and so is empty
//! when the next grant arrives. If both still hold units, a grant joins the later cell, and all of
//! that cell ends at the earlier of the two moments: this errs towards spending less. A cell's
//! generation is the moment at which it ends. A spender cannot tell two words with the same moment
//! and the same units apart, and need not.
//!
//! **Cost.** Three loads and one compare-and-swap. A spend that finds too little writes nothing.

use crate::sync::{AtomicU64, Ordering};

/// Units that were granted to this process, with the moment at which they end. Starts empty. 128
/// bytes, in cache lines of its own.
///
/// ```
/// use tower_keep::algorithm::Lease;
///
/// let (lease, ends) = (Lease::new(), 1_000_000_000);
/// lease.add(3, ends, 0);
/// assert!(lease.spend(2, 0) && !lease.spend(2, 0));
/// assert!(lease.spend(1, ends / 2));
/// ```
#[derive(Debug)]
#[repr(align(128))]
pub struct Lease {
    /// `ends:37 | units:27` each, where the end is in ticks of 2^18 ns, which wrap after 417 days.
    /// The words publish nothing else, so all accesses are Relaxed.
    cells: [AtomicU64; 2],
}

/// Units that were taken of a lease, by its cells: how many, and when they end, in ticks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken([(u32, u64); 2]);

impl Lease {
    /// Creates a lease without units.
    #[must_use]
    pub fn new() -> Self {
        Self {
            cells: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    /// Spends `units`, or none. Returns whether there were enough.
    #[inline]
    pub fn spend(&self, units: u32, now: u64) -> bool {
        let tick = tick(now);
        let [first, second] = self.in_order(tick);
        take(first, units, tick).is_some()
            || take(second, units, tick).is_some()
            || self.take_of_both(units, now)
    }

    /// Spends units, or none, and says which, so that they can be [put back](Self::put_back).
    pub(crate) fn take(&self, units: u32, now: u64) -> Option<Taken> {
        let now = tick(now);
        let order = self.in_order(now);
        let mut taken = Taken::default();
        for cell in order.into_iter().filter(|_| units > 0) {
            if let Some(ends) = take(cell, units, now) {
                *taken.of(self, cell) = (units, ends);
                return Some(taken);
            }
        }
        if self.units(now << TICK_BITS) < units {
            return None;
        }
        let mut left = units;
        for cell in order.into_iter().filter(|_| units > 0) {
            let part = take_some(cell, left, now);
            *taken.of(self, cell) = part;
            left -= part.0;
        }
        if left > 0 {
            self.put_back(taken);
            return None;
        }
        Some(taken)
    }

    /// Puts back units that were taken, each to its cell. Units of a cell that was filled anew, or
    /// swept, are lost: another cell would let them live for longer than they were granted for.
    pub(crate) fn put_back(&self, taken: Taken) {
        for (cell, (units, ends)) in self.cells.iter().zip(taken.0) {
            if units > 0 {
                change(cell, |word| {
                    let there = units_of(word).saturating_add(units);
                    (word >> UNIT_BITS == ends).then(|| pack(there, ends))
                });
            }
        }
    }

    /// Adds units that end at `ends`, at most four seconds from `now`. Only one thread may add.
    pub fn add(&self, units: u32, ends: u64, now: u64) {
        let (now, ends) = (tick(now), tick(ends));
        let [first, second] = self.in_order(now);
        let empty = |cell: &&AtomicU64| live(cell.load(Ordering::Relaxed), now) == 0;
        // Only this thread adds, and a refund needs units that are there. Units that are put back
        // may come meanwhile. They end when the cell did, so all of it does then.
        let cell = [first, second].into_iter().find(empty).unwrap_or(second);
        change(cell, |word| {
            let (there, ends) = match live(word, now) {
                0 => (0, ends),
                there => (there, earlier(ends, word >> UNIT_BITS, now)),
            };
            Some(pack(there.saturating_add(units), ends))
        });
    }

    /// Gives units back that were spent and then not used, to the cell that ends first. Returns
    /// whether there was a lease to give them to. If all leases have ended, these units have ended
    /// too.
    pub fn give_back(&self, units: u32, now: u64) -> bool {
        let now = tick(now);
        self.in_order(now).into_iter().any(|cell| {
            change(cell, |word| {
                let there = live(word, now);
                (there > 0).then(|| pack(there.saturating_add(units), word >> UNIT_BITS))
            })
        })
    }

    /// Returns the units that can be spent now.
    #[must_use]
    pub fn units(&self, now: u64) -> u32 {
        let now = tick(now);
        let of = |cell: &AtomicU64| live(cell.load(Ordering::Relaxed), now);
        of(&self.cells[0]).saturating_add(of(&self.cells[1]))
    }

    /// Takes up to `units` units, and returns how many it took.
    pub fn drain(&self, units: u32, now: u64) -> u32 {
        let now = tick(now);
        let mut left = units;
        for cell in self.in_order(now) {
            left -= take_some(cell, left, now).0;
        }
        units - left
    }

    /// Removes the units that have ended, and returns how many were never spent. Call it at least
    /// once a year, because the ends of leases wrap.
    pub fn sweep(&self, now: u64) -> u32 {
        let now = tick(now);
        let mut ended = 0_u32;
        for cell in &self.cells {
            let word = cell.load(Ordering::Relaxed);
            if word == 0 || live(word, now) > 0 {
                continue;
            }
            // The loser leaves the cell to the next sweep.
            if cell
                .compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                ended = ended.saturating_add(units_of(word));
            }
        }
        ended
    }

    /// Returns the two cells, in the order in which they end.
    #[inline]
    fn in_order(&self, now: u64) -> [&AtomicU64; 2] {
        let [one, other] = &self.cells;
        let left = |cell: &AtomicU64| left(cell.load(Ordering::Relaxed) >> UNIT_BITS, now);
        if left(other) < left(one) {
            [other, one]
        } else {
            [one, other]
        }
    }

    /// Takes units of both cells together. If the second part is no longer there, the first goes
    /// back to its cell. If that cell has ended or was refilled meanwhile, its part is lost, which
    /// errs towards spending less.
    #[cold]
    fn take_of_both(&self, units: u32, now: u64) -> bool {
        self.take(units, now).is_some()
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

impl Taken {
    /// The part of a cell.
    fn of(&mut self, lease: &Lease, cell: &AtomicU64) -> &mut (u32, u64) {
        &mut self.0[usize::from(std::ptr::eq(cell, &raw const lease.cells[1]))]
    }
}

/// Takes units of one cell, or none. Returns when they end.
#[inline]
fn take(cell: &AtomicU64, units: u32, now: u64) -> Option<u64> {
    let mut word = cell.load(Ordering::Relaxed);
    // A loser decides again on the units that the winner left.
    while live(word, now) >= units.max(1) {
        let less = word - u64::from(units);
        match cell.compare_exchange_weak(word, less, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(word >> UNIT_BITS),
            Err(current) => word = current,
        }
    }
    None
}

/// Takes at most so many units of one cell. Returns how many, and when they end.
fn take_some(cell: &AtomicU64, most: u32, now: u64) -> (u32, u64) {
    let mut word = cell.load(Ordering::Relaxed);
    loop {
        let units = live(word, now).min(most);
        if units == 0 {
            return (0, 0);
        }
        let less = word - u64::from(units);
        match cell.compare_exchange_weak(word, less, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return (units, word >> UNIT_BITS),
            Err(current) => word = current,
        }
    }
}

/// Replaces a word in one step, or leaves it. Returns whether it was replaced.
fn change(cell: &AtomicU64, new: impl Fn(u64) -> Option<u64>) -> bool {
    let mut word = cell.load(Ordering::Relaxed);
    while let Some(changed) = new(word) {
        match cell.compare_exchange_weak(word, changed, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            // Computed again from what the winner left.
            Err(current) => word = current,
        }
    }
    false
}

/// Returns the units of a word that have not ended.
#[inline]
fn live(word: u64, now: u64) -> u32 {
    if left(word >> UNIT_BITS, now) > 0 {
        units_of(word)
    } else {
        0
    }
}

/// Returns the ticks until an end, or 0 if it has passed. An end that is further away than any
/// lease lives has passed: the ticks have wrapped since.
#[inline]
fn left(ends: u64, now: u64) -> u64 {
    let left = ends.wrapping_sub(now) & END_MASK;
    if left > LONGEST { 0 } else { left }
}

fn earlier(one: u64, other: u64, now: u64) -> u64 {
    if left(other, now) < left(one, now) {
        other
    } else {
        one
    }
}

/// Converts a moment to ticks, rounded down: leases end up to a tick early.
#[inline]
fn tick(moment: u64) -> u64 {
    moment >> TICK_BITS
}

fn pack(units: u32, ends: u64) -> u64 {
    (ends & END_MASK) << UNIT_BITS | u64::from(units.min(MAX_UNITS))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
fn units_of(word: u64) -> u32 {
    word as u32 & MAX_UNITS
}

const UNIT_BITS: u32 = 27;
const MAX_UNITS: u32 = (1 << UNIT_BITS) - 1;
const END_MASK: u64 = (1 << (64 - UNIT_BITS)) - 1;
const TICK_BITS: u32 = 18;
/// The longest life of a lease in ticks: 4.3 seconds.
const LONGEST: u64 = 1 << 14;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 1 << TICK_BITS;

    #[test]
    fn nothing_is_spent_at_or_after_the_end() {
        let lease = Lease::new();
        lease.add(2, 10 * TICK, 0);
        assert!(lease.spend(1, 10 * TICK - 1));
        assert!(!lease.spend(1, 10 * TICK));
        assert_eq!(lease.sweep(10 * TICK), 1);
        assert_eq!(lease.sweep(10 * TICK), 0);
    }

    #[test]
    fn the_lease_that_ends_first_is_spent_first() {
        let lease = Lease::new();
        lease.add(2, 20 * TICK, 0);
        lease.add(2, 10 * TICK, 0);
        assert!(lease.spend(2, 0));
        assert_eq!(lease.units(15 * TICK), 2);
    }

    #[test]
    fn a_dear_call_spends_of_both_cells_or_of_none() {
        let lease = Lease::new();
        lease.add(2, 10 * TICK, 0);
        lease.add(2, 20 * TICK, 0);
        assert!(!lease.spend(5, 0));
        assert_eq!(lease.units(0), 4);
        assert!(lease.spend(3, 0));
        assert_eq!((lease.units(0), lease.units(10 * TICK)), (1, 1));
    }

    #[test]
    fn a_third_grant_ends_with_the_second() {
        let lease = Lease::new();
        for ends in [10, 20, 30] {
            lease.add(1, ends * TICK, 0);
        }
        assert_eq!(lease.units(10 * TICK), 2);
        assert_eq!(lease.units(20 * TICK), 0);
    }

    #[test]
    fn a_refund_needs_a_lease_that_lives() {
        let lease = Lease::new();
        assert!(!lease.give_back(1, 0));
        lease.add(2, 10 * TICK, 0);
        assert!(lease.spend(1, 0) && lease.give_back(1, 0));
        assert_eq!(lease.units(0), 2);
        assert!(!lease.give_back(1, 10 * TICK));
    }

    #[test]
    fn what_is_put_back_ends_when_it_did() {
        let lease = Lease::new();
        lease.add(2, 10 * TICK, 0);
        lease.add(2, 20 * TICK, 0);
        let taken = lease.take(3, 0).unwrap();
        assert!(lease.take(2, 0).is_none());
        lease.put_back(taken);
        assert_eq!((lease.units(0), lease.units(10 * TICK)), (4, 2));
        // when the cell was filled anew meanwhile
        let taken = lease.take(2, 0).unwrap();
        lease.add(5, 30 * TICK, 0);
        lease.put_back(taken);
        assert_eq!(
            (lease.units(0), lease.units(10 * TICK)),
            (7, 7),
            "they are lost"
        );
    }

    #[test]
    fn an_old_lease_stays_ended_when_ticks_wrap() {
        let (lease, year) = (Lease::new(), 365 * 24 * 3600 * 1_000_000_000_u64);
        lease.add(1, 10 * TICK, 0);
        assert_eq!(lease.units(year), 0);
        lease.add(3, year + 4 * TICK, year);
        assert_eq!(lease.units(year), 3);
        assert_eq!(lease.drain(2, year) + lease.drain(9, year), 3);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Spend(u32),
        Add(u32, u64),
        GiveBack(u32),
        Drain(u32),
        Take(u32),
        PutBack,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u32..6).prop_map(Step::Spend),
            2 => (1_u32..10, 1_u64..30).prop_map(|(units, life)| Step::Add(units, life)),
            1 => (1_u32..4).prop_map(Step::GiveBack),
            1 => (1_u32..4).prop_map(Step::Drain),
            2 => (1_u32..6).prop_map(Step::Take),
            2 => Just(Step::PutBack),
            3 => (0_u64..12).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// The model keeps each unit with its end, and packs no words.
        #[test]
        fn spends_no_more_than_units_of_a_naive_model(steps in prop::collection::vec(step(), 0..120)) {
            let (lease, mut model, mut now) = (Lease::new(), Vec::<u64>::new(), 0);
            let mut out = Vec::new();
            for step in steps {
                model.retain(|ends| *ends > now);
                model.sort_unstable();
                let units = |lease: &Lease| lease.units(now * TICK) as usize;
                prop_assert!(units(&lease) <= model.len());
                match step {
                    Step::Spend(cost) => {
                        let there = units(&lease);
                        let spent = lease.spend(cost, now * TICK);
                        prop_assert_eq!(spent, cost as usize <= there, "spends if it is there");
                        if spent {
                            prop_assert!(cost as usize <= model.len());
                            model.drain(..cost as usize);
                        }
                    }
                    Step::Add(units, life) => {
                        lease.add(units, (now + life) * TICK, now * TICK);
                        model.extend(std::iter::repeat_n(now + life, units as usize));
                    }
                    Step::GiveBack(units) => {
                        if lease.give_back(units, now * TICK) {
                            // The real cell ends no later than the last unit of the model.
                            let last = model.last().copied().unwrap_or_default();
                            model.extend(std::iter::repeat_n(last, units as usize));
                        }
                    }
                    Step::Drain(units) => {
                        let drained = lease.drain(units, now * TICK) as usize;
                        prop_assert!(drained <= model.len());
                        model.drain(..drained);
                    }
                    Step::Take(cost) => {
                        let there = units(&lease);
                        let taken = lease.take(cost, now * TICK);
                        prop_assert_eq!(taken.is_some(), cost as usize <= there);
                        if let Some(taken) = taken {
                            // Those of the model are out that end as late as the cell does: while
                            // they are out, others may end.
                            let mut units = Vec::new();
                            for (count, ends) in taken.0 {
                                for _ in 0..count {
                                    let found = model.iter().position(|own| *own >= ends);
                                    prop_assert!(found.is_some(), "a unit of the model");
                                    units.extend(found.map(|place| model.remove(place)));
                                }
                            }
                            out.push((taken, units));
                        }
                    }
                    Step::PutBack => {
                        if let Some((taken, units)) = out.pop() {
                            lease.put_back(taken);
                            model.extend(units);
                        }
                    }
                    Step::Wait(ticks) => now += ticks,
                }
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn two_spenders_and_a_grant_share_the_units_exactly() {
        loom::model(|| {
            let lease = Arc::new(Lease::new());
            lease.add(2, SECOND, 0);
            let other = lease.clone();
            let thread = thread::spawn(move || u32::from(other.spend(2, 0)) * 2);
            lease.add(1, 2 * SECOND, 0);
            let here = u32::from(lease.spend(1, 0));
            let there = thread.join().unwrap();
            assert_eq!(here + there + lease.units(0), 3);
        });
    }

    #[test]
    fn a_dear_call_and_a_cheap_one_spend_no_unit_twice() {
        loom::model(|| {
            let lease = Arc::new(Lease::new());
            lease.add(1, SECOND, 0);
            lease.add(1, 2 * SECOND, 0);
            let other = lease.clone();
            let thread = thread::spawn(move || u32::from(other.spend(2, 0)) * 2);
            let here = u32::from(lease.spend(1, 0));
            let there = thread.join().unwrap();
            assert!(here + there <= 2);
            assert_eq!(
                here + there + lease.units(0),
                2,
                "a part goes back to its cell"
            );
        });
    }

    #[test]
    fn a_sweep_forgets_no_new_units() {
        loom::model(|| {
            let lease = Arc::new(Lease::new());
            lease.add(2, SECOND, 0);
            let other = lease.clone();
            let thread = thread::spawn(move || other.sweep(SECOND));
            lease.add(3, 3 * SECOND, SECOND);
            let swept = thread.join().unwrap();
            assert!(swept == 0 || swept == 2);
            assert_eq!(lease.units(SECOND), 3);
        });
    }
}
