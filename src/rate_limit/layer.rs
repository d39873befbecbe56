//! The layer and its builder.

use std::{hash::Hash, time::Duration};

use tokio::time::Instant;
use tower::Layer;

use crate::{
    ConfigError,
    algorithm::{Limit, MAX_BURST, Rate, TokenBucket},
    protocol::Plain,
    rate_limit::{
        ByRequest, ByResponse, KeyedRateLimitBuilder, ListedRateLimitBuilder, Metered, RateLimit,
        RateLimitHandle, Unkeyed,
        limits::Limits,
        state::{Settings, State, nanos},
    },
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
    pub(super) limit: Algorithm,
    pub(super) settings: Settings,
    pub(super) metered: M,
}

#[derive(Debug)]
pub(super) enum Algorithm {
    TokenBucket {
        rate: Rate,
        burst: Option<u32>,
    },
    /// With a burst that was set in vain.
    Given {
        limit: Box<dyn Limit>,
        burst: Option<u32>,
    },
}

impl RateLimitLayer {
    /// A [token bucket](TokenBucket) of `rate`, with a burst of as many calls as come in one second
    /// of it, and at least 1: for a quota by the minute or the day, set the
    /// [burst](RateLimitBuilder::burst) to what may come at once.
    pub fn builder(rate: Rate) -> RateLimitBuilder {
        RateLimitBuilder::new(Algorithm::TokenBucket { rate, burst: None })
    }

    /// Any [`Limit`]: a sliding window, a leaky bucket, several at once. Its time starts when the
    /// layer is built.
    ///
    /// One of your own is asked under the lock of those who wait, so it must not ask the layer's
    /// handle.
    pub fn with(limit: impl Limit + 'static) -> RateLimitBuilder {
        RateLimitBuilder::new(Algorithm::Given {
            limit: Box::new(limit),
            burst: None,
        })
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
        let settings = Settings {
            max_wait: None,
            max_waiting: None,
            deadlines: false,
            max_penalty: 0,
            advertise: false,
            enabled: true,
            name: None,
        };
        Self {
            limit,
            settings,
            metered: Metered::default(),
        }
    }
}

impl<M> RateLimitBuilder<M> {
    /// How many calls may come at once after a pause. Default: one second's worth, and at least 1.
    /// A limit given to [`with`](RateLimitLayer::with) has its own, and refuses this.
    pub fn burst(mut self, burst: u32) -> Self {
        let (Algorithm::TokenBucket { burst: setting, .. }
        | Algorithm::Given { burst: setting, .. }) = &mut self.limit;
        *setting = Some(burst);
        self
    }

    /// Lets calls over the limit wait for their turn, in order of arrival, if that is at most so
    /// long. Default: none wait.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = Some(nanos(wait));
        self
    }

    /// Lets at most so many calls wait at a time, for each key if the limit is keyed; one more is
    /// rejected at once. Default: as many as come, since how long each waits is bounded already.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.settings.max_waiting = Some(calls);
        self
    }

    /// Lets the peer's `Retry-After` close the limit, or its `RateLimit` field when that has
    /// nothing left; for at most `longest`. Default: it does not. A 429 that says neither changes
    /// nothing, and nor do `X-RateLimit-..` fields, whose numbers differ in meaning from server to
    /// server: read those yourself, and call the handle's `close_for`.
    pub fn honor_retry_after(mut self, longest: Duration) -> Self {
        self.settings.max_penalty = nanos(longest);
        self
    }

    /// Tells callers the limit and what is left of it with every response, if the
    /// [`protocol`](Self::protocol) has means to: [`http::Server`](crate::protocol::http::Server)
    /// has. Default `false`. Give each of several such limits a name.
    pub fn advertise(mut self, advertise: bool) -> Self {
        self.settings.advertise = advertise;
        self
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

    /// Starts with a full burst.
    ///
    /// # Errors
    /// A rate of nothing or over nothing, a burst of 0, or one that takes over a year to refill; a
    /// burst beside a limit that has its own; a number of calls that may wait where none may.
    pub fn build(self) -> Result<RateLimitLayer<M>, ConfigError> {
        let Self {
            limit,
            settings,
            metered,
        } = self;
        let limits = settings
            .checked()
            .and_then(|()| limit.limits())
            .map_err(|error| error.of("rate_limit", settings.name))?;
        Ok(RateLimitLayer {
            state: Striped::new(State::new(limits, Clock::start(), settings)),
            metered,
        })
    }

    fn map<N>(self, change: impl FnOnce(M) -> N) -> RateLimitBuilder<N> {
        RateLimitBuilder {
            limit: self.limit,
            settings: self.settings,
            metered: change(self.metered),
        }
    }
}

