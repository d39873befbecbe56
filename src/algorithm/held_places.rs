//! Permits that are reclaimed from calls that hold them too long.
//!
//! A call gives its permit back when its response ends or is dropped. A server cannot write a
//! response whose client does not read, and does neither. It does not even poll the body, so no
//! timer within the call can end it. A task that watches all permits, or a timer for each, would
//! cost every call something for the few that hang. A full bulkhead that admits more after a while
//! would not know how many. A call that ends late would then give back a permit that is no longer
//! its own.
//!
//! So each permit has a deadline, which only a call that finds no permit checks. That call reclaims
//! the overdue permits first. The record of a permit, its place, is one word with a generation. The
//! end of its call and a reclaim are each one compare-and-swap on that word. One of the two wins,
//! and gives the permit to others. The end of a call whose permit was reclaimed finds another
//! generation, or a word that is not held, and changes nothing.
//!
//! **Guarantee.** Each permit is given back once. No permit is reclaimed before its deadline. The
//! next check finds an overdue permit. If the thread that took it was suspended while it did so, it
//! is found later by that much. A check that cannot find any is one load, because the earliest
//! deadline that may be there is kept.
//!
//! **Cost.** Taking a permit and giving it back are three compare-and-swaps on words of the
//! bulkhead. A place is 32 bytes, and there are as many as permits were ever in use at once. A call
//! that finds no permit checks all places, if one may be overdue.

use std::sync::OnceLock;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct HeldPlaces {
    /// The nanoseconds after which a permit may be reclaimed. Changed before [`due`](Self::due) is
    /// reset, which publishes it.
    after: AtomicU64,
    /// The moment before which no permit is overdue, or 0 until the first check.
    due: AtomicU64,
    /// The first free slot, counted from 1, in the low 21 bits, or 0. Above them is a tag that each
    /// change raises. It distinguishes a slot that was taken and given back from one that stayed
    /// free. `Release` publishes the slot's `next`, to the `Acquire` of the thread that takes it.
    free: AtomicU64,
    /// The number of slots. Relaxed: segments publish themselves.
    made: AtomicU32,
    /// The slots. Each segment has twice as many as the one before.
    segments: [OnceLock<Box<[Slot]>>; SEGMENTS],
}

/// The place of a call's permit: a generation, and in the low 20 bits the number of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldPlace(u64);

/// The end of a call that still has its permit. The slot is free once this is dropped.
#[derive(Debug)]
pub(crate) struct EndingPlace<'a> {
    places: &'a HeldPlaces,
    index: u32,
    generation: u64,
    /// The note of the place.
    pub(crate) note: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// A generation and, in the low two bits, a [state](FREE). `Release` publishes the fields below
    /// to the `Acquire` of a thread that reads them. A compare-and-swap that finds the word as it
    /// was loaded proves that they belong to that generation.
    word: AtomicU64,
    /// The moment at which the permit is overdue.
    until: AtomicU64,
    note: AtomicU64,
    /// The next free slot, counted from 1.
    next: AtomicU32,
}

#[cfg_attr(
    not(feature = "layers"),
    allow(dead_code, reason = "only bulkheads hold places")
)]
impl HeldPlaces {
    /// Creates a pool without places, whose permits may each be held for `after` nanoseconds.
    pub(crate) fn new(after: u64) -> Self {
        Self {
            after: AtomicU64::new(after),
            due: AtomicU64::new(0),
            free: AtomicU64::new(0),
            made: AtomicU32::new(0),
            segments: [const { OnceLock::new() }; SEGMENTS],
        }
    }

    /// Records that a call holds a permit from now on. Returns `None` if a million permits are
    /// recorded. Such a call keeps its permit for as long as it runs.
    pub(crate) fn hold(&self, note: u64, now: u64) -> Option<HeldPlace> {
        let index = self.pop().or_else(|| self.make())?;
        let slot = self.slot(index)?;
        // The slot is this call's own until the word says that it is held.
        let relaxed = Ordering::Relaxed;
        let generation = next_generation(slot.word.load(relaxed) >> STATE_BITS);
        let until = now.saturating_add(self.after.load(relaxed));
        slot.until.store(until, relaxed);
        slot.note.store(note, relaxed);
        slot.word.store(word(generation, HELD), Ordering::Release);
        Some(HeldPlace(generation << INDEX_BITS | u64::from(index)))
    }

