//! The builder of a rate limit.

use std::{hash::Hash, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    ConfigError, Name,
    algorithm::{Limit, Rate},
    ambient::clock::nanos,
    gate::{CostOf, DeadlineOf, UsedOf},
    keyed::{KeyFn, KeySettings, NotKeyed},
    protocol::Plain,
    rate_limit::{
        Advertise, Follow, Outage, PerKey, RateLimitLayer, fleet_values::FleetValues,
        key_hash::FleetSecret, keyed::MakeLimit, settings::Settings,
    },
    store::Store,
};

/// Settings of a [`RateLimitLayer`], in any order. Those of keys follow the key.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RateLimitBuilder<K = NotKeyed, P = Plain, A = ()> {
    pub(super) values: RateLimitValues,
    pub(super) key: K,
    pub(super) asks: A,
    pub(super) protocol: P,
}

/// The settings that no type parameter of the builder depends on.
#[derive(Debug)]
pub(super) struct RateLimitValues {
    pub(super) limit: Algorithm,
    pub(super) settings: Settings,
    pub(super) keys: KeySettings,
    pub(super) total: Option<Box<dyn Limit>>,
    pub(super) fleet: FleetValues,
}

/// A builder's state: each key in a [table](RateLimitBuilder::keyed_by).
#[derive(Debug, Clone, Copy)]
pub struct InTable<F>(pub(super) F);

#[derive(Debug)]
pub(super) enum Algorithm {
    TokenBucket {
        rate: Rate,
        burst: Option<u32>,
    },
    /// A limit given by the caller. `burst` is set only by mistake, and then rejected.
    Given {
        limit: Box<dyn Limit>,
        burst: Option<u32>,
    },
}

impl RateLimitLayer {
    /// Starts with a [token bucket](crate::algorithm::TokenBucket) of `rate`. The default burst is
    /// the calls of one second of that rate, and at least 1. For a quota by the minute or the day,
    /// set the [burst](RateLimitBuilder::burst) to what may come at once.
    pub fn builder(rate: Rate) -> RateLimitBuilder {
        RateLimitBuilder::new(Algorithm::TokenBucket { rate, burst: None })
    }

    /// Starts with any [`Limit`]: a sliding window, a leaky bucket, several at once. Its clock
    /// starts when the layer is built. Layers may share a limit: give each a clone of an `Arc`.
    pub fn with(limit: impl Limit + 'static) -> RateLimitBuilder {
        let limit = Box::new(limit);
        RateLimitBuilder::new(Algorithm::Given { limit, burst: None })
    }
}

impl RateLimitBuilder {
    fn new(limit: Algorithm) -> Self {
        let settings = Settings {
            max_wait: None,
            max_waiting: None,
            deadlines: false,
            max_penalty: 0,
            follow: None,
            advertise: Advertise::default(),
            partition: None,
            enabled: true,
            counts_admitted: true,
            name: None,
        };
        Self {
            values: RateLimitValues {
                limit,
                settings,
                keys: KeySettings::default(),
                total: None,
                fleet: FleetValues::default(),
            },
            key: NotKeyed,
            asks: (),
            protocol: Plain::new(),
        }
    }
}

impl<K, P, A> RateLimitBuilder<K, P, A> {
    /// Sets how many calls may come at once after a pause. Default: one second's worth, and at
    /// least 1. A limit given to [`with`](RateLimitLayer::with) has its own burst, and `build` then
    /// fails.
    pub fn burst(mut self, burst: u32) -> Self {
        let (Algorithm::TokenBucket { burst: setting, .. }
        | Algorithm::Given { burst: setting, .. }) = &mut self.values.limit;
        *setting = Some(burst);
        self
    }

