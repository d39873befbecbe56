//! Hedge: a second attempt for a call that takes unusually long, and the first answer of the two.
//!
//! Most slow calls are slow by chance: a queue, a pause, a lost packet. Another one sent after the
//! time in which most answers come usually overtakes it, so that a few percent more load cut the
//! slowest answers (Dean and Barroso, *The Tail at Scale*, 2013). It does not help against an
//! upstream that is slow for everybody: there each hedge is load, so a budget pays for hedges.
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
//! success wins, and the others are dropped, which no circuit counts against the upstream. Each
//! hedge waits for the readiness of a service of its own. A call whose
//! [`Deadline`](crate::Deadline) would come before its hedge gets none.
//!
//! A failure that may be retried sends the next hedge at once, without a wait for its time, unless
//! it says when to come back (`Retry-After`, pushback): then at that time, if it is before the
//! deadline and within [`max_retry_after`](HedgeBuilder::max_retry_after). When all have failed,
//! the last failure is the answer. A result that is not to be retried, such as a 404 or a 500, ends
//! the call; but a hedge's failure never does while the first attempt is in flight, and a negative
//! pushback only ends further hedges.
//!
//! **When.** After a fixed [delay](HedgeBuilder::delay), or after the time in which a
//! [share](HedgeBuilder::quantile) of the calls is answered, learnt while it runs from the first
//! attempts; those that a hedge overtook count with the time they had, or the quantile would drift
//! down, and hedges up. Use it in place of a [retry](crate::retry), above the gates, so that each
//! attempt is admitted by itself; with a circuit for each host beneath, or a balancer, the hedge
//! may go elsewhere.
//!
//! While far more calls are late than the quantile expects, it is no chance but a queue, and none
//! is hedged ([`suppressed`](Snapshot::suppressed) counts those that were due).
//!
//! **Cost** of a call that is answered before its delay: a copy of the request, one timer once it
//! has to wait, and with a quantile two readings of the clock. **Drop.** All attempts go with the
//! call; a token of a hedge that was not sent goes back.

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
