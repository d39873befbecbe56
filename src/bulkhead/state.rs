//! The gate: a count of calls in flight.

use std::{sync::Arc, task::Context};

use crate::{
    ConfigError, Rejected, RejectedKind,
    algorithm::InFlight,
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
}

/// A place in a bulkhead; `false` while that is not enabled.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Taken(bool);

impl BulkheadGate {
    pub(super) fn new(limit: usize, enabled: bool, name: Option<&'static str>) -> Self {
        let in_flight = InFlight::new(limit);
        Self {
            state: Arc::new(State {
                in_flight,
                enabled,
                name,
            }),
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
    fn end(&self, place: Taken, _: End, _: &Now) {
        if place.0 {
            self.state.in_flight.leave();
        }
    }

    fn leave(&self, (): (), _: &Now) {}

    #[inline(always)]
    fn owes(&self, place: &Taken) -> bool {
        place.0
    }
}

impl<Req> Admit<Req> for BulkheadGate {
    #[inline(always)]
    fn admit(&self, _: &Req, _: &Demand, _: &Now) -> Admission<Taken, ()> {
        if !self.state.enabled {
            return Admission::Granted(Taken(false));
        }
        if self.state.in_flight.enter() {
            return Admission::Granted(Taken(true));
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