    /// Lets a call over the limit wait in order of arrival, if it can be admitted within `wait`.
    /// Default: no call waits.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.values.settings.max_wait = Some(nanos(wait));
        self
    }

    /// Sets the most calls that wait at a time, for each key if the limit is keyed. One more is
    /// rejected at once. Default 1024, and 16 times that for all keys together, because waiting
    /// tasks are a load too.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.values.settings.max_waiting = Some(calls);
        self
    }

    /// Lets the upstream's `Retry-After`, or its `RateLimit` field with nothing left, close the
    /// limit for at most `max`. Default: hints are not honored. A 429 without either changes
    /// nothing. `X-RateLimit-..` fields change nothing either, because their meaning differs
    /// between servers: [`follow`](Self::follow) those of a known provider.
    pub fn honor_retry_after(mut self, max: Duration) -> Self {
        self.values.settings.max_penalty = nanos(max);
        self
    }

    /// Follows one of the quotas that the upstream's responses report. `http::Client::provider`
    /// reads those of OpenAI's and Anthropic's APIs, `http::Client::hints` reads others. Default:
    /// none.
    ///
    /// The limit's own rate and burst stay its maximum. The upstream's quota, as last reported,
    /// applies as well. A call is charged to both or to neither, so the limit admits no more than
    /// the upstream has left. A report keeps the limit below one unit no longer than until the
    /// reset that it names.
    ///
    /// Count the limit in the units of the quota: for a quota of tokens, set a [`cost`](Self::cost)
    /// in tokens. Works for each key of [`per_key`](Self::per_key), and not for a table of keys.
    pub fn follow(mut self, quota: Follow) -> Self {
        self.values.settings.follow = Some(quota);
        self
    }

    /// The longest time that a hint closes the limit, if hints are honored.
    #[cfg(feature = "http")]
    pub(crate) fn honored(&self) -> Option<Duration> {
        let Settings {
            max_penalty,
            enabled,
            ..
        } = self.values.settings;
        (enabled && max_penalty > 0).then(|| Duration::from_nanos(max_penalty))
    }

    /// Sends callers the limit and what is left of it with every response, if the
    /// [`protocol`](Self::protocol) supports that, as
    /// [`http::Server`](crate::protocol::http::Server) does. Default `false`. Give each of several
    /// advertised limits a name. See [`Advertise`] for more.
    pub fn advertise(mut self, advertise: impl Into<Advertise>) -> Self {
        self.values.settings.advertise = advertise.into();
        self
    }

    /// If `false`, lets every call through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.settings.enabled = enabled;
        self
    }

    /// Names this instance in errors and events, and adds it to the
    /// [`Registry`](crate::observe::Registry). Without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.settings.name = Some(name.into().as_str());
        self
    }

    /// Shares the limit among all processes that give the same name, through a
    /// [store](crate::store). With keys, shares the limit of each key.
    ///
    /// The store grants units ahead, some ten times a second. A call that finds a granted unit
    /// spends it with one compare-and-swap and does not wait. A call that finds none, such as the
    /// first one of a key, waits for the store like a call over the limit. Therefore
    /// [`max_wait`](Self::max_wait) defaults to 250 ms here. If it is zero, such calls are
    /// rejected. A key that is called less often than ten times a second asks the store for each
    /// call.
    ///
    /// The burst must take at least 400 ms to refill. In any window of `t`, all processes together
    /// admit at most `burst + rate * t`. While the store is down, [`while_down`](Self::while_down)
    /// applies. The store's type is not part of the layer's type. The store sees keys as hashes
    /// of 128 bits under a [secret](Self::fleet_secret). The guide's page
    /// [`fleet`](crate::guide::fleet) states them.
    pub fn fleet<S: Store + Clone>(mut self, store: &S, name: impl Into<Name>) -> Self {
        self.values.fleet.share(store, name.into());
        self
    }

    /// Sets the fate of calls while the store of a [fleet](Self::fleet) does not answer. Default
    /// [`Outage::Closed`].
    pub fn while_down(mut self, outage: Outage) -> Self {
        self.values.fleet.outage = Some(outage);
        self
    }

    /// Hashes the keys of a [fleet](Self::fleet) under a secret of yours, the same in all of its
    /// processes. Default: one that is published, so a reader of the store can test guesses of a
    /// key. Another secret makes other keys, so the store forgets what was used.
    pub fn fleet_secret(mut self, secret: [u8; 16]) -> Self {
        self.values.fleet.secret = Some(FleetSecret(secret));
        self
    }

    /// Sets the settings of keys that are not set yet, from a file.
    #[cfg(feature = "serde")]
    pub(crate) fn key_settings(mut self, keys: KeySettings) -> Self {
        self.values.keys.or(keys);
        self
    }

    /// Sets the protocol of rejections. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> RateLimitBuilder<K, Q, A> {
        RateLimitBuilder {
            values: self.values,
            key: self.key,
            asks: self.asks,
            protocol,
        }
    }

    /// Gives each key its own limit, all of this rate and burst. A closure `Fn(&Req) -> Option<K>`
    /// finds the key, which is [`Hash`]. The table has a fixed size, takes any number of keys, and
    /// keeps none of them.
    pub fn keyed_by<Req, T, F>(self, key: F) -> RateLimitBuilder<InTable<KeyFn<F, Req>>, P, A>
    where
        F: Fn(&Req) -> Option<T>,
        T: Hash,
    {
        self.with_key(InTable(KeyFn::new(key)))
    }

    /// Gives each requested [host](crate::keyed::Host) its own limit, all of this rate and burst,
    /// in a table as with [`keyed_by`](Self::keyed_by).
    #[cfg(feature = "http")]
    pub fn per_host(self) -> RateLimitBuilder<InTable<crate::keyed::ByHost>, P, A> {
        self.with_key(InTable(crate::keyed::ByHost))
    }

    /// Gives each key its own limit, of any kind. `key` is a closure `Fn(&Req) -> Option<K>`.
    /// `limit` is a closure `Fn(&K) -> Result<impl Limit, ConfigError>`, called at a key's first
    /// request. Keys are kept and can be listed. Use this for a bounded set of keys, such as
    /// customers, and not for arbitrary clients.
    ///
    /// Keys past the bound share the limit that this builder was made with. The closure `limit` may
    /// be called twice for one key. If it fails, its key is treated as one that found no room. It
    /// may make limits of several kinds as `Arc<dyn Limit>`. Several limits may share a part in an
    /// [`Arc`]. When one key gives units back to a shared part, the waiters of other keys are not
    /// notified: they find the units when their own time comes.
    pub fn per_key<Req, T, F, G, L>(
        self,
        key: F,
        limit: G,
    ) -> RateLimitBuilder<PerKey<KeyFn<F, Req>>, P, A>
    where
        F: Fn(&Req) -> Option<T>,
        G: Fn(&T) -> Result<L, ConfigError> + Send + Sync + 'static,
        L: Limit + 'static,
    {
        let limit: MakeLimit<T> = Arc::new(move |key| Ok(Box::new(limit(key)?)));
        let key = KeyFn::new(key);
        self.with_key(PerKey { key, limit })
    }

    fn with_key<L>(self, key: L) -> RateLimitBuilder<L, P, A> {
        RateLimitBuilder {
            values: self.values,
            key,
            asks: self.asks,
            protocol: self.protocol,
        }
    }
}

