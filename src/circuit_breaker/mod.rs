//! Circuit breakers: fail fast while an upstream is down, and notice when it is back.
//!
//! Use one per peer, or [one per key](CircuitBreakerBuilder::keyed_by), on the client side. It
//! spares callers the wait for an upstream that fails, and spares the upstream the load that keeps
//! it down. **It needs results that distinguish failures**: to the protocol `Plain` a 503 is a
//! success. Over HTTP use [`http::Client`](crate::protocol::http::Client), or, where the body is
//! part of the result, [`http::UntilBodyEnd`](crate::protocol::http::UntilBodyEnd). For a slow
//! upstream, let it [watch slow calls](CircuitBreakerBuilder::slow_calls), which also notices calls
//! that never end. Or put a [timeout](crate::timeout) beneath it, whose expiry counts as a failure.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_keep::{
//!     Rejected, circuit_breaker::{BreakerState, CircuitBreakerLayer}, protocol::Plain,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let breaker = CircuitBreakerLayer::builder()
//!     .protocol(Plain::new()) // an `Err` is a failure
//!     .failure_rate(0.5)
//!     .min_calls(2)
//!     .open_for(Duration::from_secs(5))
//!     .build()?;
//! let down = service_fn(async |_: u32| Err::<u32, _>(std::io::Error::other("down")));
//! let mut service = breaker.layer(down);
//!
//! for n in 0..2 {
//!     assert!(service.ready().await?.call(n).await.is_err());
//! }
//! assert_eq!(breaker.handle().state(), BreakerState::Open);
//! let error = service.ready().await?.call(2).await.unwrap_err();
//! assert_eq!(Rejected::find(&*error).unwrap().layer, "circuit_breaker");
//! # Ok(()) }
//! ```
//!
//! The state machine is the [`Breaker`](crate::algorithm::Breaker). While closed, a call that
//! succeeds costs one clock read, at its end, and no write that threads share. Watching slow calls
//! costs another clock read, at its start.
//!
//! **Readiness.** While the circuit rejects calls, `poll_ready` is ready at once and does not poll
//! the inner service, so that a dead one cannot turn failing fast into hanging. If the circuit then
//! admits the call after all, the response future waits for the inner service. With
//! [`backpressure`](CircuitBreakerBuilder::backpressure) `poll_ready` is pending instead. It wakes
//! when the open time is over, a probe slot is free again, or the state is changed by hand. If it
//! wakes many callers for few probes, the late ones are rejected: nothing is held between
//! `poll_ready` and `call`.
//!
//! **Drop.** A call that is dropped unfinished gives a probe back, and is not counted unless it was
//! slow already. A window in which calls were dropped and none was answered still opens the
//! circuit. **Panic.** A call that panics has failed.

mod aliases;
mod all;
mod builder;
mod builder_by_key;
mod changes;
mod explained;
mod handle;
mod keyed;
mod publish;
mod state;
mod transition_log;
mod update;

pub use crate::algorithm::{
    BreakerConfig, BreakerState, Cause, Counts, Overflow, SlowCalls, Transition, Verdict, Window,
};
pub use crate::keyed::Missing;
pub use aliases::{
    CircuitBreaker, CircuitBreakerLayer, KeyedCircuitBreaker, KeyedCircuitBreakerHandle,
    KeyedCircuitBreakerLayer, Permit, ResponseFuture,
};
pub use builder::CircuitBreakerBuilder;
pub use handle::{CircuitBreakerHandle, Snapshot};
pub use state::CircuitGate;
pub use transition_log::Transitions;