impl<P, C, A, D> RateLimitBuilder<Metered<P, C, A, D>> {
    /// What a request costs: a closure `Fn(&Req) -> u32`. Default: 1. One that costs more than the
    /// burst is rejected as [`CostTooHigh`](crate::RejectedKind::CostTooHigh).
    pub fn cost<Req, F>(self, cost: F) -> RateLimitBuilder<Metered<P, ByRequest<F>, A, D>>
    where
        F: Fn(&Req) -> u32,
    {
        self.map(
            |Metered {
                 protocol,
                 actual,
                 deadline,
                 key,
                 ..
             }| {
                let cost = ByRequest(cost);
                Metered {
                    protocol,
                    cost,
                    actual,
                    deadline,
                    key,
                }
            },
        )
    }

    /// What a call has cost, told by its response: a closure `Fn(&Res) -> u32`, or `-> Option<u32>`
    /// if not every response tells. What was taken too much is refunded; what was taken too little
    /// becomes a debt that later calls wait for. A call without a response, or without an answer,
    /// has cost what was taken.
    ///
    /// If only the end of the body tells, leave this and call the handle's `settle` there.
    pub fn settle<Res, T, F>(self, actual: F) -> RateLimitBuilder<Metered<P, C, ByResponse<F>, D>>
    where
        F: Fn(&Res) -> T,
        T: Into<Option<u32>>,
    {
        self.map(
            |Metered {
                 protocol,
                 cost,
                 deadline,
                 key,
                 ..
             }| {
                let actual = ByResponse(actual);
                Metered {
                    protocol,
                    cost,
                    actual,
                    deadline,
                    key,
                }
            },
        )
    }

    /// Lets a call wait until its own deadline, which a closure `Fn(&Req) ->
    /// Option<tokio::time::Instant>` tells; one whose turn would come at that or later is rejected
    /// at once. With [`max_wait`](Self::max_wait) the earlier of the two holds, and for a request
    /// without a deadline that alone. Default: no deadlines.
    pub fn deadline<Req, F>(
        mut self,
        deadline: F,
    ) -> RateLimitBuilder<Metered<P, C, A, ByRequest<F>>>
    where
        F: Fn(&Req) -> Option<Instant>,
    {
        self.settings.deadlines = true;
        self.map(
            |Metered {
                 protocol,
                 cost,
                 actual,
                 key,
                 ..
             }| {
                let deadline = ByRequest(deadline);
                Metered {
                    protocol,
                    cost,
                    actual,
                    deadline,
                    key,
                }
            },
        )
    }