impl<K, P, A> RateLimitBuilder<K, P, A> {
    /// Sets the cost of a request: a closure `Fn(&Req) -> u32`. Default: 1. A call that costs more
    /// than the burst is rejected as [`CostTooHigh`](crate::RejectedKind::CostTooHigh). A call that
    /// costs 0 is admitted.
    pub fn cost<Req, F>(self, cost: F) -> RateLimitBuilder<K, P, (A, CostOf<F>)>
    where
        F: Fn(&Req) -> u32,
    {
        self.with_ask(CostOf(cost))
    }

    /// Settles a call by its response: a closure `Fn(&Res) -> u32` returns the units used, or an
    /// `Option<u32>` if not every response has them. Units taken in excess are refunded. Units
    /// taken short become a debt that later calls wait for. A call without a response, or whose
    /// response has no number, keeps the cost that was taken.
    ///
    /// If only the end of the body has the number, do not set this. Call the handle's `settle`
    /// there.
    pub fn settle<Res, T, F>(self, used: F) -> RateLimitBuilder<K, P, (A, UsedOf<F>)>
    where
        F: Fn(&Res) -> T,
        T: Into<Option<u32>>,
    {
        self.with_ask(UsedOf(used))
    }

    /// Sets a deadline per request: a closure `Fn(&Req) -> Option<tokio::time::Instant>`. A call
    /// over the limit may wait until its deadline. It is rejected at once if it would be admitted
    /// only at its deadline or later. A call that arrives at or after its deadline is rejected even
    /// if there is room. With [`max_wait`](Self::max_wait) the earlier of the two applies, and that
    /// alone for a request without a deadline. Default: no deadlines.
    pub fn deadline<Req, F>(mut self, deadline: F) -> RateLimitBuilder<K, P, (A, DeadlineOf<F>)>
    where
        F: Fn(&Req) -> Option<Instant>,
    {
        self.values.settings.deadlines = true;
        self.with_ask(DeadlineOf(deadline))
    }

    /// Adds a closure that reads each request. A deadline added here only shortens waits: calls
    /// wait only if [`max_wait`](Self::max_wait) is set.
    pub(crate) fn with_ask<B>(self, ask: B) -> RateLimitBuilder<K, P, (A, B)> {
        RateLimitBuilder {
            values: self.values,
            key: self.key,
            asks: (self.asks, ask),
            protocol: self.protocol,
        }
    }
}
