//! Limits on calls in flight that learn from how calls go.
//!
//! The right limit is what the upstream can work on at once: below it capacity lies idle, above it
//! calls only wait, in a queue that no one sees. It moves with every deployment and every slow
//! disk, so a fixed number is wrong most of the time. These limits find it as TCP finds its
//! congestion window: they grow while that helps, and shrink as soon as calls queue.
//!
//! | algorithm | takes for overload | finds |
//! |---|---|---|
//! | [`Aimd`] | only failures | the limit at which calls begin to fail |
//! | [`Vegas`] | a queue, counted from round trip times | the limit at which a few calls queue |
//! | [`Gradient2`] | round trips longer than a tolerance | the limit at which they are that long |
//!
//! [`Samples`] collects the results of calls, without a lock, into [`Window`]s. An
//! [`AdaptiveLimit`] turns a window into the next limit. Five rules hold for all:
//!
//! - **A window, not a call, moves the limit**, and a call's time counts as four times the last
//!   average at most. One slow call of a hundred is no overload, and one lucky call no new best.
//! - **Only load raises it**: at least half of the limit, and more than one call, was in use at
//!   once, or some caller found no room. Sequential calls never raise a limit.
//! - **Only successes are timed.** A failure may be quick because nothing was done. A dropped call
//!   is not counted.
//! - **Failures lower the limit if load causes them**: rejections and timeouts alike, also while
//!   nothing succeeds. Failures that a lower limit does not end are tolerated, and cost less than a
//!   tenth of the throughput. A trial finds out which they are (`failures.rs`). An upstream that
//!   *says* that it is overloaded (429, `RESOURCE_EXHAUSTED`) is believed.
//! - **Results just after a change are left out**: they belong to the limit before it.

mod aimd;
mod baseline;
mod failures;
mod gradient2;
mod limit;
mod samples;
#[cfg(all(test, not(keep_loom)))]
mod tests;
mod vegas;

pub use aimd::{Aimd, AimdConfig};
pub use gradient2::{Gradient2, Gradient2Config};
pub use limit::{AdaptiveLimit, Window};
pub use samples::{Sample, Samples};
pub use vegas::{Vegas, VegasConfig};
