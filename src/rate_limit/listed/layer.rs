//! The layer and its builder.

use std::{fmt, hash::Hash, sync::Arc};

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::Overflow,
    keyed::registry::Registry,
    protocol::Plain,
    rate_limit::{
        ListedRateLimit, ListedRateLimitHandle, Metered, Missing, RateLimitBuilder,
        listed::list::{Listed, MakeLimit, Making},
        state::State,
    },
    striped::Striped,
    time::Clock,
};

/// A limit of its own for each key of a list: of any kind, of a rate for each, or of several that
/// some share.
///
/// Made by [`listed_by`](RateLimitBuilder::listed_by). All services it makes, and all their clones,
/// share the limits.
///
/// ```
/// use std::sync::Arc;
///
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_keep::{algorithm::{All, SlidingLog, TokenBucket}, rate_limit::{Rate, RateLimitLayer}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Customer { name: &'static str, pays: bool }
///
/// // Each customer by its plan, and all of them together 1000/s: of a call all limits are charged, or none.
/// let total = Arc::new(TokenBucket::new(Rate::per_second(1000), 1000)?);
/// let limit = RateLimitLayer::builder(Rate::per_second(1))
///     .listed_by(|customer: &Customer| Some(customer.clone()), move |customer| {
///         let own = SlidingLog::new(Rate::per_minute(if customer.pays { 100 } else { 1 }))?;
///         Ok(All::new(own).and(total.clone()))
///     })
///     .build()?;
/// let service = limit.layer(service_fn(async |_: Customer| Ok::<_, std::io::Error>("served")));
///
/// let (ann, bob) = (Customer { name: "Ann", pays: false }, Customer { name: "Bob", pays: true });
/// assert!(service.clone().oneshot(ann.clone()).await.is_ok());
/// assert!(service.clone().oneshot(ann).await.is_err());
/// assert!(service.clone().oneshot(bob.clone()).await.is_ok());
/// assert_eq!(limit.handle().key(&bob).unwrap().snapshot().available, 99);
/// # Ok(()) }
/// ```
///
/// **Bounds.** At most [`max_keys`](ListedRateLimitBuilder::max_keys). A new key past that takes
/// the place of a limit that is as good as new, and that no call, waiting or in flight, holds. If
/// there is none at hand, [`overflow`](ListedRateLimitBuilder::overflow) says what becomes of it,
/// for this call. Nothing runs in the background.
///
/// **Cost.** A look-up in a map that readers do not write to, a reference count and a fence, beside
/// what the limit costs. The first call of a key takes a mutex, and makes its limit.
pub struct ListedRateLimitLayer<K, F, M = Metered<Plain>> {
    limits: Arc<Listed<K>>,
    key: F,
    metered: M,
}

/// Settings of a [`ListedRateLimitLayer`], beside those of each limit.
#[must_use = "a builder does nothing until `build`"]
pub struct ListedRateLimitBuilder<K, F, M = Metered<Plain>> {
    shared: RateLimitBuilder<M>,
    key: F,
    limit: MakeLimit<K>,
    max_keys: usize,
    overflow: Overflow,
    missing: Missing,
}

impl<K, F, M> ListedRateLimitBuilder<K, F, M> {
    pub(in crate::rate_limit) fn new(
        shared: RateLimitBuilder<M>,
        key: F,
        limit: MakeLimit<K>,
    ) -> Self {
        Self {
            shared,
            key,
            limit,
            max_keys: 1024,
            overflow: Overflow::default(),
            missing: Missing::default(),
        }
    }

    /// How many limits are kept. Default 1024, which take some 1.3 MiB with token buckets.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// What becomes of new keys when there are more than that. Default [`Overflow::Shared`]: they
    /// share the limit that the builder was made with.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// What becomes of requests without a key. Default [`Missing::Share`]: they share the limit
    /// that the builder was made with.
    pub fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    /// Starts with no limits but the shared one. A key whose limit cannot be made is treated as one
    /// that found no place.
    ///
    /// # Errors
    /// A shared limit that cannot work; no keys.
    pub fn build(self) -> Result<ListedRateLimitLayer<K, F, M>, ConfigError>
    where
        K: Hash + Eq + Clone,
    {
        let RateLimitBuilder {
            limit,
            settings,
            metered,
        } = self.shared;
        let of = |error: ConfigError| error.of("rate_limit", settings.name);
        if self.max_keys == 0 {
            let fix = "keep at least 1, or build a rate limit without keys";
            return Err(of(ConfigError::new("max_keys", self.max_keys, fix)));
        }
        settings.checked().map_err(of)?;
        let clock = Clock::start();
        let shared = Striped::new(State::new(limit.limits().map_err(of)?, clock, settings));
        let own = Registry::new(
            Making {
                limit: self.limit,
                clock,
                settings,
            },
            self.max_keys,
        );
        let limits = Arc::new(Listed {
            own,
            shared,
            overflow: self.overflow,
            missing: self.missing,
        });
        Ok(ListedRateLimitLayer {
            limits,
            key: self.key,
            metered,
        })
    }
}

impl<K: Hash + Eq + Clone, F, M> ListedRateLimitLayer<K, F, M> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> ListedRateLimitHandle<K> {
        ListedRateLimitHandle::new(self.limits.clone())
    }
}

impl<K, F: Clone, M: Clone> Clone for ListedRateLimitLayer<K, F, M> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits.clone(),
            key: self.key.clone(),
            metered: self.metered.clone(),
        }
    }
}

impl<K, F, M> fmt::Debug for ListedRateLimitLayer<K, F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedRateLimitLayer")
            .finish_non_exhaustive()
    }
}

impl<K, F, M> fmt::Debug for ListedRateLimitBuilder<K, F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedRateLimitBuilder")
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

impl<S, K, F: Clone, M: Clone> Layer<S> for ListedRateLimitLayer<K, F, M> {
    type Service = ListedRateLimit<S, K, F, M>;

    fn layer(&self, inner: S) -> Self::Service {
        ListedRateLimit::new(
            inner,
            self.limits.clone(),
            self.key.clone(),
            self.metered.clone(),
        )
    }
}
