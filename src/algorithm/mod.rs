//! The algorithms. They are pure, work without Tower, and have no dependency
//! (`default-features = false`).
//!
//! No algorithm reads a clock, sleeps, logs, locks or draws a random number: facts come in,
//! decisions go out. `now` is the last argument, in nanoseconds since a start that the caller
//! chooses. Time that goes back saturates, and errs towards admitting less.
//!
//! | module | decides | state |
//! |---|---|---|
//! | [`TokenBucket`] | whether a call fits a rate, with bursts | one word |
//! | [`SlidingLog`], [`SlidingRing`], [`SlidingCounter`] | whether a call fits a window: exactly, never above, approximately | 8 bytes for each of N; for each part; 48 bytes |
//! | [`LeakyBucket`] | when a call may leave, evenly spaced | one word |
//! | [`KeyedBuckets`] | whether a call fits the rate of its key | 16 bytes a slot, fixed |
//! | [`Prepaid`] | how many units of a shared limit a process gets ahead | one word, and the last debt of each process |
//! | [`Lease`] | whether a call fits the units that its process got ahead | two words |
//! | [`All`] | whether a call fits several limits at once | the state of each |
//! | [`Breaker`] | whether to call the upstream | one word on the hot path, 128 bytes a stripe for counts |
//! | [`InFlight`] | whether another call may run now | two words |
//! | [`CoDel`] | whether a queue smooths bursts or never drains | four words |
//! | [`LatencyQuantile`] | after how long a call is unusually slow | 768 bytes |
//! | [`Aimd`], [`Vegas`], [`Gradient2`] | how many calls may run at once, from their outcomes and latencies | some 200 bytes |
//! | [`Throttle`] | which calls to an overloaded upstream to reject, by chance | one word on the hot path, 128 bytes a stripe |
//! | [`Backoff`] | how long to wait before the next attempt | none |
//! | [`RetryBudget`], [`WindowedBudget`], [`RetryThrottle`] | whether a retry is affordable | one word |
//!
//! Every limit on a rate is a [`Limit`]. Each module argues for its algorithm: what it guarantees,
//! why the obvious alternative fails, what it costs, and where it comes from.
//!
//! ```
//! use tower_keep::algorithm::{OverLimit, Rate, TokenBucket};
//!
//! let bucket = TokenBucket::new(Rate::per_second(10), 1)?;
//! let now = 0;
//! assert!(bucket.acquire(1, now).is_ok());
//! let Err(OverLimit::Until { wait }) = bucket.acquire(1, now) else { panic!("the burst was 1") };
//! assert_eq!(wait.as_millis(), 100);
//! # Ok::<_, tower_keep::ConfigError>(())
//! ```

pub mod adaptive;
pub mod all;
pub mod backoff;
pub mod breaker;
mod call_window;
pub mod codel;
#[cfg(any(feature = "layers", test))]
mod dimensions;
pub mod draining;
mod epoch;
mod eviction_mark;
#[cfg(any(feature = "layers", test))]
mod followed;
#[cfg(any(feature = "layers", all(test, keep_loom)))]
mod held_places;
pub mod in_flight;
pub mod keyed_buckets;
pub mod latency;
pub mod leaky_bucket;
pub mod lease;
#[cfg(any(feature = "layers", test))]
mod leases;
mod limit;
pub mod prepaid;
mod rate;
pub mod retry_budget;
#[cfg(any(feature = "layers", test))]
mod shares;
mod sliding;
pub mod sliding_counter;
pub mod sliding_log;
pub mod sliding_ring;
#[cfg(feature = "layers")]
pub(crate) mod statistics;
pub mod throttle;
mod ticks;
pub mod token_bucket;
#[cfg(any(feature = "layers", test))]
mod wide_bucket;
mod window;

#[doc(inline)]
pub use adaptive::{AdaptiveLimit, Aimd, Gradient2, Vegas};
#[doc(inline)]
pub use all::All;
#[doc(inline)]
pub use backoff::{Backoff, Jitter};
#[doc(inline)]
pub use breaker::{
    Breaker, BreakerConfig, BreakerState, Cause, CircuitOpen, Pass, SlowCalls, Transition, Verdict,
    Window,
};
#[doc(inline)]
pub use codel::CoDel;
#[cfg(feature = "layers")]
pub(crate) use dimensions::{Dimensions, OverDimension, Quotas};
#[doc(inline)]
pub use draining::Draining;
#[cfg(feature = "layers")]
pub(crate) use eviction_mark::EvictionMark;
#[cfg(feature = "layers")]
pub(crate) use followed::Followed;
#[cfg(feature = "layers")]
pub(crate) use held_places::{HeldPlace, HeldPlaces};
#[doc(inline)]
pub use in_flight::InFlight;
#[doc(inline)]
pub use keyed_buckets::{KeyedBuckets, Overflow};
pub use latency::LatencyQuantile;
#[doc(inline)]
pub use leaky_bucket::{Departure, LeakyBucket};
#[doc(inline)]
pub use lease::Lease;
#[cfg(feature = "layers")]
pub(crate) use lease::Taken;
#[cfg(feature = "layers")]
pub(crate) use leases::Leases;
pub use limit::{Limit, OverLimit, TIMER_TICK};
#[doc(inline)]
pub use prepaid::Prepaid;
pub use rate::Rate;
#[doc(inline)]
pub use retry_budget::{Budget, RetryBudget, RetryThrottle, WindowedBudget};
#[cfg(feature = "layers")]
pub(crate) use shares::{ActiveWeights, Claim, Share};
#[doc(inline)]
pub use sliding_counter::SlidingCounter;
#[doc(inline)]
pub use sliding_log::SlidingLog;
#[doc(inline)]
pub use sliding_ring::SlidingRing;
#[doc(inline)]
pub use throttle::Throttle;
#[doc(inline)]
pub use token_bucket::TokenBucket;
#[cfg(feature = "layers")]
pub(crate) use token_bucket::quota::MAX_BURST;
#[cfg(feature = "layers")]
pub(crate) use wide_bucket::WideBucket;
pub use window::Counts;
