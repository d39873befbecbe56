//! The layer and its builder.

use std::time::Duration;

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::{Breaker, BreakerConfig, SlowCalls, Verdict, Window},
    circuit_breaker::{
        CircuitBreaker, CircuitBreakerHandle, KeyedCircuitBreakerBuilder, handle::State,
    },
    protocol::Plain,
    striped::{Striped, stripe_count},
};

/// Stops calling a peer that fails. All services it makes, and all their clones, share the one
/// circuit.
#[derive(Debug)]
pub struct CircuitBreakerLayer<P = Plain> {
    state: Striped<State>,
    protocol: P,
}

/// Settings of a [`CircuitBreakerLayer`]. What each means, and its default's reason, is told at
/// [`BreakerConfig`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct CircuitBreakerBuilder<P = Plain> {
    pub(super) config: BreakerConfig,
    pub(super) enabled: bool,
    pub(super) backpressure: bool,
    pub(super) name: Option<&'static str>,
    pub(super) protocol: P,
}

impl CircuitBreakerLayer {
    /// Opens at 50 % failures among at least 20 calls of the last 10 s, for 30 s; then three probes
    /// decide.
    pub fn builder() -> CircuitBreakerBuilder {
        CircuitBreakerBuilder {
            config: BreakerConfig::default(),
            enabled: true,
            backpressure: false,
            name: None,
            protocol: Plain::new(),
        }
    }
}

impl<P> CircuitBreakerLayer<P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle::new(self.state.clone())
    }
}

impl<P> CircuitBreakerBuilder<P> {
    /// All settings of the algorithm at once, in place of those made so far.
    pub fn config(mut self, config: BreakerConfig) -> Self {
        self.config = config;
        self
    }

    /// The share of failures that opens the circuit; `None` for no share. Default 0.5.
    pub fn failure_rate(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.config.failure_rate = rate.into();
        self
    }

    /// A call that takes `after` is slow, and so large a share of slow calls opens the circuit.
    /// Default: none is slow.
    pub fn slow_calls(mut self, after: Duration, rate: f64) -> Self {
        self.config.slow_calls = Some(SlowCalls { after, rate });
        self
    }

    /// How many failures in a row open the circuit, however few calls there were. Default: any
    /// number.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.config.consecutive_failures = Some(failures);
        self
    }

    /// A call that is dropped unfinished has failed. Default: it counts for nothing, or, if it was
    /// slow, as a slow one.
    pub fn cancelled_as_failure(mut self) -> Self {
        self.config.cancelled_as_failure = true;
        self
    }

    /// The last so many calls count, however long ago they were. Default: those of the last 10 s.
    pub fn window_of_calls(mut self, calls: u32) -> Self {
        self.config.window = Window::Calls(calls);
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

    /// The open time doubles each time, with jitter, from [`open_for`](Self::open_for) to
    /// `longest`, until the circuit has stayed closed for a whole window. Default: it does not
    /// grow.
    pub fn growing_to(mut self, longest: Duration) -> Self {
        self.config.growing = true;
        self.max_open(longest)
    }

    /// Whether open times differ from circuit to circuit, so that a fleet does not probe in step: up
    /// to a tenth more, or the upper half of a growing one. Default `true`.
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.config.jitter = jitter;
        self
    }

    /// The longest the circuit stays open because the peer asks for it (`Retry-After`). Default ten
    /// times `open_for`.
    pub fn max_open(mut self, longest: Duration) -> Self {
        self.config.max_open = Some(longest);
        self
    }

    /// After the probes have closed it the circuit lets a growing share through, and all after so
    /// long. Default: at once.
    pub fn ramp(mut self, ramp: Duration) -> Self {
        self.config.ramp = ramp;
        self
    }

    /// How many calls half-open lets through. Default 3.
    pub fn probes(mut self, probes: u16) -> Self {
        self.config.probes = probes;
        self
    }

    /// How the probes are judged. Default [`Verdict::Rate`].
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.config.verdict = verdict;
        self
    }

    /// How long all the probes may stay out before the circuit opens again. Default: as long as it
    /// stays open.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.config.lease = Some(lease);
        self
    }

    /// For load balancers: `poll_ready` is pending while the circuit refuses, so that they turn to
    /// another peer. Default: ready, and the call is rejected.
    pub fn backpressure(mut self) -> Self {
        self.backpressure = true;
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

    /// How results are classified and rejections travel. Default [`Plain`]: an `Err` is a failure,
    /// a rejection an error.
    pub fn protocol<Q>(self, protocol: Q) -> CircuitBreakerBuilder<Q> {
        let Self {
            config,
            enabled,
            backpressure,
            name,
            ..
        } = self;
        CircuitBreakerBuilder {
            config,
            enabled,
            backpressure,
            name,
            protocol,
        }
    }

    /// A circuit for each key (a host, a route, a tenant) that `key` finds in requests, instead of
    /// one for all.
    pub fn keyed_by<Req, K, F>(self, key: F) -> KeyedCircuitBreakerBuilder<K, F, P>
    where
        F: Fn(&Req) -> K,
    {
        KeyedCircuitBreakerBuilder::new(self, key)
    }

    /// Starts closed.
    ///
    /// # Errors
    /// A setting outside the range that [`BreakerConfig`] gives for it.
    pub fn build(self) -> Result<CircuitBreakerLayer<P>, ConfigError> {
        let breaker = Breaker::new(&self.config, stripe_count(), rand::random());
        let breaker = breaker.map_err(|error| error.of("circuit_breaker", self.name))?;
        let state = State::new(breaker, self.config, self.name, self.backpressure);
        if !self.enabled {
            state.disable();
        }
        Ok(CircuitBreakerLayer {
            state: Striped::new(state),
            protocol: self.protocol,
        })
    }
}

impl<P: Clone> Clone for CircuitBreakerLayer<P> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S, P: Clone> Layer<S> for CircuitBreakerLayer<P> {
    type Service = CircuitBreaker<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.state.clone(), self.protocol.clone())
    }
}
