//! The limit that a call is counted under, and those who wait for it: one for all calls, or one for each key.

use std::sync::Arc;

use crate::{
    ConfigError,
    algorithm::{Denied, Limit, Rate, TokenBucket},
    rate_limit::{
        keyed::Table,
        line::{Line, Place},
    },
};

/// The key that all methods take is that of the [`Keyed`](Self::Keyed) ones, and means nothing to the others.
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
        Self::Other { limit, line: Arc::default() }
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

    /// The line of a key, if there is one.
    pub(super) fn line(&self, key: u64) -> Option<Arc<Line>> {
        match self {
            Self::Bucket { line, .. } | Self::Other { line, .. } => Some(line.clone()),
            Self::Keyed(table) => table.lines.find(key),
        }
    }

    /// After a call has left its line.
    pub(super) fn left(&self, key: u64, line: &Line) {
        if let Self::Keyed(table) = self {
            table.lines.left(key, line);
        }
    }

    pub(super) fn look_again(&self, key: u64) {
        match self {
            Self::Bucket { line, .. } | Self::Other { line, .. } => line.look_again(),
            Self::Keyed(table) => table.look_again(key),
        }
    }

    #[inline]
    pub(super) fn acquire(&self, key: u64, cost: u32, now: u64) -> Result<(), Denied> {
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
            Self::Keyed(table) => table.lines.find(key).is_some_and(|line| !line.is_empty()),
        }
    }

    pub(super) fn join(&self, key: u64, cost: u32, until: u64, most: usize, now: u64) -> Result<(Arc<Line>, Place), u64> {
        self.with(key, |limit| match self {
            Self::Bucket { line, .. } | Self::Other { line, .. } => {
                line.join(limit, cost, until, most, now).map(|place| (line.clone(), place))
            }
            Self::Keyed(table) => table.lines.join(key, |line| line.join(limit, cost, until, most, now)),
        })
    }

    pub(super) fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.with(0, |limit| limit.update(rate, burst))?;
        match self {
            Self::Bucket { line, .. } | Self::Other { line, .. } => line.look_again(),
            Self::Keyed(table) => table.lines.look_again(),
        }
        Ok(())
    }
}