    /// Changes the note of a place, if its permit is still the call's.
    pub(crate) fn note(&self, place: HeldPlace, change: impl FnOnce(u64) -> u64) {
        let Some((slot, state)) = self.claim(place) else {
            return;
        };
        let note = change(slot.note.load(Ordering::Relaxed));
        slot.note.store(note, Ordering::Relaxed);
        slot.word
            .store(word(place.generation(), state), Ordering::Release);
    }

    /// Lets a call hold its permit for as long as it runs.
    pub(crate) fn keep(&self, place: HeldPlace) {
        if let Some((slot, _)) = self.claim(place) {
            slot.word
                .store(word(place.generation(), KEPT), Ordering::Release);
        }
    }

    /// Ends a call. Returns `None` if its permit was reclaimed.
    pub(crate) fn end(&self, place: HeldPlace) -> Option<EndingPlace<'_>> {
        let (slot, _) = self.claim(place)?;
        Some(EndingPlace {
            places: self,
            index: place.index(),
            generation: place.generation(),
            note: slot.note.load(Ordering::Relaxed),
        })
    }

    /// Reclaims the overdue permits. Returns their number, which the caller gives to others, and
    /// the moment before which no more are overdue.
    pub(crate) fn take_back(&self, now: u64) -> (usize, u64) {
        let due = self.due.load(Ordering::Acquire);
        if now < due {
            return (0, due);
        }
        let after = self.after.load(Ordering::Relaxed);
        // A permit taken from now on is due no earlier.
        let (mut taken, mut due) = (0, now.saturating_add(after));
        for index in 0..self.made.load(Ordering::Relaxed) {
            match self
                .slot(index)
                .map_or(Err(u64::MAX), |slot| slot.take_back(now))
            {
                Ok(()) => {
                    taken += 1;
                    self.push(index);
                }
                Err(until) => due = due.min(until),
            }
        }
        // A change of `after` resets `due`. If that came before this swap, the swap reads the
        // reset, and the load sees the change. Otherwise the reset comes last and stays.
        self.due.swap(due, Ordering::AcqRel);
        if self.after.load(Ordering::Relaxed) != after {
            self.due.store(0, Ordering::Release);
        }
        (taken, due)
    }

    /// Changes the nanoseconds after which a permit may be reclaimed. Permits that are held keep
    /// their deadlines. Returns the former value.
    pub(crate) fn set_after(&self, after: u64) -> u64 {
        let before = self.after.swap(after, Ordering::Relaxed);
        self.due.swap(0, Ordering::AcqRel);
        before
    }

    /// Returns the nanoseconds after which a permit may be reclaimed.
    pub(crate) fn after(&self) -> u64 {
        self.after.load(Ordering::Relaxed)
    }

    /// Claims a place, so that its permit cannot be reclaimed until its word is stored again.
    /// Returns the state to restore.
    /// restore.
    fn claim(&self, place: HeldPlace) -> Option<(&Slot, u64)> {
        let slot = self.slot(place.index())?;
        [HELD, KEPT].into_iter().find_map(|state| {
            let current = word(place.generation(), state);
            let claimed = word(place.generation(), CLAIMED);
            // A failure is final: a word that has left its generation does not come back to it.
            slot.word
                .compare_exchange(current, claimed, Ordering::Acquire, Ordering::Relaxed)
                .map(|_| (slot, state))
                .ok()
        })
    }

    fn pop(&self) -> Option<u32> {
        let mut free = self.free.load(Ordering::Acquire);
        loop {
            let index = first(free).checked_sub(1)?;
            // Another thread may have taken the slot, so that this is some other `next`. Then the
            // tag differs.
            let next = self.slot(index)?.next.load(Ordering::Relaxed);
            match self.free.compare_exchange_weak(
                free,
                retagged(free, next),
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(index),
                Err(current) => free = current,
            }
        }
    }

    fn push(&self, index: u32) {
        let Some(slot) = self.slot(index) else { return };
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            slot.next.store(first(free), Ordering::Relaxed);
            match self.free.compare_exchange_weak(
                free,
                retagged(free, index + 1),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(current) => free = current,
            }
        }
    }

    /// Adds a slot, unless there are as many as there can be.
    fn make(&self) -> Option<u32> {
        let relaxed = Ordering::Relaxed;
        let more = |made: u32| (made < MAX_SLOTS).then_some(made + 1);
        let index = self.made.fetch_update(relaxed, relaxed, more).ok()?;
        let (segment, _) = position(index);
        self.segments[segment].get_or_init(|| {
            let slots = FIRST_SEGMENT << segment;
            (0..slots).map(|_| Slot::default()).collect()
        });
        Some(index)
    }

    /// Returns a slot, or `None` while it is being made.
    fn slot(&self, index: u32) -> Option<&Slot> {
        let (segment, offset) = position(index);
        self.segments.get(segment)?.get()?.get(offset)
    }

    /// Creates a pool with one slot of a late generation.
    #[cfg(all(test, not(keep_loom)))]
    fn at_generation(after: u64, generation: u64) -> Self {
        let places = Self::new(after);
        let index = places.make().unwrap();
        let slot = places.slot(index).unwrap();
        slot.word.store(word(generation, FREE), Ordering::Relaxed);
        places.push(index);
        places
    }
}