    /// How rejections travel. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> RateLimitBuilder<Metered<Q, C, A, D>> {
        self.map(
            |Metered {
                 cost,
                 actual,
                 deadline,
                 key,
                 ..
             }| Metered {
                protocol,
                cost,
                actual,
                deadline,
                key,
            },
        )
    }

    /// Gives each key a limit of its own, all of this rate and burst: a closure `Fn(&Req) ->
    /// Option<K>` finds the key, which is [`Hash`]. Any number of keys, in a table of fixed size;
    /// none is kept.
    ///
    /// Set what is above first: the builder that this gives has only what keys add.
    pub fn keyed_by<Req, K, F>(
        self,
        key: F,
    ) -> KeyedRateLimitBuilder<Metered<P, C, A, D, ByRequest<F>>>
    where
        F: Fn(&Req) -> Option<K>,
        K: Hash,
    {
        KeyedRateLimitBuilder::new(self.map_key(|Unkeyed| ByRequest(key)))
    }

    /// Gives each key a limit of its own, of any kind: `key` is a closure `Fn(&Req) -> Option<K>`,
    /// and `limit` one `Fn(&K) -> Result<impl Limit, ConfigError>`, asked when a key comes for the
    /// first time. Keys are kept and can be listed, so this is for customers, not for whoever comes
    /// along.
    ///
    /// The limit that this builder was made with is the one that keys past the bound share. The
    /// closure `limit` is asked while new keys wait, so it must not ask the handle; asked for the
    /// same key again, after that was forgotten, it makes the same limit anew. If it fails, the key
    /// is one that found no place. It may make limits of several kinds as `Arc<dyn Limit>`. A part
    /// that several limits share, in an [`Arc`](std::sync::Arc), is nobody's to wake: what one key
    /// gives back to it, those who wait for another find when their own time comes.
    pub fn listed_by<Req, K, F, T, L>(
        self,
        key: F,
        limit: L,
    ) -> ListedRateLimitBuilder<K, F, Metered<P, C, A, D>>
    where
        F: Fn(&Req) -> Option<K>,
        L: Fn(&K) -> Result<T, ConfigError> + Send + Sync + 'static,
        T: Limit + 'static,
    {
        ListedRateLimitBuilder::new(self, key, Box::new(move |key| Ok(Box::new(limit(key)?))))
    }
}

impl<P, C, A, D, K> RateLimitBuilder<Metered<P, C, A, D, K>> {
    pub(super) fn map_key<N>(
        self,
        change: impl FnOnce(K) -> N,
    ) -> RateLimitBuilder<Metered<P, C, A, D, N>> {
        self.map(
            |Metered {
                 protocol,
                 cost,
                 actual,
                 deadline,
                 key,
             }| {
                let key = change(key);
                Metered {
                    protocol,
                    cost,
                    actual,
                    deadline,
                    key,
                }
            },
        )
    }
}

impl Algorithm {
    /// The rate and burst of a token bucket.
    pub(super) fn quota(&self) -> Result<(Rate, u32), ConfigError> {
        match self {
            Self::TokenBucket { rate, burst } => {
                Ok((*rate, burst.unwrap_or_else(|| one_second_of(*rate))))
            }
            Self::Given { limit, .. } => {
                let fix = "start from `RateLimitLayer::builder(rate)`, or give each key a limit of its kind with `listed_by`";
                Err(ConfigError::new("limit", limit.rate(), fix))
            }
        }
    }

    pub(super) fn limits(self) -> Result<Limits, ConfigError> {
        match self {
            Self::Given {
                burst: Some(burst), ..
            } => Err(ConfigError::new(
                "burst",
                burst,
                "leave it: the limit given to `with` has its own",
            )),
            Self::Given { limit, burst: None } => Ok(Limits::one(limit)),
            Self::TokenBucket { .. } => {
                let (rate, burst) = self.quota()?;
                Ok(Limits::Bucket {
                    bucket: TokenBucket::new(rate, burst)?,
                    line: Default::default(),
                })
            }
        }
    }
}

impl<M: Clone> Clone for RateLimitLayer<M> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            metered: self.metered.clone(),
        }
    }
}

impl<S, M: Clone> Layer<S> for RateLimitLayer<M> {
    type Service = RateLimit<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, self.state.clone(), self.metered.clone())
    }
}

fn one_second_of(rate: Rate) -> u32 {
    let seconds = u128::from(rate.count()) * 1_000_000_000;
    let burst = seconds.checked_div(rate.per().as_nanos()).unwrap_or(1);
    u32::try_from(burst.max(1))
        .unwrap_or(u32::MAX)
        .min(MAX_BURST)
}
