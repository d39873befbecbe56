//! The limit of a layer, or of a key.

use std::sync::Arc;

use crate::{
    algorithm::{Limit, OverLimit, Rate, TokenBucket},
    rate_limit::{
        fleet::FleetLimit,
        follow::{Follow, Follower},
    },
};

#[derive(Debug)]
pub(super) enum AnyLimit {
    /// A token bucket, as in most layers, without the indirection of a trait object.
    Bucket(TokenBucket),
    /// A limit that several processes share.
    Fleet(Box<FleetLimit>),
    Other(Box<dyn Limit>),
}

impl AnyLimit {
    pub(super) fn quota(&self) -> (Rate, u32) {
        (self.get().rate(), self.get().burst())
    }

    /// Combines the limit with one that the upstream reports, if that is followed. A fleet's limit
    /// follows none: `build` rejects that.
    pub(super) fn following(self, follow: Option<Follow>) -> (Self, Option<Follower>) {
        let (both, follower) = match (self, follow) {
            (Self::Bucket(bucket), Some(follow)) => Follower::beside(bucket, follow),
            (Self::Other(limit), Some(follow)) => {
                Follower::beside(Arc::<dyn Limit>::from(limit), follow)
            }
            (limit, _) => return (limit, None),
        };
        (Self::Other(Box::new(both)), Some(follower))
    }

    #[inline(always)]
    pub(super) fn get(&self) -> &dyn Limit {
        match self {
            Self::Bucket(bucket) => bucket,
            Self::Fleet(limit) => &**limit,
            Self::Other(limit) => &**limit,
        }
    }

    #[inline(always)]
    pub(super) fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        match self {
            Self::Bucket(bucket) => bucket.acquire(cost, now),
            Self::Fleet(limit) => limit.acquire(cost, now),
            Self::Other(limit) => limit.acquire(cost, now),
        }
    }
}