impl Slot {
    /// Frees the slot if it is overdue. Otherwise returns the moment at which it may be.
    fn take_back(&self, now: u64) -> Result<(), u64> {
        let current = self.word.load(Ordering::Acquire);
        let until = self.until.load(Ordering::Relaxed);
        match current & STATE {
            HELD if until <= now => self
                .word
                .compare_exchange(
                    current,
                    word(current >> STATE_BITS, FREE),
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .map(drop)
                .map_err(|_| until),
            // It is not overdue, or its call is changing or ending it.
            HELD | CLAIMED => Err(until),
            _ => Err(u64::MAX),
        }
    }
}

impl Drop for EndingPlace<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.places.slot(self.index) {
            slot.word
                .store(word(self.generation, FREE), Ordering::Release);
            self.places.push(self.index);
        }
    }
}

#[cfg_attr(
    not(feature = "layers"),
    allow(dead_code, reason = "only bulkheads hold places")
)]
impl HeldPlace {
    /// Returns it as one word, which is never 0 or 1.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    pub(crate) fn from_word(word: u64) -> Option<Self> {
        (word >> INDEX_BITS > 0).then_some(Self(word))
    }

    fn index(self) -> u32 {
        (self.0 & INDEX) as u32
    }

    fn generation(self) -> u64 {
        self.0 >> INDEX_BITS
    }
}

fn word(generation: u64, state: u64) -> u64 {
    generation << STATE_BITS | state
}

/// Returns the next generation, counted from 1, so that a place is never 0 or 1.
fn next_generation(generation: u64) -> u64 {
    if generation == GENERATIONS {
        1
    } else {
        generation + 1
    }
}

/// Returns the first free slot, counted from 1.
fn first(free: u64) -> u32 {
    (free & FIRST) as u32
}

fn retagged(free: u64, first: u32) -> u64 {
    (free & !FIRST).wrapping_add(FIRST + 1) | u64::from(first)
}

/// Returns the segment of a slot, and its index there.
fn position(index: u32) -> (usize, usize) {
    let index = index as usize;
    let segment = (index / FIRST_SEGMENT + 1).ilog2() as usize;
    (segment, index - FIRST_SEGMENT * ((1 << segment) - 1))
}

/// No call has it.
const FREE: u64 = 0;
/// A call has it, until it is overdue.
const HELD: u64 = 1;
/// A call is changing or ending it, which takes a moment.
const CLAIMED: u64 = 2;
/// A call has it for as long as it runs.
const KEPT: u64 = 3;
const STATE: u64 = 3;
const STATE_BITS: u32 = 2;

