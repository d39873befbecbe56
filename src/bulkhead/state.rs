//! The gate: a count of calls in flight.

use std::{sync::Arc, task::Context};

use crate::{
    ConfigError, Rejected, RejectedKind,
    algorithm::InFlight,
    bulkhead::adaptive::{Algorithm, Learner, Stamp},
    gate::{Admission, Admit, Demand, End, Gate, MissingKey, Read, Turn, Unsent},
    keyed::partitions::Evict,
    time::Now,
};

/// Admits so many calls at a time. Made by [`BulkheadBuilder::gate`](super::BulkheadBuilder::gate).
#[derive(Debug, Clone)]
pub struct BulkheadGate {
    pub(super) state: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) in_flight: InFlight,
    pub(super) enabled: bool,
    pub(super) name: Option<&'static str>,
    /// What moves the limit, if anything does.
    pub(super) learner: Option<Box<Learner>>,
}

/// A place in a bulkhead: 0 for none, while that is not enabled; 1 for one; above, with a
/// [stamp](Stamp) of when it was taken, if the limit learns.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Taken(u64);

impl BulkheadGate {
    /// At most `limit`, or what the algorithm learns below that.
    pub(super) fn new(
        limit: usize,
        algorithm: Option<&Algorithm>,
        enabled: bool,
        name: Option<&'static str>,
    ) -> Self {
        let learner = algorithm.map(|algorithm| Learner::new(algorithm, limit));
        let (learner, limit) = match learner {
            Some((learner, initial)) => (Some(Box::new(learner)), initial),
            None => (None, limit),
        };
        let in_flight = InFlight::new(limit);
        Self {
            state: Arc::new(State {
                in_flight,
                enabled,
                name,
                learner,
            }),
        }
    }

    #[inline(never)]
    fn learn(&self, place: &Taken, end: End, now: &Now) {
        if let (Some(learner), Some(stamp)) = (&self.state.learner, Stamp::from_word(place.0)) {
            learner.end(stamp, end, &self.state.in_flight, now);
        }
    }

    fn rejected(&self, kind: RejectedKind) -> Rejected {
        let retry_after = None;
        Rejected {
            kind,
            layer: "bulkhead",
            name: self.state.name,
            retry_after,
        }
    }
}

impl Gate for BulkheadGate {
    type Grant = Taken;
    type Pass = Taken;
    type Ticket = ();

    #[inline(always)]
    fn send(&self, place: Taken) -> Taken {
        place
    }

    fn give_back(&self, place: Taken, _: Unsent, now: &Now) {
        self.end(place, End::Dropped, now);
    }

    #[inline(always)]
    fn end(&self, place: Taken, end: End, now: &Now) {
        if place.0 == 0 {
            return;
        }
        // Learned first, while the call counts; freed also if a foreign algorithm panics.
        let _left = Leave(&self.state.in_flight);
        if place.0 != PLACE {
            self.learn(&place, end, now);
        }
    }

    fn leave(&self, (): (), _: &Now) {}

    #[inline(always)]
    fn owes(&self, place: &Taken) -> bool {
        place.0 != 0
    }

    fn answered(&self, place: &mut Taken, now: &Now) {
        if let (Some(learner), Some(stamp)) = (&self.state.learner, Stamp::from_word(place.0)) {
            place.0 = learner.answered(stamp, now).word();
        }
    }
}

impl<Req> Admit<Req> for BulkheadGate {
    #[inline(always)]
    fn admit(&self, _: &Req, _: &Demand, now: &Now) -> Admission<Taken, ()> {
        let State {
            in_flight,
            enabled,
            learner,
            ..
        } = &*self.state;
        if !enabled {
            return Admission::Granted(Taken(0));
        }
        if in_flight.enter() {
            let stamp = learner.as_ref().map(|learner| learner.stamp(now).word());
            return Admission::Granted(Taken(stamp.unwrap_or(PLACE)));
        }
        if let Some(learner) = learner {
            learner.full();
        }
        Admission::Rejected(Box::new(self.rejected(RejectedKind::BulkheadFull)))
    }

    fn poll_ticket(
        &self,
        (): &mut (),
        _: &Req,
        _: &Demand,
        _: &mut Context<'_>,
        _: &Now,
    ) -> Turn<Taken> {
        unreachable!("no call waits")
    }
}

impl<Res> Read<Res> for BulkheadGate {}

impl State {
    /// Changes the limit, or the most that a learned one may become.
    pub(super) fn set_limit(&self, limit: usize) {
        match &self.learner {
            Some(learner) => learner.set_max(limit, &self.in_flight),
            None => self.in_flight.set_limit(limit),
        }
    }
}

/// Gives a place back.
struct Leave<'a>(&'a InFlight);

impl Drop for Leave<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Evict for BulkheadGate {
    fn is_evictable(&self) -> bool {
        // Handles hold the state, not the partition.
        Arc::strong_count(&self.state) == 1 && self.state.in_flight.count() == 0
    }
}

impl MissingKey for BulkheadGate {
    fn missing_key(&self) -> Rejected {
        self.rejected(RejectedKind::MissingKey)
    }

    fn overflow(&self) -> Rejected {
        self.rejected(RejectedKind::BulkheadFull)
    }
}

pub(super) fn checked(limit: usize, name: Option<&'static str>) -> Result<usize, ConfigError> {
    if limit == 0 {
        let fix = "allow at least 1 call at once";
        return Err(ConfigError::new("limit", limit, fix).of("bulkhead", name));
    }
    Ok(limit)
}

/// A place without a stamp.
const PLACE: u64 = 1;
