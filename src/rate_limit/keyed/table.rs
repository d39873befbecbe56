//! The limits of all keys, and one of them as a limit like any other.

use std::{
    hash::RandomState,
    sync::{Arc, Mutex, TryLockError},
    task::Waker,
    time::Duration,
};

use crate::{
    ConfigError, RejectedKind,
    algorithm::{KeyedBuckets, Limit, OverLimit, Rate},
    rate_limit::{
        Key, Missing,
        keyed::top::Top,
        line::{Line, Place, Turn},
        lines::Lines,
        state::nanos,
    },
    time::Clock,
};

#[derive(Debug)]
pub(in crate::rate_limit) struct Table {
    pub(super) buckets: KeyedBuckets,
    pub(super) total: Option<Total>,
    pub(super) seed: RandomState,
    pub(super) missing: Missing,
    /// Locked for rejections of watched keys, only if nobody waits, and to read.
    pub(super) top: Mutex<Top>,
    pub(super) lines: Lines,
}

/// What all keys together stay within.
#[derive(Debug)]
pub(super) struct Total {
    pub(super) limit: Box<dyn Limit>,
    /// The first of each key whose own limit has room, in order.
    line: Line,
}

/// The limit of one key. What it takes it takes of the total too, or of neither.
#[derive(Debug)]
pub(in crate::rate_limit) struct OfKey<'a> {
    buckets: &'a KeyedBuckets,
    total: Option<&'a Total>,
    key: u64,
}

/// A place in the line of a key, and in that for the total if it is there.
#[derive(Debug)]
pub(in crate::rate_limit) struct Places {
    pub(in crate::rate_limit) own: Place,
    total: Option<Place>,
}

impl Table {
    /// The hash that a request is counted under; `None` if it has no limit.
    pub(in crate::rate_limit) fn key<Req>(
        &self,
        key: &impl Key<Req>,
        request: &Req,
    ) -> Result<Option<u64>, RejectedKind> {
        match (key.hash(request, &self.seed), self.missing) {
            (Some(hash), _) => Ok(Some(hash)),
            (None, Missing::Allow) => Ok(None),
            (None, Missing::Reject) => Err(RejectedKind::MissingKey),
            // Any hash that all of them share, and that a key has only by chance.
            (None, Missing::Share) => Ok(Some(u64::MAX)),
        }
    }

    #[inline]
    pub(in crate::rate_limit) fn of(&self, key: u64) -> OfKey<'_> {
        OfKey {
            buckets: &self.buckets,
            total: self.total.as_ref(),
            key,
        }
    }

    /// Without the total.
    pub(in crate::rate_limit) fn own(&self, key: u64) -> OfKey<'_> {
        OfKey {
            buckets: &self.buckets,
            total: None,
            key,
        }
    }

    pub(in crate::rate_limit) fn total(&self) -> Option<&dyn Limit> {
        self.total.as_ref().map(|total| &*total.limit)
    }

    #[inline]
    pub(in crate::rate_limit) fn somebody_waits(&self, key: u64) -> bool {
        self.total
            .as_ref()
            .is_some_and(|total| !total.line.is_empty())
            || self.lines.find(key).is_some_and(|line| !line.is_empty())
    }

    /// Joins the line of a key. That for the total it joins when its turn there has come.
    pub(in crate::rate_limit) fn join(
        &self,
        key: u64,
        cost: u32,
        until: u64,
        most: usize,
        now: u64,
    ) -> Result<(Arc<Line>, Place), u64> {
        let line = self.lines.find(key);
        line.iter()
            .for_each(|line| line.put_out(&self.own(key), now));
        if let Some(total) = &self.total {
            total.line.put_out(&*total.limit, now);
            let wait = nanos(total.limit.wait_for(cost, total.line.units(), now));
            if now.saturating_add(wait) > until {
                let before = line.map_or(0, |line| line.units());
                return Err(wait.max(nanos(self.own(key).wait_for(cost, before, now))));
            }
        }
        self.lines
            .join(key, |line| line.join(&self.of(key), cost, until, most, now))
    }

    /// Looks whether the turn of a waiter has come: first that of its key's own limit, as whose
    /// first it stays, then that of the total. So those who wait for the total are as many as there
    /// are keys, and nobody holds them up but it.
    pub(in crate::rate_limit) fn look(
        &self,
        (key, cost): (u64, u32),
        line: &Line,
        places: &mut Places,
        waker: &Waker,
        now: u64,
    ) -> Turn {
        let Some(total) = &self.total else {
            return line.look(&self.of(key), places.own, waker, now);
        };
        let since = match line.stand(&self.own(key), places.own, waker, now) {
            Ok(since) => since,
            Err(turn) => {
                total.leave(places.total.take(), now);
                return turn;
            }
        };
        let joined = match places.total {
            Some(place) => Ok(place),
            // Late by the tick of one timer already, it may be by that of another.
            None => total
                .line
                .join(&*total.limit, cost, places.own.latest, usize::MAX, now),
        };
        let turn = match joined {
            Ok(place) => {
                places.total = Some(place);
                let both = self.of(key);
                let acquire = |cost, due| {
                    both.acquire_at(cost, since, now, |total| total.acquire_late(cost, due, now))
                };
                total
                    .line
                    .look_as(&*total.limit, place, waker, now, acquire)
            }
            Err(wait) => Turn::Never(OverLimit::until(wait)),
        };
        if !matches!(turn, Turn::Due(_)) {
            places.total = None;
            line.cancel(&self.own(key), places.own, now);
        } else if !self.own(key).wait_for(cost, 0, now).is_zero() {
            // A debt has come between the two looks. Nobody is held up by it.
            total.leave(places.total.take(), now);
        }
        turn
    }

    /// The line of a key, if anybody waits in it.
    pub(in crate::rate_limit) fn line(&self, key: u64) -> Option<Arc<Line>> {
        self.lines.find(key)
    }

    /// After somebody has left a key's line.
    pub(in crate::rate_limit) fn left(&self, key: u64, line: &Line) {
        self.lines.left(key, line);
    }

    /// Gives a waiter's places up.
    pub(in crate::rate_limit) fn cancel(
        &self,
        key: u64,
        line: &Line,
        places: &mut Places,
        now: u64,
    ) {
        if let Some(total) = &self.total {
            total.leave(places.total.take(), now);
        }
        line.cancel(&self.own(key), places.own, now);
    }

    /// Counts a rejection, if the key is watched.
    pub(in crate::rate_limit) fn count<Req>(
        &self,
        hash: u64,
        key: &impl Key<Req>,
        request: &Req,
        clock: &Clock,
    ) {
        if !key.is_watched() {
            return;
        }
        let mut top = match self.top.try_lock() {
            Ok(top) => top,
            // By a closure that panicked before anything was changed.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A count is not worth a wait.
            Err(TryLockError::WouldBlock) => return,
        };
        top.count(hash, || key.label(request), clock.now());
    }

    /// Tells those who wait that a key's limit has changed, and with it the total.
    pub(in crate::rate_limit) fn look_again(&self, key: u64) {
        self.lines
            .find(key)
            .into_iter()
            .for_each(|line| line.look_again());
        self.total.iter().for_each(|total| total.line.look_again());
    }

    /// Tells all who wait.
    pub(in crate::rate_limit) fn all_look_again(&self) {
        self.lines.look_again();
        self.total.iter().for_each(|total| total.line.look_again());
    }
}

