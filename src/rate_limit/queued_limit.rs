//! A limit, as its queue sees it.

use crate::{
    algorithm::{Limit, OverLimit},
    ambient::clock::nanos,
    queue::{Blocked, Resource},
    rate_limit::switch::Switch,
};

/// A limit, as its queue sees it. A limit that is off admits all waiters and takes no units.
pub(super) struct QueuedLimit<'a> {
    limit: &'a dyn Limit,
    /// `None` for a limit that is always on.
    switch: Option<&'a Switch>,
    /// The epoch in which a departing waiter joined. Units granted after a later switch were not
    /// taken from the limit.
    epoch: Option<u64>,
}

impl<'a> QueuedLimit<'a> {
    pub(super) fn new(limit: &'a dyn Limit, switch: Option<&'a Switch>) -> Self {
        Self {
            limit,
            switch,
            epoch: None,
        }
    }

    /// Wraps a limit that is always on.
    pub(super) fn of(limit: &'a dyn Limit) -> Self {
        Self::new(limit, None)
    }

    /// Sets the epoch in which the departing waiter joined.
    pub(super) fn since(self, epoch: u64) -> Self {
        Self {
            epoch: Some(epoch),
            ..self
        }
    }

    fn is_off(&self) -> bool {
        self.switch.is_some_and(|switch| !switch.is_on())
    }

    /// Returns whether granted units may not have been taken from the limit.
    fn is_another(&self) -> bool {
        let switched = |switch: &Switch| self.epoch.is_some_and(|epoch| epoch != switch.epoch());
        self.is_off() || self.switch.is_some_and(switched)
    }
}

impl Resource for QueuedLimit<'_> {
    fn acquire(&self, units: u32, ready_at: u64, now: u64) -> Result<(), Blocked> {
        if self.is_off() {
            return Ok(());
        }
        self.limit
            .acquire_late(units, ready_at, now)
            .map_err(|over| match over {
                OverLimit::Until { wait } => Blocked::For(nanos(wait)),
                OverLimit::CostAboveBurst => Blocked::Forever,
            })
    }

    fn ready_in(&self, units: u32, before: u64, now: u64) -> Option<u64> {
        Some(nanos(self.limit.wait_for(units, before, now)))
    }

    fn give_back(&self, units: u32, now: u64) {
        if !self.is_another() {
            self.limit.refund(units, now);
        }
    }
}
