//! The rate limit of a replay.

use crate::{
    ConfigError,
    algorithm::{KeyedBuckets, Limit as _, Overflow, TokenBucket},
    replay::{call::Call, thresholds::RateThreshold},
};

/// A limit for all calls, or one for each key.
pub(super) enum Limit {
    Whole(TokenBucket),
    Keyed(Box<KeyedBuckets>),
}

impl Limit {
    pub(super) fn new(threshold: &RateThreshold) -> Result<Self, ConfigError> {
        let RateThreshold {
            rate,
            burst,
            per_key,
        } = *threshold;
        Ok(if per_key {
            Self::Keyed(Box::new(KeyedBuckets::new(
                rate,
                burst,
                KEYS,
                Overflow::Shared,
            )?))
        } else {
            Self::Whole(TokenBucket::new(rate, burst)?)
        })
    }

    /// Takes the units of a call, if they are there.
    pub(super) fn admits(&self, call: &Call, now: u64) -> bool {
        match self {
            Self::Whole(bucket) => bucket.acquire(call.cost, now).is_ok(),
            Self::Keyed(buckets) => buckets.acquire(mixed(call.key), call.cost, now).is_ok(),
        }
    }

    /// Gives the units of a call back that a later gate has rejected.
    pub(super) fn give_back(&self, call: &Call, now: u64) {
        match self {
            Self::Whole(bucket) => bucket.refund(call.cost, now),
            Self::Keyed(buckets) => buckets.refund(mixed(call.key), call.cost, now),
        }
    }
}

/// Mixes the bits of a key: a recording may have small numbers, and the table needs all bits of a
/// hash.
fn mixed(key: u64) -> u64 {
    let word = (key ^ key >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

/// The number of keys with their own limit.
const KEYS: usize = 1 << 18;
