//! Sliding counts of the last N calls.
//!
//! A ring of slots, one per call. Each call takes the next slot, swaps its own class for that of
//! the call N before it, and applies the difference to the totals. So the window really slides:
//! after a thousand successes in a window of ten, five failures are half of it.
//!
//! Counting up to N and starting over needs no ring, but such a window forgets all at once. Between
//! two restarts it only grows: the thousandth failure weighs less than the first.
//!
//! The slot and the totals do not change in one step, and need not. The totals are a sum of
//! differences, so the order in which these are applied does not matter. Once all have been
//! applied, the totals are what the slots hold, whichever call overtook another.
//!
//! **Cost.** Three compare-and-swaps on words that all threads share: they put the calls in one
//! order, which stripes cannot do. **Accuracy.** Exact for one call after the other. Of calls
//! recorded at the same moment any may count as the last. Each judges the totals after its own
//! difference, so the last call to apply its difference sees all of them.

use crate::{
    algorithm::{
        Counts,
        window::{Class, Counted},
    },
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// A ring of the last calls, 4 bytes each.
#[derive(Debug)]
pub(crate) struct CallWindow {
    /// `generation:18 | index:46`. The index counts the calls. Below the length it is the number of
    /// calls in the window. At the last multiple of the length that fits, it falls back to the
    /// first multiple.
    head: AtomicU64,
    /// `generation:18 | failures:23 | slow:23`. Both counts are raised by [`BIAS`], because the
    /// difference that subtracts a call may be applied before the one that added it.
    totals: AtomicU64,
    /// `generation:18 | index:25 | count:21`: the number of calls abandoned while `head` had this
    /// index, modulo 2^25. An answered call that takes a slot only moves `head`, so it does not
    /// write here, but for a [sweep](Self::sweep). Relaxed: a word of an older generation is
    /// replaced, and nothing else is read by it.
    abandoned: AtomicU64,
    /// `generation:29 | class:3`, of which a generation uses 18 bits, or 0 if never used.
    slots: Box<[AtomicU32]>,
}

/// Every word carries the generation, and is replaced if it is an old one. A word of another
/// generation is either older than this call or newer, and the breaker's control word shows which.
/// The control word is read after it, so it is no older than the generation that the word's writer
/// had seen. That read is ordered by Acquire, partner of the Release in every write but those of
/// `abandoned`.
impl CallWindow {
    /// Creates a window of 1 to 2^20 calls.
    pub(crate) fn new(calls: u32) -> Self {
        let slots = (0..calls.max(1)).map(|_| AtomicU32::new(0)).collect();
        Self {
            head: AtomicU64::new(0),
            totals: AtomicU64::new(empty(0)),
            abandoned: AtomicU64::new(0),
            slots,
        }
    }

    /// Counts a call, unless `is_current` shows that its generation has passed.
    pub(crate) fn count(
        &self,
        class: Class,
        generation: u32,
        is_current: impl Fn() -> bool,
    ) -> Counted {
        let replaced = self
            .take(generation, &is_current)
            .and_then(|slot| self.put(slot, class, generation, &is_current));
        match replaced {
            Some(replaced) if self.apply(class, replaced, generation, &is_current) => {
                Counted::Again
            }
            _ => Counted::Late,
        }
    }

    pub(crate) fn counts(&self, generation: u32) -> Counts {
        // The totals first: their Acquire shows the index of every call that is in them.
        let totals = self.totals.load(Ordering::Acquire);
        let total = self.total(generation);
        if totals >> (2 * COUNT_BITS) != u64::from(generation) {
            return Counts {
                successes: total,
                abandoned: self.only_abandoned(generation),
                ..Counts::default()
            };
        }
        let unbiased = |count: u64| (count & COUNT_MASK).saturating_sub(BIAS).min(total);
        let failures = unbiased(totals >> COUNT_BITS);
        Counts {
            successes: total - failures,
            failures,
            slow: unbiased(totals),
            abandoned: self.only_abandoned(generation),
        }
    }

    /// Counts an abandoned call, which takes no slot, or, if it `was_counted`, has just taken one.
    pub(crate) fn abandon(
        &self,
        was_counted: bool,
        generation: u32,
        is_current: impl Fn() -> bool,
    ) {
        let seen = self.seen(generation);
        let before = abandoned_tag(generation, seen.saturating_sub(was_counted.into()));
        let now = abandoned_tag(generation, seen);
        let mut word = self.abandoned.load(Ordering::Relaxed);
        loop {
            let tag = word & !ABANDONED_MASK;
            if tag >> INDEX_BITS != now >> INDEX_BITS && !is_current() {
                return;
            }
            let count = if tag == now || tag == before {
                word & ABANDONED_MASK
            } else {
                0
            };
            let new = now | (count + 1).min(ABANDONED_MASK);
            match self.abandoned.compare_exchange_weak(
                word,
                new,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                // Another call was abandoned meanwhile: add to its count.
                Err(current) => word = current,
            }
        }
    }

    /// Ends the run of abandoned calls after a call was answered that takes no slot.
    pub(crate) fn end_abandoned(&self, generation: u32) {
        let tag = abandoned_tag(generation, self.seen(generation));
        let word = self.abandoned.load(Ordering::Relaxed);
        if word & !ABANDONED_MASK == tag && word != tag {
            // If the exchange fails, another call was abandoned at the same moment, and counts as
            // the later one.
            let _ =
                self.abandoned
                    .compare_exchange(word, tag, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Returns how many calls were abandoned since the last answered call.
    pub(crate) fn only_abandoned(&self, generation: u32) -> u64 {
        let word = self.abandoned.load(Ordering::Relaxed);
        if word & !ABANDONED_MASK == abandoned_tag(generation, self.seen(generation)) {
            word & ABANDONED_MASK
        } else {
            0
        }
    }

    /// Returns whether this generation has seen as many calls as the window holds.
    pub(crate) fn is_full(&self, generation: u32) -> bool {
        self.total(generation) == self.length()
    }

    fn total(&self, generation: u32) -> u64 {
        self.seen(generation).min(self.length())
    }

    /// Returns how many calls this generation has recorded.
    pub(crate) fn seen(&self, generation: u32) -> u64 {
        let head = self.head.load(Ordering::Acquire);
        if head >> INDEX_BITS == u64::from(generation) {
            head & INDEX_MASK
        } else {
            0
        }
    }

    fn last_lap(&self) -> u64 {
        INDEX_MASK - INDEX_MASK % self.length()
    }

    pub(crate) fn length(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Takes the next slot, or returns `None` if the generation has passed.
    fn take(&self, generation: u32, is_current: impl Fn() -> bool) -> Option<&AtomicU32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let index = match head & INDEX_MASK {
                _ if head >> INDEX_BITS == u64::from(generation) => head & INDEX_MASK,
                _ if is_current() => 0,
                _ => return None,
            };
            let next = if index + 1 == self.last_lap() {
                self.length()
            } else {
                index + 1
            };
            let new = u64::from(generation) << INDEX_BITS | next;
            match self
                .head
                .compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire)
            {
                #[expect(clippy::cast_possible_truncation, reason = "below the number of slots")]
                Ok(_) => {
                    if index % SWEEP == 0 {
                        self.sweep(abandoned_tag(generation, index));
                    }
                    return Some(&self.slots[(index % self.length()) as usize]);
                }
                // Another call has this slot: try the next one.
                Err(current) => head = current,
            }
        }
    }

    /// Clears `abandoned`, unless it belongs to this very index. Answered calls came since then.
    /// The index in that word wraps after twice as many calls as lie between two sweeps, so no old
    /// count can match.
    #[cold]
    fn sweep(&self, tag: u64) {
        let word = self.abandoned.load(Ordering::Relaxed);
        if word & !ABANDONED_MASK != tag {
            // If the exchange fails, another call was abandoned just now, and the word is current.
            let relaxed = Ordering::Relaxed;
            let _ = self.abandoned.compare_exchange(word, 0, relaxed, relaxed);
        }
    }

    /// Puts a class in a slot and returns the one it replaces, if that is of the same generation.
    /// Returns the outer `None` if the generation has passed.
    fn put(
        &self,
        slot: &AtomicU32,
        class: Class,
        generation: u32,
        is_current: impl Fn() -> bool,
    ) -> Option<Option<Class>> {
        let new = generation << CLASS_BITS | code(class);
        let mut word = slot.load(Ordering::Acquire);
        loop {
            let same = word >> CLASS_BITS == generation && word != 0;
            if !same && !is_current() {
                return None;
            }
            match slot.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if same => return Some(Some(class_of(word))),
                Ok(_) => return Some(None),
                // A call a whole window away, or of another generation, wrote first: replace its
                // class.
                Err(current) => word = current,
            }
        }
    }

    fn apply(
        &self,
        class: Class,
        replaced: Option<Class>,
        generation: u32,
        is_current: impl Fn() -> bool,
    ) -> bool {
        let mut totals = self.totals.load(Ordering::Acquire);
        loop {
            let base = match totals >> (2 * COUNT_BITS) {
                tag if tag == u64::from(generation) => totals,
                _ if is_current() => empty(generation),
                _ => return false,
            };
            // Neither count leaves its field: it is off by at most 2^20 slots and the calls in
            // progress, in either direction.
            let new = base + weight(Some(class)) - weight(replaced);
            match self.totals.compare_exchange_weak(
                totals,
                new,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                // Another difference was applied first: add to it.
                Err(current) => totals = current,
            }
        }
    }
}

fn empty(generation: u32) -> u64 {
    u64::from(generation) << (2 * COUNT_BITS) | BIAS << COUNT_BITS | BIAS
}

fn abandoned_tag(generation: u32, seen: u64) -> u64 {
    let index = seen << ABANDONED_BITS & INDEX_MASK;
    u64::from(generation) << INDEX_BITS | index
}

fn weight(class: Option<Class>) -> u64 {
    class.map_or(0, |class| {
        u64::from(class.is_failure()) << COUNT_BITS | u64::from(class.is_slow())
    })
}

/// Encodes a class, never as 0.
fn code(class: Class) -> u32 {
    4 | u32::from(class.is_failure()) << 1 | u32::from(class.is_slow())
}

fn class_of(word: u32) -> Class {
    Class::new(word & 2 != 0, word & 1 != 0)
}

const INDEX_BITS: u32 = 46;
/// The number of calls after which `abandoned` is swept, before its index wraps.
const SWEEP: u64 = 1 << 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const ABANDONED_BITS: u32 = 21;
const ABANDONED_MASK: u64 = (1 << ABANDONED_BITS) - 1;
const COUNT_BITS: u32 = 23;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const BIAS: u64 = 1 << (COUNT_BITS - 1);
const CLASS_BITS: u32 = 3;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_overtaken_call_is_late_and_leaves_no_trace() {
        let window = CallWindow::new(2);
        window.count(Class::Failure, 1, || true);
        assert_eq!(window.count(Class::Failure, 0, || false), Counted::Late);
        assert_eq!(window.counts(1).total(), 1);
        assert_eq!(window.counts(0).total(), 0);
    }

    #[test]
    fn the_index_falls_back_without_a_trace() {
        let window = CallWindow::new(3);
        for _ in 0..3 {
            window.count(Class::Failure, 1, || true);
        }
        let last = 1 << INDEX_BITS | (window.last_lap() - 1);
        window.head.store(last, Ordering::Relaxed);
        for failures in [2, 1, 0] {
            window.count(Class::Success, 1, || true);
            let counts = window.counts(1);
            assert_eq!((counts.failures, counts.total()), (failures, 3));
        }
    }

    #[test]
    fn no_abandoned_call_comes_back_when_the_index_wraps() {
        let window = CallWindow::new(3);
        window.count(Class::Success, 1, || true);
        (0..5).for_each(|_| window.abandon(false, 1, || true));
        assert_eq!(window.only_abandoned(1), 5);
        let at = |index: u64| {
            let head = 1 << INDEX_BITS | index;
            window.head.store(head, Ordering::Relaxed);
        };
        // Of 2^25 calls only those that matter: each 2^24th, and the last.
        at(SWEEP);
        window.count(Class::Success, 1, || true);
        at(2 * SWEEP);
        window.count(Class::Success, 1, || true);
        assert_eq!(window.seen(1), 2 * SWEEP + 1);
        assert_eq!(window.only_abandoned(1), 0);
        window.abandon(false, 1, || true);
        assert_eq!(window.only_abandoned(1), 1);
    }

    proptest! {
        #[test]
        fn holds_what_the_end_of_a_list_holds(
            length in 1u32..70, calls in prop::collection::vec((any::<bool>(), any::<bool>(), 0u32..60), 1..300),
        ) {
            let window = CallWindow::new(length);
            let (mut generation, mut list) = (0, Vec::new());
            for (failed, slow, advance) in calls {
                if advance == 0 {
                    generation += 1;
                    list.clear();
                }
                window.count(Class::new(failed, slow), generation, || true);
                list.push((failed, slow));
                let last = &list[list.len().saturating_sub(length as usize)..];
                let failures = last.iter().filter(|(failed, _)| *failed).count() as u64;
                let slow = last.iter().filter(|(_, slow)| *slow).count() as u64;
                let counts = Counts { successes: last.len() as u64 - failures, failures, slow, abandoned: 0 };
                prop_assert_eq!(window.counts(generation), counts);
                prop_assert_eq!(window.is_full(generation), list.len() >= length as usize);
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn totals_equal_the_slots_whichever_call_overtakes() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let window = Arc::new(CallWindow::new(1));
            window.count(Class::Failure, 0, || true);
            let other = window.clone();
            let thread = thread::spawn(move || other.count(Class::Failure, 0, || true));
            window.count(Class::Success, 0, || true);
            thread.join().unwrap();
            let held = class_of(window.slots[0].load(Ordering::Acquire));
            assert_eq!(window.counts(0).failures, u64::from(held.is_failure()));
        });
    }

    #[test]
    fn the_last_of_two_failures_sees_both() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let window = Arc::new(CallWindow::new(4));
            let other = window.clone();
            let count = |window: &CallWindow| {
                window.count(Class::Failure, 0, || true);
                window.counts(0).failures
            };
            let thread = thread::spawn(move || count(&other));
            let here = count(&window);
            let there = thread.join().unwrap();
            assert_eq!(here.max(there), 2);
        });
    }
}
