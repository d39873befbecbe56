//! Short names of the layers and their services, futures and permits.

use crate::{
    circuit_breaker::CircuitGate,
    gate::{
        GateLayer, Gated, Keyed, KeyedHandle, Permit as GatePermit, ResponseFuture as GateFuture,
    },
    protocol::Plain,
};

/// A layer that stops calling an upstream that fails. All its services, and all their clones, share
/// one circuit.
pub type CircuitBreakerLayer<P = Plain> = GateLayer<CircuitGate, P>;

/// A circuit per host, route or tenant, so that one that fails does not affect the others.
///
/// Built with [`keyed_by`](super::CircuitBreakerBuilder::keyed_by). All services of the layer, and
/// all their clones, share the circuits.
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
/// **Bounds.** At most [`max_keys`](super::CircuitBreakerBuilder::max_keys) circuits of about 4 KiB
/// each. A new key beyond that replaces a circuit without state worth keeping, which no call in
/// flight and no handle holds. If no such circuit is found,
/// [`overflow`](super::CircuitBreakerBuilder::overflow) decides what happens to this call.
pub type KeyedCircuitBreakerLayer<F, P = Plain> = GateLayer<Keyed<F, CircuitGate>, P>;

/// A handle that watches and controls keyed circuit breakers.
pub type KeyedCircuitBreakerHandle<K> = KeyedHandle<K, CircuitGate>;

/// A service behind a [`CircuitBreakerLayer`].
pub type CircuitBreaker<S, P = Plain> = Gated<S, CircuitGate, P>;

/// A service behind a [`KeyedCircuitBreakerLayer`]. Its readiness is that of the inner service,
/// whatever the circuits' states: the key is known only with the request.
pub type KeyedCircuitBreaker<S, F, P = Plain> = Gated<S, Keyed<F, CircuitGate>, P>;

/// The answer of a [`CircuitBreaker`]: the inner answer, or a rejection.
pub type ResponseFuture<S, P, Req> = GateFuture<S, CircuitGate, P, Req>;

/// An admission, from the moment a call is sent to its result. A permit dropped unsettled gives a
/// probe back and is not counted, unless the call was slow already or [dropped calls are
/// failures](super::CircuitBreakerBuilder::cancelled_as_failure).
pub type Permit = GatePermit<CircuitGate>;
