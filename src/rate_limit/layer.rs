//! The layer and its builder.

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::{Rate, TokenBucket},
    protocol::Plain,
    rate_limit::{RateLimit, RateLimitHandle, handle::State},
    striped::Striped,
    time::Clock,
};

/// Limits the rate of calls. All services it makes, and all their clones, share the one limit.
#[derive(Debug)]
pub struct RateLimitLayer<P = Plain> {
    state: Striped<State>,
    protocol: P,
}

/// Settings of a [`RateLimitLayer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RateLimitBuilder<P = Plain> {
    rate: Rate,
    burst: Option<u32>,
    enabled: bool,
    name: Option<&'static str>,
    protocol: P,
}

impl RateLimitLayer {
    /// A limit of `rate`, with a burst of as many calls as come in one second of it, and at least 1.
    pub fn builder(rate: Rate) -> RateLimitBuilder {
        RateLimitBuilder { rate, burst: None, enabled: true, name: None, protocol: Plain::new() }
    }
}

impl<P> RateLimitLayer<P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle::new(self.state.anchored())
    }
}

impl<P> RateLimitBuilder<P> {
    /// How many calls may come at once after a pause. Default: one second's worth, and at least 1.
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = Some(burst);
        self
    }

    /// `false` lets everything through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// How rejections travel. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> RateLimitBuilder<Q> {
        RateLimitBuilder { rate: self.rate, burst: self.burst, enabled: self.enabled, name: self.name, protocol }
    }

    /// Starts with a full burst.
    ///
    /// # Errors
    /// A rate of nothing or over nothing, a burst of 0, or one that takes over a year to refill.
    pub fn build(self) -> Result<RateLimitLayer<P>, ConfigError> {
        let burst = self.burst.unwrap_or_else(|| one_second_of(self.rate));
        let bucket = TokenBucket::new(self.rate, burst).map_err(|error| error.of("rate_limit", self.name))?;
        let state = State { bucket, clock: Clock::start(), enabled: self.enabled, name: self.name };
        Ok(RateLimitLayer { state: Striped::new(state), protocol: self.protocol })
    }
}

impl<P: Clone> Clone for RateLimitLayer<P> {
    fn clone(&self) -> Self {
        Self { state: self.state.anchored(), protocol: self.protocol.clone() }
    }
}

impl<S, P: Clone> Layer<S> for RateLimitLayer<P> {
    type Service = RateLimit<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, self.state.anchored(), self.protocol.clone())
    }
}

fn one_second_of(rate: Rate) -> u32 {
    let seconds = u128::from(rate.count()) * 1_000_000_000;
    let burst = seconds.checked_div(rate.per().as_nanos()).unwrap_or(1);
    u32::try_from(burst.max(1)).unwrap_or(u32::MAX)
}
