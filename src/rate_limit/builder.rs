//! The builder.

use std::{hash::Hash, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    ConfigError, Name,
    algorithm::{Limit, Overflow, Rate},
    ambient::clock::nanos,
    gate::{CostOf, DeadlineOf, UsedOf},
    keyed::{KeyFn, KeySettings, Missing, NotKeyed},
    protocol::Plain,
    rate_limit::{
        Advertise, Follow, Labelled, Outage, PerKey, RateLimitLayer, fleet::FleetSettings,
        keyed::MakeLimit, settings::Settings,
    },
    store::Store,
};

/// Settings of a [`RateLimitLayer`], in any order.
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
    pub(super) fleet: Option<FleetSettings>,
    pub(super) outage: Option<Outage>,
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
    /// With a burst that was set in vain.
    Given {
        limit: Box<dyn Limit>,
        burst: Option<u32>,
    },
}

impl RateLimitLayer {
    /// A [token bucket](crate::algorithm::TokenBucket) of `rate`, with a burst of as many calls as
    /// come in one second of it, and at least 1: for a quota by the minute or the day, set the
    /// [burst](RateLimitBuilder::burst) to what may come at once.
    pub fn builder(rate: Rate) -> RateLimitBuilder {
        RateLimitBuilder::new(Algorithm::TokenBucket { rate, burst: None })
    }

    /// Any [`Limit`]: a sliding window, a leaky bucket, several at once. Its time starts when the
    /// layer is built. Layers may share one: give each a clone of an `Arc`.
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
                fleet: None,
                outage: None,
            },
            key: NotKeyed,
            asks: (),
            protocol: Plain::new(),
        }
    }
}

impl<K, P, A> RateLimitBuilder<K, P, A> {
    /// How many calls may come at once after a pause. Default: one second's worth, and at least 1.
    /// A limit given to [`with`](RateLimitLayer::with) has its own, and rejects this.
    pub fn burst(mut self, burst: u32) -> Self {
        let (Algorithm::TokenBucket { burst: setting, .. }
        | Algorithm::Given { burst: setting, .. }) = &mut self.values.limit;
        *setting = Some(burst);
        self
    }

