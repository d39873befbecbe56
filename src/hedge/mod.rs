//! Hedge: a second attempt for a call that takes unusually long. The first answer of the two wins.
//!
//! Most slow calls are slow by chance: a queue, a pause, a lost packet. Another attempt, sent after
//! the time in which most answers arrive, usually overtakes the first. So a few percent more load
//! cut the slowest answers (Dean and Barroso, *The Tail at Scale*, 2013). It does not help if the
//! upstream is slow for all calls. There each hedge is load, so a budget pays for hedges.
//!
//! ```
//! use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_keep::{hedge::HedgeLayer, protocol::Plain};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let upstream = service_fn(async |key: u32| {
//!     if CALLS.fetch_add(1, Ordering::Relaxed) == 0 {
//!         std::future::pending::<()>().await; // this one hangs
//!     }
//!     Ok::<_, std::io::Error>(key)
//! });
//! let hedge = HedgeLayer::builder()
//!     .protocol(Plain::new().idempotent())
//!     .delay(Duration::from_millis(5))
//!     .build()?;
//!
//! assert_eq!(hedge.layer(upstream).oneshot(7).await?, 7);
//! assert_eq!(hedge.handle().snapshot().won_by_hedge, 1);
//! # Ok(()) }
//! ```
//!
//! Only requests that the protocol calls idempotent, and can make again, are hedged. The first
//! success wins. The others are dropped, which no circuit counts against the upstream. Each hedge
//! waits for the readiness of its own service. A call whose [`Deadline`](crate::Deadline) would
//! pass before its hedge gets none.
//!
//! A failure that may be retried sends the next hedge at once, without its delay. If the failure
//! says when to come back (`Retry-After`, pushback), the hedge is sent at that time. That time must
//! be before the deadline and within [`max_retry_after`](HedgeBuilder::max_retry_after). When all
//! attempts have failed, the last failure is the answer. A result that must not be retried, such as
//! a 404 or a 500, ends the call. A hedge's failure never ends it while the first attempt is in
//! flight, and a negative pushback only ends further hedges.
//!
//! **When.** After a fixed [delay](HedgeBuilder::delay), or after the time in which a
//! [share](HedgeBuilder::quantile) of the calls is answered. That time is learned from first
//! attempts at run time. An attempt that a hedge overtook counts with the time it had. Otherwise
//! the quantile would drift down, and the number of hedges up. A stream's head arrives at once.
//! With a `protocol::http::FirstByteLayer` inside, a hedge waits for the first byte, and learns the
//! time to it.
//!
//! **Where.** Use it in place of a [retry](crate::retry), above the gates, so that each attempt is
//! admitted by itself. With a circuit for each host beneath, or a balancer, the hedge may go
//! elsewhere.
//!
//! While far more calls are late than the quantile expects, the cause is not chance but a queue,
//! and no call is hedged. [`suppressed`](Snapshot::suppressed) counts the hedges that were due.
//!
//! **Cost** of a call that is answered before its delay: a copy of the request, one timer once it
//! has to wait, and with a quantile two clock reads. **Drop.** All attempts are dropped with the
//! call. The token of a hedge that was not sent goes back.

mod config;
mod future;
mod handle;
mod hedges;
mod lateness;
mod layer;
mod next;
mod service;
mod state;

pub use config::HedgeConfig;
pub use future::ResponseFuture;
pub use handle::HedgeHandle;
pub use layer::{HedgeBuilder, HedgeLayer};
pub use service::Hedge;
pub use state::Snapshot;
