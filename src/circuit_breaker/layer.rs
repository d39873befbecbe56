//! The layer and its builder.

use std::time::Duration;

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::{Breaker, BreakerConfig, Verdict, Window},
    circuit_breaker::{CircuitBreaker, CircuitBreakerHandle, handle::State},
    protocol::Plain,
    striped::{Striped, stripe_count},
    time::Clock,
};

/// Stops calling a peer that fails. All services it makes, and all their clones, share the one circuit.
#[derive(Debug)]
pub struct CircuitBreakerLayer<P = Plain> {
    state: Striped<State>,
    protocol: P,
}

/// Settings of a [`CircuitBreakerLayer`]. What each means, and its default's reason, is told at [`BreakerConfig`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct CircuitBreakerBuilder<P = Plain> {
    config: BreakerConfig,
    enabled: bool,
    name: Option<&'static str>,
    protocol: P,
}

impl CircuitBreakerLayer {
    /// Opens at 50 % failures among at least 20 calls of the last 10 s, for 30 s; then three probes decide.
    pub fn builder() -> CircuitBreakerBuilder {
        CircuitBreakerBuilder { config: BreakerConfig::default(), enabled: true, name: None, protocol: Plain::new() }
    }
}

impl<P> CircuitBreakerLayer<P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle::new(self.state.anchored())
    }
}

impl<P> CircuitBreakerBuilder<P> {
    /// The share of failures that opens the circuit. Default 0.5.
    pub fn failure_rate(mut self, rate: f64) -> Self {
        self.config.failure_rate = Some(rate);
        self
    }

    /// How far back calls count. Default 10 s.
    pub fn window(mut self, window: Duration) -> Self {
        self.config.window = Window::Time(window);
        self
    }

    /// How many calls the window must hold before it is judged. Default 20.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.config.min_calls = calls;
        self
    }

    /// How long the circuit stays open before it probes. Default 30 s.
    pub fn open_for(mut self, duration: Duration) -> Self {
        self.config.open_for = duration;
        self
    }

    /// How many calls half-open lets through. Default 3.
    pub fn probes(mut self, probes: u16) -> Self {
        self.config.probes = probes;
        self
    }

    /// How the probes are judged. Default [`Verdict::AnyFailure`].
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.config.verdict = verdict;
        self
    }

    /// How long all the probes may stay out before the circuit opens again. Default: as long as it stays open.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.config.lease = Some(lease);
        self
    }

    /// `false` lets everything through, with the same type, and counts nothing. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// How results are classified and rejections travel. Default [`Plain`]: an `Err` is a failure, a rejection an error.
    pub fn protocol<Q>(self, protocol: Q) -> CircuitBreakerBuilder<Q> {
        CircuitBreakerBuilder { config: self.config, enabled: self.enabled, name: self.name, protocol }
    }

    /// Starts closed.
    ///
    /// # Errors
    /// A setting outside the range that [`BreakerConfig`] gives for it.
    pub fn build(self) -> Result<CircuitBreakerLayer<P>, ConfigError> {
        let breaker = Breaker::new(&self.config, stripe_count(), rand::random())?;
        if !self.enabled {
            breaker.disable();
        }
        let state = State::new(breaker, Clock::start(), self.name);
        Ok(CircuitBreakerLayer { state: Striped::new(state), protocol: self.protocol })
    }
}

impl<P: Clone> Clone for CircuitBreakerLayer<P> {
    fn clone(&self) -> Self {
        Self { state: self.state.anchored(), protocol: self.protocol.clone() }
    }
}

impl<S, P: Clone> Layer<S> for CircuitBreakerLayer<P> {
    type Service = CircuitBreaker<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.state.anchored(), self.protocol.clone())
    }
}
