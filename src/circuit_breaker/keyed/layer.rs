//! The layer, its builder and its handle.

use std::{fmt, hash::Hash, sync::Arc};

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::BreakerConfig,
    circuit_breaker::{
        CircuitBreakerBuilder, CircuitBreakerHandle, KeyedCircuitBreaker, keyed::circuits::Circuits,
    },
    protocol::Plain,
};

/// A circuit for each host, route or tenant: one that fails does not take the others with it.
///
/// Made by [`keyed_by`](CircuitBreakerBuilder::keyed_by). All services it makes, and all their
/// clones, share the circuits.
///
/// ```
/// use tower::{Layer, Service, ServiceExt, service_fn};
/// use tower_keep::{Rejected, circuit_breaker::{BreakerState, CircuitBreakerLayer}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let breakers = CircuitBreakerLayer::builder().min_calls(1).keyed_by(|host: &&'static str| *host).build()?;
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
/// **Bounds.** At most [`max_keys`](KeyedCircuitBreakerBuilder::max_keys) circuits of about 4 KiB
/// each. A new key past that takes the place of a circuit that knows nothing: closed, and with no
/// calls in its window or in flight. If there is none at hand, one shared overflow circuit serves
/// it, for this call.
pub struct KeyedCircuitBreakerLayer<K, F, P = Plain> {
    circuits: Arc<Circuits<K>>,
    key: F,
    protocol: P,
}

/// Settings of a [`KeyedCircuitBreakerLayer`], beside those of each circuit.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedCircuitBreakerBuilder<K, F, P = Plain> {
    circuit: CircuitBreakerBuilder<P>,
    key: F,
    max_keys: usize,
    keys: std::marker::PhantomData<fn() -> K>,
}

/// Watches and steers keyed circuit breakers from outside.
#[derive(Debug)]
pub struct KeyedCircuitBreakerHandle<K> {
    circuits: Arc<Circuits<K>>,
}

impl<K, F, P> KeyedCircuitBreakerBuilder<K, F, P> {
    pub(in crate::circuit_breaker) fn new(circuit: CircuitBreakerBuilder<P>, key: F) -> Self {
        Self {
            circuit,
            key,
            max_keys: 1024,
            keys: std::marker::PhantomData,
        }
    }

    /// How many circuits are kept. Default 1024, some 4 MiB.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Starts with no circuits but the overflow's; each is closed at first.
    ///
    /// # Errors
    /// A setting outside the range that [`BreakerConfig`] gives for it; no keys; backpressure,
    /// because readiness is asked before there is a request, and so a key.
    pub fn build(self) -> Result<KeyedCircuitBreakerLayer<K, F, P>, ConfigError>
    where
        K: Hash + Eq + Clone,
    {
        let CircuitBreakerBuilder {
            config,
            enabled,
            backpressure,
            name,
            protocol,
        } = self.circuit;
        if backpressure {
            return Err(ConfigError::new(
                "backpressure",
                true,
                "leave it: readiness is asked before the key is known",
            ));
        }
        let circuits = Arc::new(Circuits::new(config, self.max_keys, enabled, name)?);
        Ok(KeyedCircuitBreakerLayer {
            circuits,
            key: self.key,
            protocol,
        })
    }
}

impl<K, F, P> KeyedCircuitBreakerLayer<K, F, P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> KeyedCircuitBreakerHandle<K> {
        KeyedCircuitBreakerHandle {
            circuits: self.circuits.clone(),
        }
    }
}

impl<K: Hash + Eq + Clone> KeyedCircuitBreakerHandle<K> {
    /// The key's circuit, if it has one of its own. The handle keeps it from giving its place to
    /// another.
    #[must_use]
    pub fn key(&self, key: &K) -> Option<CircuitBreakerHandle> {
        self.circuits
            .find(key)
            .map(|state| CircuitBreakerHandle::new(state.into()))
    }

    /// The circuit of all keys that have none of their own.
    #[must_use]
    pub fn overflow(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle::new(self.circuits.overflow())
    }

    /// All keys that have a circuit of their own. Costs a copy of each key; new keys overflow
    /// meanwhile.
    #[must_use]
    pub fn keys(&self) -> Vec<(K, CircuitBreakerHandle)> {
        self.circuits
            .all()
            .into_iter()
            .map(|(key, state)| (key, CircuitBreakerHandle::new(state.into())))
            .collect()
    }

    /// Takes other settings for all circuits, those to come included; each keeps its state and
    /// window.
    ///
    /// # Errors
    /// As [`CircuitBreakerHandle::update`].
    pub fn update(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        self.circuits.update(config)
    }
}

impl<K> Clone for KeyedCircuitBreakerHandle<K> {
    fn clone(&self) -> Self {
        Self {
            circuits: self.circuits.clone(),
        }
    }
}

impl<K, F: Clone, P: Clone> Clone for KeyedCircuitBreakerLayer<K, F, P> {
    fn clone(&self) -> Self {
        Self {
            circuits: self.circuits.clone(),
            key: self.key.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<K, F, P> fmt::Debug for KeyedCircuitBreakerLayer<K, F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreakerLayer")
            .finish_non_exhaustive()
    }
}

impl<S, K, F: Clone, P: Clone> Layer<S> for KeyedCircuitBreakerLayer<K, F, P> {
    type Service = KeyedCircuitBreaker<S, K, F, P>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedCircuitBreaker::new(
            inner,
            self.circuits.clone(),
            self.key.clone(),
            self.protocol.clone(),
        )
    }
}