    /// Lets calls over the limit wait for their turn, in order of arrival, if that is at most so
    /// long. Default: none wait.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.values.settings.max_wait = Some(nanos(wait));
        self
    }

    /// Lets at most so many calls wait at a time, for each key if the limit is keyed; one more is
    /// rejected at once. Default 1024, and 16 times that for all keys together: tasks that wait are
    /// a load too.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.values.settings.max_waiting = Some(calls);
        self
    }

    /// Lets the upstream's `Retry-After` close the limit, or its `RateLimit` field when that has
    /// nothing left; for at most `max`. Default: it does not. A 429 that says neither changes
    /// nothing, and nor do `X-RateLimit-..` fields, whose numbers differ in meaning from server to
    /// server: [`follow`](Self::follow) those of a provider that is known.
    pub fn honor_retry_after(mut self, max: Duration) -> Self {
        self.values.settings.max_penalty = nanos(max);
        self
    }

    /// Follows one of the upstream's quotas, which its answers tell. Those of OpenAI's and
    /// Anthropic's APIs are read with `http::Client::provider`, others with `http::Client::hints`.
    /// Default: none.
    ///
    /// The limit's own rate and burst stay the most that it admits. Beside them stands the
    /// upstream's quota as it was last told. A call is charged to both, or to neither, so the limit
    /// admits no more than the upstream has left. What is told never keeps it below one unit for
    /// longer than until the reset that was told with it.
    ///
    /// Give the limit the unit of the quota: tokens, with a [`cost`](Self::cost), for one of
    /// tokens. Works for each key of [`per_key`](Self::per_key), and not for a table of keys.
    pub fn follow(mut self, quota: Follow) -> Self {
        self.values.settings.follow = Some(quota);
        self
    }

    /// For how long a hint closes the limit at most, if it may at all.
    #[cfg(feature = "http")]
    pub(crate) fn honored(&self) -> Option<Duration> {
        let Settings {
            max_penalty,
            enabled,
            ..
        } = self.values.settings;
        (enabled && max_penalty > 0).then(|| Duration::from_nanos(max_penalty))
    }

    /// Tells callers the limit and what is left of it with every response, if the
    /// [`protocol`](Self::protocol) has means to: [`http::Server`](crate::protocol::http::Server)
    /// has. Default `false`. Give each of several such limits a name. [`Advertise`] tells more.
    pub fn advertise(mut self, advertise: impl Into<Advertise>) -> Self {
        self.values.settings.advertise = advertise.into();
        self
    }

    /// `false` lets everything through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.settings.enabled = enabled;
        self
    }

    /// Names this instance in errors and events, and makes it known to the
    /// [`Registry`](crate::observe::Registry): without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.settings.name = Some(name.into().as_str());
        self
    }

    /// How many keys are kept, if a key is set. Default: 100 000 [in a table](Self::keyed_by),
    /// which take 4 MiB at most, at once, and never grow; 1024 with a [limit of its
    /// own](Self::per_key) each, some 1.4 MiB. A key of a [fleet](Self::fleet) takes some 600 bytes
    /// while it is in use.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.values.keys.max_keys = Some(keys);
        self
    }

    /// What becomes of new keys when there are more than that. Default [`Overflow::Shared`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.values.keys.overflow = Some(overflow);
        self
    }

    /// What becomes of requests without a key. Default [`Missing::Share`].
    pub fn missing(mut self, missing: Missing) -> Self {
        self.values.keys.missing = Some(missing);
        self
    }

    /// A limit that all keys together stay within: a call is charged to both, or to neither.
    /// Default: none. Where the limit is [advertised](Self::advertise), callers are told of both.
    ///
    /// Where calls may wait, they wait for their key's limit first, and then, with what they have
    /// taken of that, for the total.
    pub fn within(mut self, total: impl Limit + 'static) -> Self {
        self.values.total = Some(Box::new(total));
        self
    }

    /// Shares the limit among all processes that give the same name, by way of a
    /// [store](crate::store). With keys, each key's.
    ///
    /// The store grants units ahead, some ten times a second. A call that finds one spends it with
    /// one compare-and-swap, and waits for nothing. A call that finds none, as the first one of a
    /// key, waits for the store like any that is over the limit. So
    /// [`max_wait`](Self::max_wait) is 250 ms here unless it is set. With zero such calls are
    /// rejected. A key that is called less often than ten times a second asks for each call.
    ///
    /// The burst must take at least 400 ms to refill. In any window of `t`, all processes together
    /// admit at most `burst + rate * t`, and while the store is down what
    /// [`while_down`](Self::while_down) says. The layer does not keep the store's type. Keys are
    /// told to the store as hashes, which are alike in programs that were built for the same kind
    /// of machine.
    pub fn fleet<S: Store + Clone>(mut self, store: &S, name: impl Into<Name>) -> Self {
        self.values.fleet = Some(FleetSettings {
            store: Arc::new(store.clone()),
            name: name.into().as_str(),
        });
        self
    }

    /// What becomes of calls while the store of a [fleet](Self::fleet) does not answer. Default
    /// [`Outage::Closed`].
    pub fn while_down(mut self, outage: Outage) -> Self {
        self.values.outage = Some(outage);
        self
    }

    /// How rejections travel. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> RateLimitBuilder<K, Q, A> {
        RateLimitBuilder {
            values: self.values,
            key: self.key,
            asks: self.asks,
            protocol,
        }
    }

    /// Gives each key a limit of its own, all of this rate and burst: a closure `Fn(&Req) ->
    /// Option<K>` finds the key, which is [`Hash`]. Any number of keys, in a table of fixed size;
    /// none is kept.
    pub fn keyed_by<Req, T, F>(self, key: F) -> RateLimitBuilder<InTable<KeyFn<F, Req>>, P, A>
    where
        F: Fn(&Req) -> Option<T>,
        T: Hash,
    {
        self.with_key(InTable(KeyFn::new(key)))
    }

    /// Gives each [host](crate::keyed::Host) that requests go to a limit of its own, all of this
    /// rate and burst, in a table as of [`keyed_by`](Self::keyed_by).
    #[cfg(feature = "http")]
    pub fn per_host(self) -> RateLimitBuilder<InTable<crate::keyed::ByHost>, P, A> {
        self.with_key(InTable(crate::keyed::ByHost))
    }

    /// Gives each key a limit of its own, of any kind: `key` is a closure `Fn(&Req) -> Option<K>`,
    /// and `limit` one `Fn(&K) -> Result<impl Limit, ConfigError>`, asked when a key comes for the
    /// first time. Keys are kept and can be listed, so this is for customers, not for all that
    /// comes along.
    ///
    /// The limit that this builder was made with is the one that keys past the bound share. The
    /// closure `limit` may be asked twice for one key. If it fails, the key is one that found no
    /// place. It may make limits of several kinds as `Arc<dyn Limit>`. A part that several limits
    /// share, in an [`Arc`], is nobody's to notify: what one key gives back to it, the waiters of
    /// another find when their own time comes.
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

