//! The limit that a call is counted under, and those who wait for it: one for all calls, or one for
//! each key.

use std::{sync::Arc, task::Waker};

use crate::{
    ConfigError,
    algorithm::{Limit, OverLimit, Rate, TokenBucket},
    rate_limit::{
        keyed::{Places, Table},
        line::{Line, Place, Turn},
    },
};

/// The key that all methods take is that of the [`Keyed`](Self::Keyed) ones, and means nothing to
/// the others.
#[derive(Debug)]
pub(super) enum Limits {
    /// The one limit that most layers have, without the indirection of a trait object.
    Bucket {
        bucket: TokenBucket,
        line: Arc<Line>,
    },
    Other {
        limit: Box<dyn Limit>,
        line: Arc<Line>,
    },
    Keyed(Table),
}

impl Limits {
    pub(super) fn one(limit: Box<dyn Limit>) -> Self {
        Self::Other {
            limit,
            line: Arc::default(),
        }
    }

    /// The limit of a key. A keyed one is made for the occasion, of its place in the table.
    #[inline]
    pub(super) fn with<R>(&self, key: u64, ask: impl FnOnce(&dyn Limit) -> R) -> R {
        match self {
            Self::Bucket { bucket, .. } => ask(bucket),
            Self::Other { limit, .. } => ask(&**limit),
            Self::Keyed(table) => ask(&table.of(key)),
        }
    }

    /// All limits that count a key: the parts of those that are made of several, and a total after
    /// the key's own.
    pub(super) fn each(&self, key: u64, mut tell: impl FnMut(&dyn Limit)) {
        let mut parts = |limit: &dyn Limit| match limit.part(0) {
            None => tell(limit),
            Some(_) => (0..)
                .map_while(|index| limit.part(index))
                .for_each(&mut tell),
        };
        match self {
            Self::Bucket { bucket, .. } => parts(bucket),
            Self::Other { limit, .. } => parts(&**limit),
            Self::Keyed(table) => {
                parts(&table.own(key));
                table.total().into_iter().for_each(parts);
            }
        }
    }

    /// Forgets what was used, of a key its own alone.
    pub(super) fn reset(&self, key: u64, now: u64) {
        match self {
            Self::Bucket { bucket, .. } => bucket.refund(u32::MAX, now),
            Self::Other { limit, .. } => limit.refund(u32::MAX, now),
            Self::Keyed(table) => table.own(key).refund(u32::MAX, now),
        }
    }

    /// The line of a key, if there is one.
    pub(super) fn line(&self, key: u64) -> Option<Arc<Line>> {
        match self {
            Self::Bucket { line, .. } | Self::Other { line, .. } => Some(line.clone()),
            Self::Keyed(table) => table.line(key),
        }
    }

    /// Looks whether a waiter's turn has come.
    pub(super) fn look(
        &self,
        call: (u64, u32),
        line: &Line,
        places: &mut Places,
        waker: &Waker,
        now: u64,
    ) -> Turn {
        let turn = match self {
            Self::Bucket { bucket, .. } => line.look(bucket, places.own, waker, now),
            Self::Other { limit, .. } => line.look(&**limit, places.own, waker, now),
            Self::Keyed(table) => table.look(call, line, places, waker, now),
        };
        if !matches!(turn, Turn::Due(_)) {
            self.left(call.0, line);
        }
        turn
    }

    /// Gives a waiter's place up.
    pub(super) fn cancel(&self, key: u64, line: &Line, places: &mut Places, now: u64) {
        match self {
            Self::Bucket { bucket, .. } => line.cancel(bucket, places.own, now),
            Self::Other { limit, .. } => line.cancel(&**limit, places.own, now),
            Self::Keyed(table) => table.cancel(key, line, places, now),
        }
        self.left(key, line);
    }

    /// After a call has left its line.
    fn left(&self, key: u64, line: &Line) {
        if let Self::Keyed(table) = self {
            table.left(key, line);
        }
    }

    pub(super) fn look_again(&self, key: u64) {
        match self {
            Self::Bucket { line, .. } | Self::Other { line, .. } => line.look_again(),
            Self::Keyed(table) => table.look_again(key),
        }
    }

    #[inline]
    pub(super) fn acquire(&self, key: u64, cost: u32, now: u64) -> Result<(), OverLimit> {
        match self {
            Self::Bucket { bucket, .. } => bucket.acquire(cost, now),
            Self::Other { limit, .. } => limit.acquire(cost, now),
            Self::Keyed(table) => table.of(key).acquire(cost, now),
        }
    }

    #[inline]
    pub(super) fn somebody_waits(&self, key: u64) -> bool {
        match self {
            Self::Bucket { line, .. } | Self::Other { line, .. } => !line.is_empty(),
            Self::Keyed(table) => table.somebody_waits(key),
        }
    }

    pub(super) fn join(
        &self,
        key: u64,
        cost: u32,
        until: u64,
        most: usize,
        now: u64,
    ) -> Result<(Arc<Line>, Place), u64> {
        let joined = |limit: &dyn Limit, line: &Arc<Line>| {
            line.put_out(limit, now);
            line.join(limit, cost, until, most, now)
                .map(|place| (line.clone(), place))
        };
        match self {
            Self::Bucket { bucket, line } => joined(bucket, line),
            Self::Other { limit, line } => joined(&**limit, line),
            Self::Keyed(table) => table.join(key, cost, until, most, now),
        }
    }

    pub(super) fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.with(0, |limit| limit.update(rate, burst))?;
        match self {
            Self::Bucket { line, .. } | Self::Other { line, .. } => line.look_again(),
            Self::Keyed(table) => table.all_look_again(),
        }
        Ok(())
    }
}
