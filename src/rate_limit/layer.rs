//! The layer and its builder.

use std::time::Duration;

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::{Limit, MAX_BURST, Rate, TokenBucket},
    protocol::Plain,
    rate_limit::{ByRequest, ByResponse, Metered, RateLimit, RateLimitHandle, handle::State, line::Line},
    striped::Striped,
    time::Clock,
};

/// Limits the rate of calls. All services it makes, and all their clones, share the one limit.
#[derive(Debug)]
pub struct RateLimitLayer<M = Metered<Plain>> {
    state: Striped<State>,
    metered: M,
}

/// Settings of a [`RateLimitLayer`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RateLimitBuilder<M = Metered<Plain>> {
    limit: Algorithm,
    settings: Settings,
    metered: M,
}

#[derive(Debug)]
enum Algorithm {
    TokenBucket { rate: Rate, burst: Option<u32> },
    Given(Box<dyn Limit>),
}

#[derive(Debug)]
struct Settings {
    max_wait: Duration,
    longest_penalty: Duration,
    advertise: bool,
    enabled: bool,
    name: Option<&'static str>,
}

impl RateLimitLayer {
    /// A [token bucket](TokenBucket) of `rate`, with a burst of as many calls as come in one second of it, and at least
    /// 1: for a quota by the minute or the day, set the [burst](RateLimitBuilder::burst) to what may come at once.
    pub fn builder(rate: Rate) -> RateLimitBuilder {
        RateLimitBuilder::new(Algorithm::TokenBucket { rate, burst: None })
    }

    /// Any [`Limit`]: a sliding window, a leaky bucket, several at once. Its time starts when the layer is built.
    pub fn with(limit: impl Limit + 'static) -> RateLimitBuilder {
        RateLimitBuilder::new(Algorithm::Given(Box::new(limit)))
    }
}

impl<M> RateLimitLayer<M> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle::new(self.state.clone())
    }
}

impl RateLimitBuilder {
    fn new(limit: Algorithm) -> Self {
        let (max_wait, longest_penalty) = (Duration::ZERO, Duration::ZERO);
        let settings = Settings { max_wait, longest_penalty, advertise: false, enabled: true, name: None };
        Self { limit, settings, metered: Metered::default() }
    }
}

impl<P, C, A> RateLimitBuilder<Metered<P, C, A>> {
    /// How many calls may come at once after a pause. Default: one second's worth, and at least 1. A limit given to
    /// [`with`](RateLimitLayer::with) has its own.
    pub fn burst(mut self, burst: u32) -> Self {
        if let Algorithm::TokenBucket { burst: setting, .. } = &mut self.limit {
            *setting = Some(burst);
        }
        self
    }

    /// Lets calls over the limit wait for their turn, in order of arrival, if that is at most so long. Default: none wait.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = wait;
        self
    }

    /// Lets the peer's `Retry-After` close the limit, or its `RateLimit` field when that has nothing left; for at most
    /// `longest`. Default: it does not. A 429 that says neither changes nothing.
    pub fn obey_retry_after(mut self, longest: Duration) -> Self {
        self.settings.longest_penalty = longest;
        self
    }

    /// Tells callers the limit and what is left of it with every response, if the [`protocol`](Self::protocol) has means
    /// to: [`http::Server`](crate::protocol::http::Server) has. Default `false`. Give each of several such limits a name.
    pub fn advertise(mut self, advertise: bool) -> Self {
        self.settings.advertise = advertise;
        self
    }

    /// What a request costs: a closure `Fn(&Req) -> u32`. Default: 1.
    pub fn cost<F>(self, cost: F) -> RateLimitBuilder<Metered<P, ByRequest<F>, A>> {
        let Metered { protocol, actual, .. } = self.metered;
        let metered = Metered { protocol, cost: ByRequest(cost), actual };
        RateLimitBuilder { limit: self.limit, settings: self.settings, metered }
    }

    /// What a call has cost, told by its response: a closure `Fn(&Res) -> u32`. What was taken too much is refunded; what
    /// was taken too little becomes a debt that later calls wait for. A call without a response has cost what was taken.
    pub fn settle<F>(self, actual: F) -> RateLimitBuilder<Metered<P, C, ByResponse<F>>> {
        let Metered { protocol, cost, .. } = self.metered;
        let metered = Metered { protocol, cost, actual: ByResponse(actual) };
        RateLimitBuilder { limit: self.limit, settings: self.settings, metered }
    }

    /// `false` lets everything through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: &'static str) -> Self {
        self.settings.name = Some(name);
        self
    }

    /// How rejections travel. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> RateLimitBuilder<Metered<Q, C, A>> {
        let Metered { cost, actual, .. } = self.metered;
        RateLimitBuilder { limit: self.limit, settings: self.settings, metered: Metered { protocol, cost, actual } }
    }

    /// Starts with a full burst.
    ///
    /// # Errors
    /// A rate of nothing or over nothing, a burst of 0, or one that takes over a year to refill.
    pub fn build(self) -> Result<RateLimitLayer<Metered<P, C, A>>, ConfigError> {
        let limit = match self.limit {
            Algorithm::Given(limit) => limit,
            Algorithm::TokenBucket { rate, burst } => {
                let bucket = TokenBucket::new(rate, burst.unwrap_or_else(|| one_second_of(rate)));
                Box::new(bucket.map_err(|error| error.of("rate_limit", self.settings.name))?)
            }
        };
        let Settings { max_wait, longest_penalty, advertise, enabled, name } = self.settings;
        let state = State {
            limit,
            line: Line::default(),
            clock: Clock::start(),
            max_wait: nanos(max_wait),
            longest_penalty: nanos(longest_penalty),
            advertise,
            enabled,
            name,
        };
        Ok(RateLimitLayer { state: Striped::new(state), metered: self.metered })
    }
}

impl<M: Clone> Clone for RateLimitLayer<M> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), metered: self.metered.clone() }
    }
}

impl<S, M: Clone> Layer<S> for RateLimitLayer<M> {
    type Service = RateLimit<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, self.state.clone(), self.metered.clone())
    }
}

/// Longer than 584 years is 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn one_second_of(rate: Rate) -> u32 {
    let seconds = u128::from(rate.count()) * 1_000_000_000;
    let burst = seconds.checked_div(rate.per().as_nanos()).unwrap_or(1);
    u32::try_from(burst.max(1)).unwrap_or(u32::MAX).min(MAX_BURST)
}