impl<F, P, A> RateLimitBuilder<InTable<F>, P, A> {
    /// Counts rejections by key, for
    /// [`heavy_hitters`](super::KeyedRateLimitHandle::heavy_hitters), under what a closure
    /// `Fn(&Req) -> String` calls the key; where that is a secret, let it be a part. Default: they
    /// are not counted.
    ///
    /// 128 keys are counted at a time, with labels of 64 bytes, in 24 KiB at most. A rejection then
    /// takes a mutex and looks through them, or goes uncounted when another thread has the mutex;
    /// an admission costs nothing more.
    pub fn heavy_hitters<Req, L>(self, label: L) -> RateLimitBuilder<InTable<Labelled<F, L>>, P, A>
    where
        L: Fn(&Req) -> String,
    {
        let key = InTable(Labelled {
            key: self.key.0,
            label,
        });
        RateLimitBuilder {
            values: self.values,
            key,
            asks: self.asks,
            protocol: self.protocol,
        }
    }
}

impl<K, P, A> RateLimitBuilder<K, P, A> {
    /// What a request costs: a closure `Fn(&Req) -> u32`. Default: 1. A call that costs more than
    /// the burst is rejected as [`CostTooHigh`](crate::RejectedKind::CostTooHigh); one that costs 0
    /// is admitted.
    pub fn cost<Req, F>(self, cost: F) -> RateLimitBuilder<K, P, (A, CostOf<F>)>
    where
        F: Fn(&Req) -> u32,
    {
        self.with_ask(CostOf(cost))
    }

    /// What a call has cost, told by its response: a closure `Fn(&Res) -> u32`, or `-> Option<u32>`
    /// if not every response tells. What was taken too much is refunded; what was taken too little
    /// becomes a debt that later calls wait for. A call without a response, or without an answer,
    /// has cost what was taken.
    ///
    /// If only the end of the body tells, leave this and call the handle's `settle` there.
    pub fn settle<Res, T, F>(self, used: F) -> RateLimitBuilder<K, P, (A, UsedOf<F>)>
    where
        F: Fn(&Res) -> T,
        T: Into<Option<u32>>,
    {
        self.with_ask(UsedOf(used))
    }

    /// Lets a call wait until its own deadline, which a closure `Fn(&Req) ->
    /// Option<tokio::time::Instant>` tells. One whose turn would come at that or later is rejected
    /// at once. So is one that comes after it, even if there is room. With
    /// [`max_wait`](Self::max_wait) the earlier of the two holds, and for a request without a
    /// deadline that alone. Default: no deadlines.
    pub fn deadline<Req, F>(mut self, deadline: F) -> RateLimitBuilder<K, P, (A, DeadlineOf<F>)>
    where
        F: Fn(&Req) -> Option<Instant>,
    {
        self.values.settings.deadlines = true;
        self.with_ask(DeadlineOf(deadline))
    }

    /// Asks one thing more of requests. A deadline bounds waits, and calls wait only if
    /// [`max_wait`](Self::max_wait) lets them.
    pub(crate) fn with_ask<B>(self, ask: B) -> RateLimitBuilder<K, P, (A, B)> {
        RateLimitBuilder {
            values: self.values,
            key: self.key,
            asks: (self.asks, ask),
            protocol: self.protocol,
        }
    }
}
