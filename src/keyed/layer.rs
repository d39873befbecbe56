//! The layer and its builder.

use std::{hash::RandomState, sync::Mutex};

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::{KeyedBuckets, Overflow, Rate},
    keyed::{ByRequest, Costed, Keyed, KeyedRateLimit, KeyedRateLimitHandle, Watched, handle::State},
    protocol::Plain,
    rate_limit::one_second_of,
    striped::Striped,
    time::Clock,
};

/// Limits the rate of calls of each key. All services it makes, and all their clones, share the limits.
#[derive(Debug)]
pub struct KeyedRateLimitLayer<M> {
    state: Striped<State>,
    keyed: M,
}

/// Settings of a [`KeyedRateLimitLayer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedRateLimitBuilder<M> {
    rate: Rate,
    burst: Option<u32>,
    keys: usize,
    overflow: Overflow,
    missing: Missing,
    advertise: bool,
    enabled: bool,
    name: Option<&'static str>,
    keyed: M,
}

/// What becomes of a request that has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Missing {
    /// All of them together have the limit of one key: who leaves the key out gains nothing.
    #[default]
    Share,
    /// It is rejected.
    Reject,
    /// It is admitted without a limit.
    Allow,
}

impl KeyedRateLimitLayer<()> {
    /// A limit of `rate` for each key that the closure `Fn(&Req) -> Option<impl Hash>` finds, with a burst of as many calls
    /// as come in one second of it, and at least 1.
    pub fn builder<F>(rate: Rate, key: F) -> KeyedRateLimitBuilder<Keyed<Plain, ByRequest<F>>> {
        KeyedRateLimitBuilder {
            rate,
            burst: None,
            keys: 100_000,
            overflow: Overflow::default(),
            missing: Missing::default(),
            advertise: false,
            enabled: true,
            name: None,
            keyed: Keyed { protocol: Plain::new(), key: ByRequest(key) },
        }
    }
}

impl<M> KeyedRateLimitLayer<M> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> KeyedRateLimitHandle {
        KeyedRateLimitHandle::new(self.state.clone())
    }
}

impl<P, K> KeyedRateLimitBuilder<Keyed<P, K>> {
    /// How many calls of one key may come at once after a pause. Default: one second's worth, and at least 1.
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = Some(burst);
        self
    }

    /// How many keys can be told apart that have used some of their burst at the same time. Default 100 000, which take
    /// 4 MiB at most; the memory is taken at once and never grows.
    pub fn keys(mut self, keys: usize) -> Self {
        self.keys = keys;
        self
    }

    /// What becomes of new keys when there are more than that. Default [`Overflow::Shared`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// What becomes of requests without a key. Default [`Missing::Share`].
    pub fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    /// Tells callers the limit of their key and what is left of it with every response, if the
    /// [`protocol`](Self::protocol) has means to: [`http::Server`](crate::protocol::http::Server) has. Default `false`.
    pub fn advertise(mut self, advertise: bool) -> Self {
        self.advertise = advertise;
        self
    }

    /// What a request costs its key: a closure `Fn(&Req) -> u32`. Default: 1. One that costs more than the burst is rejected
    /// as [`CostTooHigh`](crate::RejectedKind::CostTooHigh).
    pub fn cost<F>(self, cost: F) -> KeyedRateLimitBuilder<Keyed<P, Costed<K, F>>> {
        let Self { rate, burst, keys, overflow, missing, advertise, enabled, name, keyed } = self;
        let keyed = Keyed { protocol: keyed.protocol, key: Costed { key: keyed.key, cost } };
        KeyedRateLimitBuilder { rate, burst, keys, overflow, missing, advertise, enabled, name, keyed }
    }

    /// Counts rejections by key, for [`top_keys`](KeyedRateLimitHandle::top_keys), under what a closure `Fn(&Req) -> String`
    /// calls the key; where that is a secret, let it be a part. Default: they are not counted.
    ///
    /// 128 keys are counted at a time, with labels of 64 bytes, in 24 KiB at most. A rejection then takes a mutex and looks
    /// through them, or goes uncounted when another thread has the mutex; an admission costs nothing
    /// more. The closure runs under that mutex, so it must not ask the handle.
    pub fn top_keys<F>(self, label: F) -> KeyedRateLimitBuilder<Keyed<P, Watched<K, F>>> {
        let Self { rate, burst, keys, overflow, missing, advertise, enabled, name, keyed } = self;
        let keyed = Keyed { protocol: keyed.protocol, key: Watched { key: keyed.key, label } };
        KeyedRateLimitBuilder { rate, burst, keys, overflow, missing, advertise, enabled, name, keyed }
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
    pub fn protocol<Q>(self, protocol: Q) -> KeyedRateLimitBuilder<Keyed<Q, K>> {
        let Self { rate, burst, keys, overflow, missing, advertise, enabled, name, keyed } = self;
        let keyed = Keyed { protocol, key: keyed.key };
        KeyedRateLimitBuilder { rate, burst, keys, overflow, missing, advertise, enabled, name, keyed }
    }

    /// Starts with a full burst for every key.
    ///
    /// # Errors
    /// A rate of nothing or over nothing, a burst of 0 or one that takes over a year to refill, room for no key.
    pub fn build(self) -> Result<KeyedRateLimitLayer<Keyed<P, K>>, ConfigError> {
        let burst = self.burst.unwrap_or_else(|| one_second_of(self.rate));
        let buckets = KeyedBuckets::new(self.rate, burst, self.keys, self.overflow);
        let state = State {
            buckets: buckets.map_err(|error| error.of("rate_limit", self.name))?,
            seed: RandomState::new(),
            top: Mutex::default(),
            missing: self.missing,
            clock: Clock::start(),
            advertise: self.advertise,
            enabled: self.enabled,
            name: self.name,
        };
        Ok(KeyedRateLimitLayer { state: Striped::new(state), keyed: self.keyed })
    }
}

impl<M: Clone> Clone for KeyedRateLimitLayer<M> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), keyed: self.keyed.clone() }
    }
}

impl<S, M: Clone> Layer<S> for KeyedRateLimitLayer<M> {
    type Service = KeyedRateLimit<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedRateLimit::new(inner, self.state.clone(), self.keyed.clone())
    }
}
