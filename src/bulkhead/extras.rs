//! Extras that few bulkheads have: an adaptive limit, and permits that are taken back.

use crate::{
    algorithm::{HeldPlace, HeldPlaces, InFlight},
    ambient::clock::{Clock, Now},
    bulkhead::adaptive::{Algorithm, CallStamp, Learner},
    gate::{CallEvent, Completion},
};

/// Both extras in one box, so that all other bulkheads check for it once.
#[derive(Debug)]
pub(super) struct Extras {
    /// The algorithm that moves the limit, if there is one.
    pub(super) learner: Option<Learner>,
    /// The permits that may be taken back, if that is enabled.
    pub(super) held: Option<HeldPlaces>,
    clock: Clock,
}

impl Extras {
    /// Creates the extras, and returns them with the initial limit. `None` if there are none.
    pub(super) fn new(
        algorithm: Option<&Algorithm>,
        limit: usize,
        reclaim_after: Option<u64>,
        clock: Clock,
    ) -> (Option<Box<Self>>, usize) {
        let held = reclaim_after.map(HeldPlaces::new);
        let learner = algorithm.map(|algorithm| Learner::new(algorithm, limit));
        let (learner, limit) = match learner {
            Some((learner, initial)) => (Some(learner), initial),
            None => (None, limit),
        };
        let any = learner.is_some() || held.is_some();
        let extras = Self {
            learner,
            held,
            clock,
        };
        (any.then(|| Box::new(extras)), limit)
    }

    /// Returns the pass of a call that has just taken a permit.
    #[inline]
    pub(super) fn taken(&self, now: &Now) -> u64 {
        let stamp = self.learner.as_ref().map(|learner| learner.stamp(now));
        let stamp = stamp.map_or(PLACE, CallStamp::word);
        let Some(held) = &self.held else {
            return stamp;
        };
        let place = held.hold(stamp, now.by(&self.clock));
        place.map_or(PLACE, HeldPlace::word)
    }

    /// Returns the pass after an event.
    #[inline]
    pub(super) fn event(&self, pass: u64, event: CallEvent, now: &Now) -> u64 {
        match (&self.held, HeldPlace::from_word(pass)) {
            (Some(held), Some(place)) => {
                if self.learner.is_some() {
                    held.note(place, |stamp| self.answered(stamp, now));
                }
                // The time of an upgraded connection has no bound.
                if let CallEvent::Upgraded(_) = event {
                    held.keep(place);
                }
                pass
            }
            (Some(_), None) => pass,
            (None, _) => self.answered(pass, now),
        }
    }

    /// Returns the stamp of a call whose response head has arrived.
    fn answered(&self, stamp: u64, now: &Now) -> u64 {
        match (&self.learner, CallStamp::from_word(stamp)) {
            (Some(learner), Some(stamp)) => learner.answered(stamp, now).word(),
            _ => stamp,
        }
    }

    /// Ends a call that was admitted with a pass. Gives its permit back, unless that was taken
    /// back.
    pub(super) fn end(
        &self,
        (pass, how): (u64, Option<Completion>),
        in_flight: &InFlight,
        leave: impl Fn(),
        now: &Now,
    ) {
        let Some(held) = &self.held else {
            // The call still counts while the limit learns from it, and leaves even if a user's
            // algorithm panics. Leaving admits waiters, also those for which a raised limit now has
            // room.
            let _left = Leave(leave);
            return self.learn(pass, how, in_flight, now);
        };
        let ending = match HeldPlace::from_word(pass) {
            Some(place) => match held.end(place) {
                Some(ending) => Some(ending),
                None => return,
            },
            None => None,
        };
        let _left = Leave(leave);
        // Dropped before `_left`, so that the slot is free for the next call that enters.
        if let Some(ending) = ending {
            self.learn(ending.note, how, in_flight, now);
        }
    }

    fn learn(&self, stamp: u64, how: Option<Completion>, in_flight: &InFlight, now: &Now) {
        let stamp = CallStamp::from_word(stamp);
        if let (Some(learner), Some(stamp), Some(how)) = (&self.learner, stamp, how) {
            learner.end(stamp, how, in_flight, now);
        }
    }
}

/// A guard that gives a permit back.
struct Leave<F: Fn()>(F);

impl<F: Fn()> Drop for Leave<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The word of a permit without extras.
pub(super) const PLACE: u64 = 1;
