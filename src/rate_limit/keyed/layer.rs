//! The layer and its builder.

use std::{hash::RandomState, sync::Mutex};

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::{KeyedBuckets, Limit, Overflow},
    rate_limit::{
        KeyedRateLimitHandle, Metered, RateLimit, RateLimitBuilder, Watched,
        keyed::{Table, table::Total},
        limits::Limits,
        lines::Lines,
        state::State,
    },
    striped::Striped,
    time::Clock,
};

/// Limits the rate of calls of each key. All services it makes, and all their clones, share the
/// limits.
///
/// Made by [`keyed_by`](RateLimitBuilder::keyed_by).
///
/// ```
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_keep::{RejectedKind, Rejected, rate_limit::{Missing, Rate, RateLimitLayer}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// struct Order { customer: Option<u64> }
///
/// let limit = RateLimitLayer::builder(Rate::per_minute(60))
///     .burst(1)
///     .keyed_by(|order: &Order| order.customer)
///     .missing(Missing::Reject)
///     .build()?;
/// let service = limit.layer(service_fn(async |_: Order| Ok::<_, std::io::Error>("accepted")));
///
/// let order = |customer| service.clone().oneshot(Order { customer });
/// assert!(order(Some(1)).await.is_ok());
/// assert!(order(Some(1)).await.is_err(), "one customer's limit");
/// assert!(order(Some(2)).await.is_ok(), "is not another's");
/// assert!(order(None).await.is_err(), "and nobody gets past it without a key");
/// # Ok(()) }
/// ```
///
/// The algorithm is [`KeyedBuckets`]: a table of a fixed size, which forgets only keys whose limit
/// is as good as new. Keys themselves are not kept. Their hash is seeded anew for each layer, so
/// nobody can choose keys that share slots. There is no background task. For limits of another
/// kind, of a rate for each key, or to list the keys, there is
/// [`listed_by`](RateLimitBuilder::listed_by).
#[derive(Debug)]
pub struct KeyedRateLimitLayer<M> {
    state: Striped<State>,
    metered: M,
}

/// Settings of a [`KeyedRateLimitLayer`], beside those of each key's limit.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedRateLimitBuilder<M> {
    limit: RateLimitBuilder<M>,
    keys: usize,
    overflow: Overflow,
    missing: Missing,
    total: Option<Box<dyn Limit>>,
}

/// What becomes of a request that has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Missing {
    /// All of them together have the limit of one key: who leaves the key out gains nothing.
    #[default]
    Share,
    /// It is rejected, as [`MissingKey`](crate::RejectedKind::MissingKey): a 400 on an HTTP server.
    Reject,
    /// It is admitted without a limit.
    Allow,
}

impl<M> KeyedRateLimitLayer<M> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> KeyedRateLimitHandle {
        KeyedRateLimitHandle::new(self.state.clone())
    }
}

impl<M> KeyedRateLimitBuilder<M> {
    pub(in crate::rate_limit) fn new(limit: RateLimitBuilder<M>) -> Self {
        Self {
            limit,
            keys: 100_000,
            overflow: Overflow::default(),
            missing: Missing::default(),
            total: None,
        }
    }

    /// How many keys can be told apart that have used some of their burst at the same time. Default
    /// 100 000, which take 4 MiB at most; the memory is taken at once and never grows.
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

    /// A limit that all keys together stay within: a call is charged to both, or to neither.
    /// Default: none. Where the limit is [advertised](RateLimitBuilder::advertise), callers are
    /// told of both.
    ///
    /// Where calls may wait, they wait in their key's line until that has room, and then as its
    /// first in another, for the total. How long that takes is known only in part when a call
    /// comes, since the calls behind the first of other keys may come before it: one whose time is
    /// up meanwhile is rejected then.
    pub fn within(mut self, total: impl Limit + 'static) -> Self {
        self.total = Some(Box::new(total));
        self
    }

    /// Starts with a full burst for every key.
    ///
    /// # Errors
    /// A rate of nothing or over nothing, a burst of 0 or one that takes over a year to refill,
    /// room for no key; a limit given to [`with`](crate::rate_limit::RateLimitLayer::with), which
    /// is one and not one for each key.
    pub fn build(self) -> Result<KeyedRateLimitLayer<M>, ConfigError> {
        let (settings, metered) = (self.limit.settings, self.limit.metered);
        settings
            .checked()
            .map_err(|error| error.of("rate_limit", settings.name))?;
        let buckets = self
            .limit
            .limit
            .quota()
            .and_then(|(rate, burst)| KeyedBuckets::new(rate, burst, self.keys, self.overflow));
        let table = Table {
            buckets: buckets.map_err(|error| error.of("rate_limit", settings.name))?,
            total: self.total.map(Total::new),
            seed: RandomState::new(),
            missing: self.missing,
            top: Mutex::default(),
            lines: Lines::default(),
        };
        let state = State::new(Limits::Keyed(table), Clock::start(), settings);
        Ok(KeyedRateLimitLayer {
            state: Striped::new(state),
            metered,
        })
    }
}

impl<P, C, A, D, K> KeyedRateLimitBuilder<Metered<P, C, A, D, K>> {
    /// Counts rejections by key, for [`top_keys`](KeyedRateLimitHandle::top_keys), under what a
    /// closure `Fn(&Req) -> String` calls the key; where that is a secret, let it be a part.
    /// Default: they are not counted.
    ///
    /// 128 keys are counted at a time, with labels of 64 bytes, in 24 KiB at most. A rejection then
    /// takes a mutex and looks through them, or goes uncounted when another thread has the mutex;
    /// an admission costs nothing more. The closure runs under that mutex, so it must not ask the
    /// handle.
    #[expect(
        clippy::type_complexity,
        reason = "what replaces one part of a type names all of them"
    )]
    pub fn top_keys<Req, F>(
        self,
        label: F,
    ) -> KeyedRateLimitBuilder<Metered<P, C, A, D, Watched<K, F>>>
    where
        F: Fn(&Req) -> String,
    {
        let Self {
            limit,
            keys,
            overflow,
            missing,
            total,
        } = self;
        let limit = limit.map_key(|key| Watched { key, label });
        KeyedRateLimitBuilder {
            limit,
            keys,
            overflow,
            missing,
            total,
        }
    }
}

impl<M: Clone> Clone for KeyedRateLimitLayer<M> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            metered: self.metered.clone(),
        }
    }
}

impl<S, M: Clone> Layer<S> for KeyedRateLimitLayer<M> {
    type Service = RateLimit<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, self.state.clone(), self.metered.clone())
    }
}