impl Total {
    pub(super) fn new(limit: Box<dyn Limit>) -> Self {
        Self {
            limit,
            line: Line::default(),
        }
    }

    fn leave(&self, place: Option<Place>, now: u64) {
        if let Some(place) = place {
            self.line.cancel(&*self.limit, place, now);
        }
    }
}

impl Places {
    pub(in crate::rate_limit) fn new(own: Place) -> Self {
        Self { own, total: None }
    }
}

impl OfKey<'_> {
    /// Takes the key's units, as of its turn at `due`, and by `acquire` the total's; or neither.
    #[inline]
    fn acquire_at(
        &self,
        cost: u32,
        due: u64,
        now: u64,
        acquire: impl Fn(&dyn Limit) -> Result<(), OverLimit>,
    ) -> Result<(), OverLimit> {
        let Some(total) = self.total else {
            return self.buckets.acquire_late(self.key, cost, due, now);
        };
        if cost > self.largest_cost() {
            return Err(OverLimit::CostAboveBurst);
        }
        // Not the decision, which is each limit's own; but so a denied call takes nothing, unless
        // it races another.
        let wait = self.wait_for(cost, 0, now);
        if !wait.is_zero() {
            return Err(OverLimit::Until { wait });
        }
        self.buckets.acquire_late(self.key, cost, due, now)?;
        acquire(&*total.limit).inspect_err(|_| self.buckets.refund(self.key, cost, now))
    }
}

impl Limit for OfKey<'_> {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.acquire_at(cost, now, now, |total| total.acquire(cost, now))
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        self.acquire_at(cost, due, now, |total| total.acquire_late(cost, due, now))
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        let total = self.total.map(|total| total.limit.wait(units, now));
        self.buckets
            .wait(self.key, units, now)
            .max(total.unwrap_or_default())
    }

    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        let total = self
            .total
            .map(|total| total.limit.wait_for(cost, before, now));
        let units = before.saturating_add(u64::from(cost));
        self.buckets
            .wait(self.key, units, now)
            .max(total.unwrap_or_default())
    }

    fn refund(&self, cost: u32, now: u64) {
        self.buckets.refund(self.key, cost, now);
        self.total
            .iter()
            .for_each(|total| total.limit.refund(cost, now));
    }

    fn charge(&self, cost: u32, now: u64) {
        self.buckets.charge(self.key, cost, now);
        self.total
            .iter()
            .for_each(|total| total.limit.charge(cost, now));
    }

    /// Closes the key's own alone: a penalty is nobody else's.
    fn close_until(&self, until: u64, now: u64) {
        self.buckets.close_until(self.key, until, now);
    }

    fn available(&self, now: u64) -> u32 {
        let total = self.total.map(|total| total.limit.available(now));
        self.buckets
            .available(self.key, now)
            .min(total.unwrap_or(u32::MAX))
    }

    fn burst(&self) -> u32 {
        let total = self.total.map(|total| total.limit.burst());
        self.buckets.burst().min(total.unwrap_or(u32::MAX))
    }

    fn largest_cost(&self) -> u32 {
        let total = self.total.map(|total| total.limit.largest_cost());
        self.buckets.burst().min(total.unwrap_or(u32::MAX))
    }

    fn rate(&self) -> Rate {
        self.buckets.rate()
    }

    /// Changes the rate and the burst of each key.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.buckets.update(rate, burst)
    }
}
