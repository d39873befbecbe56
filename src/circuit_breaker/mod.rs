//! Circuit breaker: fail fast while an upstream is down, and notice when it is back.
//!
//! Use one per peer, or [one for each key](CircuitBreakerBuilder::keyed_by), on the client side: it
//! spares callers the wait for a peer that fails, and the peer the load that holds it down. **It
//! needs results that tell failures apart**: without a protocol a 503 is a success. Over HTTP give
//! it [`http::Client`](crate::protocol::http::Client), or, where the body is part of the result,
//! [`http::UntilBodyEnd`](crate::protocol::http::UntilBodyEnd). Against a peer that is slow, let it
//! [watch slow calls](CircuitBreakerBuilder::slow_calls), which also notices calls that never end;
//! or put a [timeout](crate::timeout) beneath it, whose expiry counts as a failure.
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
//! succeeds costs one clock read, at its end, and no write that threads share; watching slow calls
//! costs another clock read, at its start.
//!
//! **Readiness.** While the circuit refuses, `poll_ready` is ready at once and does not ask the
//! inner service, so that a dead one cannot turn failing fast into hanging. If the circuit then
//! admits after all, the response future waits for the inner service. With
//! [`backpressure`](CircuitBreakerBuilder::backpressure) `poll_ready` is pending instead, and wakes
//! when the open time is over, a probe has come back, or somebody changes the state by hand. When
//! it wakes many for few probes, those that come late are rejected: nothing is held between
//! `poll_ready` and `call`.
//!
//! **Drop.** A call that is dropped unfinished gives a probe back, and counts for nothing unless it
//! already was slow. **Panic.** A call that panics has failed.

mod all;
mod builder;
mod changes;
mod handle;
mod journal;
mod keyed;
mod state;

use crate::{
    gate::{GateLayer, Gated, Keyed, Permit as GatePermit, ResponseFuture as GateFuture},
    protocol::Plain,
};

pub use crate::algorithm::{
    BreakerConfig, BreakerState, Cause, Counts, Overflow, SlowCalls, Transition, Verdict, Window,
};
pub use crate::keyed::Missing;
pub use builder::CircuitBreakerBuilder;
pub use handle::{CircuitBreakerHandle, Snapshot};
pub use journal::Transitions;
pub use keyed::KeyedCircuitBreakerHandle;
pub use state::CircuitGate;

/// Stops calling an upstream that fails. All services it makes, and all their clones, share the one
/// circuit.
pub type CircuitBreakerLayer<P = Plain> = GateLayer<CircuitGate, P>;

/// A circuit for each host, route or tenant: one that fails does not take the others with it.
///
/// Made by [`keyed_by`](CircuitBreakerBuilder::keyed_by). All services it makes, and all their
/// clones, share the circuits.
///
/// ```
/// use tower::{Layer, Service, ServiceExt, service_fn};
/// use tower_keep::{
///     Rejected, circuit_breaker::{BreakerState, CircuitBreakerLayer}, protocol::Plain,
/// };
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let breakers = CircuitBreakerLayer::builder()
///     .protocol(Plain::new())
///     .min_calls(1)
///     .keyed_by(|host: &&'static str| Some(*host))
///     .build()?;
/// let mut client = breakers.layer(service_fn(async |host| match host {
///     "bad.example" => Err(std::io::Error::other("down")),
///     _ => Ok(()),
/// }));
///
/// assert!(client.ready().await?.call("bad.example").await.is_err());
/// let error = client.ready().await?.call("bad.example").await.unwrap_err();
/// assert!(Rejected::find(&*error).is_some());
/// client.ready().await?.call("good.example").await?;
/// assert_eq!(breakers.handle().key(&"bad.example").unwrap().state(), BreakerState::Open);
/// # Ok(()) }
/// ```
///
/// **Bounds.** At most [`max_keys`](CircuitBreakerBuilder::max_keys) circuits of about 4 KiB each.
/// A new key past that takes the place of a circuit that knows nothing worth keeping, and that no
/// call in flight and no handle holds. If there is none at hand,
/// [`overflow`](CircuitBreakerBuilder::overflow) says what becomes of it, for this call.
pub type KeyedCircuitBreakerLayer<K, F, P = Plain> = GateLayer<Keyed<K, F, CircuitGate>, P>;

/// A service behind a [`CircuitBreakerLayer`].
pub type CircuitBreaker<S, P = Plain> = Gated<S, CircuitGate, P>;

/// A service behind a [`KeyedCircuitBreakerLayer`]. Its readiness is that of the inner service,
/// whatever the circuits: the key is known only with the request.
pub type KeyedCircuitBreaker<S, K, F, P = Plain> = Gated<S, Keyed<K, F, CircuitGate>, P>;

/// The answer of a [`CircuitBreaker`]: the inner one, or a rejection.
pub type ResponseFuture<S, P, Req> = GateFuture<S, CircuitGate, P, Req>;

/// An admission, from the moment a call is sent to its result. Dropped unsettled, it gives a probe
/// back and counts for nothing, unless it already was slow or [dropped calls are
/// failures](CircuitBreakerBuilder::cancelled_as_failure).
pub type Permit = GatePermit<CircuitGate>;
