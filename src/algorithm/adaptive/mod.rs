//! Limits on calls in flight that learn from how calls go.
//!
//! The right limit is what the upstream can work on at once: below it capacity lies idle, above it
//! calls only wait, in a queue that no one sees. It moves with every deployment and every slow
//! disk, so a fixed number is wrong most of the time. These limits find it as TCP finds its
//! congestion window: more while that helps, less as soon as calls queue.
//!
//! | algorithm | takes for overload | finds |
//! |---|---|---|
//! | [`Aimd`] | nothing but failures | the limit at which calls begin to fail |
//! | [`Vegas`] | a queue, counted from round trip times | the limit at which a few calls queue |
//! | [`Gradient2`] | round trips longer than a tolerance | the limit at which they are that long |
//!
//! [`Samples`] collects what calls tell, without a lock, into [`Window`]s; an [`AdaptiveLimit`]
//! turns a window into the next limit. Five rules hold for all:
//!
//! - **A window, not a call, moves the limit**, and a call counts at most four times the average
//!   before it: one slow call of a hundred is no overload, and one lucky one no new best.
//! - **Only load raises it**: at least half of the limit was in use at once, and more than one
//!   call, or some caller found no room. Sequential calls never raise a limit.
//! - **Only successes are timed.** A failure may be quick because nothing was done. A dropped call
//!   counts for nothing.
//! - **Failures lower the limit if load causes them**: rejections and timeouts alike, also while
//!   nothing succeeds. Those that a lower limit does not end are tolerated, and cost less than a
//!   tenth of the throughput. That is asked by trying (`failures.rs`). An upstream that *says* that
//!   it has too much (429, `RESOURCE_EXHAUSTED`) is believed.
//! - **What calls tell just after a change** is of the limit before it, and is left out.

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