const INDEX_BITS: u32 = 20;
const INDEX: u64 = (1 << INDEX_BITS) - 1;
const GENERATIONS: u64 = u64::MAX >> INDEX_BITS;
const FIRST: u64 = (1 << (INDEX_BITS + 1)) - 1;
/// The largest number of slots.
const MAX_SLOTS: u32 = (1 << INDEX_BITS) - 1;
const FIRST_SEGMENT: usize = 8;
const SEGMENTS: usize = 18;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A place of a plain model.
    struct Held {
        until: u64,
        note: u64,
    }

    #[test]
    fn a_late_end_changes_nothing() {
        let places = HeldPlaces::new(10);
        let first = places.hold(7, 0).unwrap();
        assert_eq!(places.take_back(9), (0, 10));
        assert_eq!(places.take_back(10).0, 1);
        let second = places.hold(8, 10).unwrap();
        assert_eq!(first.index(), second.index(), "the slot is used again");
        places.note(first, |_| 9);
        places.keep(first);
        assert!(places.end(first).is_none());
        assert_eq!(places.end(second).map(|ending| ending.note), Some(8));
        assert!(places.end(second).is_none(), "it ends once");
    }

    #[test]
    fn what_is_kept_is_never_overdue() {
        let places = HeldPlaces::new(10);
        let place = places.hold(0, 0).unwrap();
        places.keep(place);
        places.note(place, |note| note + 1);
        assert_eq!(places.take_back(u64::MAX - 1).0, 0);
        assert_eq!(places.end(place).map(|ending| ending.note), Some(1));
    }

    #[test]
    fn a_shorter_time_is_noticed_at_once() {
        let places = HeldPlaces::new(1000);
        assert_eq!(places.take_back(0), (0, 1000), "nothing is due before");
        assert_eq!(places.set_after(10), 1000);
        let place = places.hold(0, 5).unwrap();
        assert_eq!(places.take_back(15).0, 1);
        assert!(places.end(place).is_none());
    }

    #[test]
    fn no_time_is_none_at_all() {
        let places = HeldPlaces::new(u64::MAX);
        let place = places.hold(0, 5).unwrap();
        assert_eq!(places.take_back(u64::MAX - 1).0, 0);
        assert!(places.end(place).is_some());
    }

    #[test]
    fn generations_wrap_past_what_is_no_place() {
        let places = HeldPlaces::at_generation(10, GENERATIONS - 1);
        let last = places.hold(0, 0).unwrap();
        assert_eq!(last.generation(), GENERATIONS);
        assert_eq!(HeldPlace::from_word(last.word()), Some(last));
        assert_eq!(places.take_back(10).0, 1);
        let wrapped = places.hold(0, 10).unwrap();
        assert_eq!((wrapped.generation(), wrapped.index()), (1, 0));
        assert!(places.end(last).is_none() && places.end(wrapped).is_some());
        assert_eq!(
            (HeldPlace::from_word(0), HeldPlace::from_word(1)),
            (None, None)
        );
    }

    #[test]
    fn every_slot_has_a_position_of_its_own() {
        let mut expected = (0, 0);
        for index in 0..MAX_SLOTS {
            assert_eq!(position(index), expected);
            expected.1 += 1;
            if expected.1 == FIRST_SEGMENT << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(expected.0 < SEGMENTS);
    }

    #[test]
    fn a_million_places_have_a_deadline_and_no_more() {
        let places = HeldPlaces::new(10);
        let held: Vec<_> = (0..MAX_SLOTS).map(|_| places.hold(0, 0)).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!(places.hold(0, 0), None);
        assert_eq!(places.take_back(10).0, MAX_SLOTS as usize);
        assert!(places.hold(0, 10).is_some());
    }

    proptest! {
        #[test]
        fn does_as_a_plain_map_does(steps in prop::collection::vec((0u8..7, 0u64..40), 1..300)) {
            let places = HeldPlaces::new(20);
            let mut after = 20;
            let mut model: HashMap<u64, Held> = HashMap::new();
            let mut all = Vec::new();
            let mut now = 0;
            for (step, value) in steps {
                let index = usize::try_from(value).unwrap() % all.len().max(1);
                let place = all.get(index).copied();
                match (step, place) {
                    (0 | 1, _) => {
                        let place = places.hold(value, now).unwrap();
                        let until = now + after;
                        let held = Held { until, note: value };
                        prop_assert!(model.insert(place.word(), held).is_none());
                        all.push(place);
                    }
                    (2, Some(place)) => {
                        let note = places.end(place).map(|ending| ending.note);
                        let held = model.remove(&place.word());
                        prop_assert_eq!(note, held.map(|held| held.note));
                    }
                    (3, Some(place)) => {
                        places.note(place, |note| note + value);
                        if let Some(held) = model.get_mut(&place.word()) {
                            held.note += value;
                        }
                    }
                    (4, Some(place)) if value < 4 => {
                        places.keep(place);
                        if let Some(held) = model.get_mut(&place.word()) {
                            held.until = u64::MAX;
                        }
                    }
                    (5, _) => {
                        let (taken, due) = places.take_back(now);
                        let before = model.len();
                        model.retain(|_, held| held.until > now);
                        prop_assert_eq!(taken, before - model.len());
                        prop_assert!(model.values().all(|held| held.until >= due) && due > now);
                    }
                    (6, _) if value < 4 => {
                        prop_assert_eq!(places.set_after(10 + value), after);
                        after = 10 + value;
                    }
                    _ => now += value,
                }
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    /// Creates the slots before threads begin, because segments are not modelled.
    fn places() -> Arc<HeldPlaces> {
        let places = HeldPlaces::new(10);
        assert!(places.make().is_some() && places.make().is_some());
        places.push(0);
        places.push(1);
        Arc::new(places)
    }

    #[test]
    fn a_place_is_given_back_once() {
        loom::model(|| {
            let places = places();
            let place = places.hold(0, 0).unwrap();
            let sweeper = places.clone();
            let sweeper = thread::spawn(move || sweeper.take_back(10).0);
            places.note(place, |note| note + 1);
            let ended = places.end(place).map(|ending| ending.note);
            let taken = sweeper.join().unwrap();
            assert_eq!(taken + usize::from(ended.is_some()), 1);
            assert!(ended.is_none_or(|note| note == 1));
            // Nothing is lost, and nothing is there twice.
            let one = places.hold(0, 20).unwrap();
            let other = places.hold(0, 20).unwrap();
            assert_ne!(one.index(), other.index());
            assert_eq!(places.pop(), None);
        });
    }

    #[test]
    fn a_late_end_leaves_the_next_call_its_place() {
        loom::model(|| {
            let places = places();
            let place = places.hold(0, 0).unwrap();
            let sweeper = places.clone();
            let sweeper = thread::spawn(move || {
                let (taken, _) = sweeper.take_back(10);
                (taken > 0).then(|| sweeper.hold(5, 10).unwrap())
            });
            drop(places.end(place));
            if let Some(next) = sweeper.join().unwrap() {
                assert_eq!(places.end(next).map(|ending| ending.note), Some(5));
            }
        });
    }

    #[test]
    fn no_slot_is_taken_twice() {
        loom::model(|| {
            let places = places();
            let there = places.clone();
            let use_one = |places: &HeldPlaces| {
                let place = places.hold(0, 0).unwrap();
                drop(places.end(place).expect("nobody takes it back"));
                places.hold(0, 0).unwrap()
            };
            let thread = thread::spawn(move || use_one(&there));
            let here = use_one(&places);
            assert_ne!(here.index(), thread.join().unwrap().index());
        });
    }

    /// A reclaim under way does not overlook a shorter time.
    #[test]
    fn a_shorter_time_is_seen_by_a_look_under_way() {
        loom::model(|| {
            let places = places();
            let there = places.clone();
            let setter = thread::spawn(move || {
                there.set_after(1);
                there.hold(0, 0).unwrap()
            });
            places.take_back(0);
            let place = setter.join().unwrap();
            assert_eq!(places.take_back(1).0, 1);
            assert!(places.end(place).is_none());
        });
    }
}
