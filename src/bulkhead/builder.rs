//! The builder.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

use crate::{
    Criticality, Name,
    algorithm::{AdaptiveLimit, Overflow},
    bulkhead::{
        BulkheadLayer, Missing,
        adaptive::Algorithm,
        limits::LimitByKey,
        settings::{Order, Settings},
    },
    gate::{CriticalityOf, DeadlineOf},
    keyed::{HasKey, KeyFn, KeyIsSet, KeySettings, NotKeyed},
    protocol::{Advertise, Plain},
};

/// A builder of a [`BulkheadLayer`]. Settings may be made in any order. Those of
/// keys follow the key.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BulkheadBuilder<K = NotKeyed, P = Plain, A = ()> {
    pub(super) values: BulkheadValues,
    pub(super) key: K,
    pub(super) asks: A,
    pub(super) protocol: P,
}

/// The settings that do not depend on the builder's type parameters.
#[derive(Debug, Clone)]
pub(super) struct BulkheadValues {
    pub(super) limit: usize,
    pub(super) total: Option<usize>,
    pub(super) adaptive: Option<Algorithm>,
    pub(super) settings: Settings,
    pub(super) name: Option<&'static str>,
    pub(super) keys: KeySettings,
}

impl BulkheadLayer {
    /// Creates a builder for at most `limit` calls at once. Set at most half of the peak rate times
    /// the callers' timeout. At the full product, by Little's law, every answer arrives just too
    /// late, and a server that was once overloaded stays so. The guide has the figures.
    pub fn builder(limit: usize) -> BulkheadBuilder {
        BulkheadBuilder {
            values: BulkheadValues {
                limit,
                total: None,
                adaptive: None,
                settings: Settings::new(),
                name: None,
                keys: KeySettings::default(),
            },
            key: NotKeyed,
            asks: (),
            protocol: Plain::new(),
        }
    }
}

impl<K, P, A> BulkheadBuilder<K, P, A> {
    /// If `false`, lets everything through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.settings.enabled = enabled;
        self
    }

    /// Learns how many calls the upstream can work on, and admits that many. The limit given to
    /// [`builder`](super::BulkheadLayer::builder) is the maximum. A keyed bulkhead learns per key.
    /// Default: the limit is fixed.
    ///
    /// ```
    /// use tower_keep::{algorithm::Vegas, bulkhead::BulkheadLayer};
    ///
    /// let bulkhead = BulkheadLayer::builder(500).adaptive(Vegas::default()).build()?;
    /// assert_eq!(bulkhead.handle().snapshot().limit, 20); // to start with
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    ///
    /// The [guide](crate::guide::adaptive) tells which algorithm to choose, and how each fails. The
    /// cost per call is two readings of the clock, which other gates in the layer share, and some
    /// shared writes while it samples. The time measured is that up to the head of the response. A
    /// dropped call teaches nothing. So put a [timeout](crate::timeout) beneath the bulkhead:
    /// outside, it hides the slow calls.
    pub fn adaptive(mut self, limit: impl AdaptiveLimit + 'static) -> Self {
        self.values.adaptive = Some(Algorithm(Box::new(limit)));
        self
    }

    /// Sets how long a call may wait for a permit, in order of arrival. A call with [a
    /// deadline](Self::deadline) waits no longer than that. Default: calls do not wait, because
    /// under overload each waiting call makes all calls slower. A few times the usual latency
    /// smooths bursts.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.values.settings.max_wait = Some(wait);
        self
    }

    /// Sets how many calls may wait at once, if calls [may wait](Self::max_wait). With keys, it
    /// holds per key, and 16 times as many may wait for one [total](Self::within). Default 1024.
    /// Further calls are rejected, as they are without a wait.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.values.settings.max_waiting = Some(calls);
        self
    }

    /// Takes the permit back from a call that has held it for this long, once another call finds
    /// none. Default: a call keeps its permit until it ends.
    ///
    /// Use it with bulkheads that hold a call's permit [to the end of its
    /// response](crate::protocol::http::UntilBodyEnd). There, a client that does not read its
    /// response holds a permit for as long as its connection lives. A timeout that [reaches to the
    /// end of the body](crate::timeout::TimeoutBuilder::until_body_end) does not help, since a
    /// server does not poll a body that it cannot write. Set a longer time than that timeout's.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_keep::{bulkhead::BulkheadLayer, protocol::http::{Server, UntilBodyEnd}};
    ///
    /// let downloads = BulkheadLayer::builder(100)
    ///     .reclaim_after(Duration::from_secs(60))
    ///     .protocol(UntilBodyEnd::new(Server::new()))
    ///     .build()?;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    ///
    /// A call whose permit was taken back continues, beside the calls that the limit allows, and
    /// its outcome is still recorded at its end.
    /// [`Totals::reclaimed`](crate::observe::Totals::reclaimed) counts these permits. An
    /// [adaptive](Self::adaptive) limit learns nothing from the call. A call over an upgraded
    /// connection keeps its permit. Where calls [wait](Self::max_wait), the first waiter takes a
    /// permit back as soon as it is overdue.
    ///
    /// There is no task and no timer: a call that finds no permit looks for overdue ones, once one
    /// may be overdue. An admitted call costs three more writes of shared words, and each permit 32
    /// bytes. Beyond the first million permits in use at once, permits are not taken back.
    pub fn reclaim_after(mut self, duration: Duration) -> Self {
        self.values.settings.reclaim_after = Some(duration);
        self
    }

    /// Sets when to give up the order of arrival: once the oldest waiter has waited at least
    /// `target` for a whole `interval`, so that the queue does not drain. Then the newest waiter is
    /// served first, and waiters that have waited over twice the target are rejected, until the
    /// queue is empty. See [`CoDel`](crate::algorithm::CoDel). Default target: 5 ms, or a twentieth
    /// of [`max_wait`](Self::max_wait) if that is longer. Default interval: 100 ms, or `max_wait`
    /// if that is longer.
    pub fn codel(mut self, target: Duration, interval: Duration) -> Self {
        self.values.settings.order = Order::CoDel(target, interval);
        self
    }

    /// Serves waiters by arrival even while the queue does not drain. Then every waiter waits about
    /// as long as it may. Use it for calls that lose nothing by a wait.
    pub fn always_in_order(mut self) -> Self {
        self.values.settings.order = Order::Arrival;
        self
    }

    /// Writes the limit, and how many permits are left, into every response, if the
    /// [`protocol`](Self::protocol) can: [`http::Server`](crate::protocol::http::Server) can. A
    /// response counts its own call as ended. Default `false`. [`Advertise::keys`] also writes the
    /// partitions of keys. The only unit of a bulkhead is calls.
    pub fn advertise(mut self, advertise: impl Into<Advertise>) -> Self {
        self.values.settings.advertise = advertise.into();
        self
    }

    /// Names this instance in errors and events, and registers it in the
    /// [`Registry`](crate::observe::Registry). Without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.name = Some(name.into().as_str());
        self
    }

    /// Sets the settings of keys that are not set yet: a stack's, or a file's.
    #[cfg(any(feature = "http", feature = "serde"))]
    pub(crate) fn key_settings(mut self, keys: KeySettings) -> Self {
        self.values.keys.or(keys);
        self
    }

    /// Sets the total of all keys, from a file. `build` rejects it without a key.
    #[cfg(feature = "serde")]
    pub(crate) fn total(mut self, total: usize) -> Self {
        self.values.total = Some(total);
        self
    }

    /// Sets how rejections are returned. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> BulkheadBuilder<K, Q, A> {
        BulkheadBuilder {
            values: self.values,
            key: self.key,
            asks: self.asks,
            protocol,
        }
    }

    /// Gives each key, such as a host or a tenant, a bulkhead with the whole limit. A closure
    /// `Fn(&Req) -> Option<K>` finds the key. Some keys may have [another limit](Self::limit_for).
    pub fn keyed_by<Req, L, F>(self, key: F) -> BulkheadBuilder<LimitByKey<KeyFn<F, Req>>, P, A>
    where
        F: Fn(&Req) -> Option<L>,
        L: Hash + Eq + Clone,
    {
        self.with_key(LimitByKey::new(KeyFn::new(key)))
    }

    /// Sets a deadline per request, by a closure `Fn(&Req) -> Option<tokio::time::Instant>`. A call
    /// that arrives at or after its deadline is rejected even if a permit is free. A call that
    /// [waits](Self::max_wait) is rejected when its deadline passes. Default: no deadlines, and the
    /// clock is not read.
    ///
    /// With HTTP: `|request: &Request<_>| request.extensions().get().map(|d: &Deadline|
    /// d.moment())`.
    pub fn deadline<Req, F>(self, deadline: F) -> BulkheadBuilder<K, P, (A, DeadlineOf<F>)>
    where
        F: Fn(&Req) -> Option<Instant>,
    {
        self.with_ask(DeadlineOf(deadline))
    }

    /// Rejects the least critical calls first. A closure `Fn(&Req) -> Criticality` returns the
    /// class of a request. A class is rejected once more than [its percentage](Self::shed_above) of
    /// the limit is in use. Where calls may [wait](Self::max_wait), the length of the queue counts
    /// instead of the use: a class is rejected once its percentage of `max_waiting` is taken. Among
    /// waiters, the more critical go first, but never past a call that has waited for over half of
    /// its time. Default: all calls are alike.
    pub fn criticality<Req, F>(self, class: F) -> BulkheadBuilder<K, P, (A, CriticalityOf<F>)>
    where
        F: Fn(&Req) -> Criticality,
    {
        self.with_ask(CriticalityOf(class))
    }

    /// Sets the percentage of the limit, or of the queue, up to which calls of a class are
    /// admitted, if [classes](Self::criticality) are set. Default: 50 for
    /// [`Sheddable`](Criticality::Sheddable), 75 for `SheddablePlus`, 90 for `Critical`, 100 for
    /// `CriticalPlus`. Rounded up to whole calls, so at least 1.
    pub fn shed_above(mut self, class: Criticality, percent: u8) -> Self {
        self.values.settings.shares[class as usize] = percent;
        self
    }

    pub(crate) fn with_key<L>(self, key: L) -> BulkheadBuilder<L, P, A> {
        BulkheadBuilder {
            values: self.values,
            key,
            asks: self.asks,
            protocol: self.protocol,
        }
    }

    pub(crate) fn with_ask<B>(self, ask: B) -> BulkheadBuilder<K, P, (A, B)> {
        BulkheadBuilder {
            values: self.values,
            key: self.key,
            asks: (self.asks, ask),
            protocol: self.protocol,
        }
    }
}

impl<K: KeyIsSet, P, A> BulkheadBuilder<K, P, A> {
    /// Sets how many keys have a bulkhead of their own. Default 1024.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.values.keys.max_keys = Some(keys);
        self
    }

    /// Sets what happens to new keys beyond that number. Default [`Overflow::Shared`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.values.keys.overflow = Some(overflow);
        self
    }

    /// Sets what happens to requests without a key. Default [`Missing::Share`].
    pub fn missing(mut self, missing: Missing) -> Self {
        self.values.keys.missing = Some(missing);
        self
    }

    /// Makes each key a label `key` of the gauges in metrics. For few keys: the first `max` keys,
    /// from 1 to 256, get a label. Later keys share the label `other`, which shows the fullest of
    /// them. Default: no labels.
    pub fn label_keys(mut self, max: usize) -> Self {
        self.values.keys.label_keys = Some(max);
        self
    }

    /// Gives all keys together a total of permits, and makes the limit of each key its guaranteed
    /// share. Shares are enforced only while the total is in use.
    /// Then a key above its share is rejected, and a key below it is still admitted.
    ///
    /// So the calls in flight may exceed the total by what other keys are guaranteed: at most by
    /// one share per key. A share above the total is an error, and so are [listed
    /// shares](Self::limits) whose sum is above it. Default: no total.
    ///
    /// Where calls [may wait](Self::max_wait), they wait in order of arrival for whichever comes
    /// first: room in the total, or a permit of their key's share. The calls of all keys wait in
    /// one queue for the total. So a key over its share does not block a key below its share.
    pub fn within(mut self, total: usize) -> Self {
        self.values.total = Some(total);
        self
    }
}

impl<F: HasKey, P, A> BulkheadBuilder<LimitByKey<F>, P, A> {
    /// Gives known keys a limit, or with [`within`](Self::within) a share, of their own. The
    /// closure is a `Fn(&K) -> usize`, or `-> Option<usize>` where `None` means the limit of
    /// [`builder`](BulkheadLayer::builder). Default: that limit for all keys.
    ///
    /// ```
    /// use tower_keep::bulkhead::BulkheadLayer;
    ///
    /// let bulkhead = BulkheadLayer::builder(20)
    ///     .keyed_by(|dependency: &&'static str| Some(*dependency))
    ///     .limit_for(|dependency| match *dependency {
    ///         "payments" => Some(50),
    ///         "search" => Some(10),
    ///         _ => None,
    ///     })
    ///     .build()?;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    ///
    /// The closure is called when a key arrives for the first time, and may be called again. A
    /// limit of 0, or a share above the total, is an error. The key is then treated as one that
    /// found [no slot](Self::overflow). The shares of all keys may exceed the total: future keys
    /// are not known, so their guarantees are added to it. For checked shares, use
    /// [`limits`](Self::limits). The keyed handle's `update` changes the other keys, and leaves
    /// these limits.
    pub fn limit_for<L, G>(mut self, limit: G) -> Self
    where
        G: Fn(&F::Key) -> L + Send + Sync + 'static,
        L: Into<Option<usize>>,
    {
        self.key = self.key.limit_for(limit);
        self
    }

    /// Shows keys in snapshots and as [labels](Self::label_keys), as the text that a closure
    /// `Fn(&K) -> String` returns. Default: they are redacted, as a hash.
    pub fn show_keys(mut self, show: impl Fn(&F::Key) -> String + Send + Sync + 'static) -> Self {
        self.key.texts.show(show);
        self
    }

    /// Sets limits as [`limit_for`](Self::limit_for) does, for keys that are all known. The limits
    /// are checked when the layer is built. With [`within`](Self::within), their sum may not exceed
    /// the total. Default: none. Keys outside the list use `limit_for`.
    ///
    /// ```
    /// use tower_keep::bulkhead::BulkheadLayer;
    ///
    /// let shares = |payments| {
    ///     BulkheadLayer::builder(5)
    ///         .keyed_by(|dependency: &&'static str| Some(*dependency))
    ///         .within(60)
    ///         .limits([("payments", payments), ("search", 10)])
    ///         .build()
    /// };
    /// assert!(shares(50).is_ok());
    /// assert!(shares(51).unwrap_err().to_string().contains("`limits` is 61"));
    /// ```
    pub fn limits(mut self, limits: impl IntoIterator<Item = (F::Key, usize)>) -> Self
    where
        F::Key: Hash + Eq + Send + Sync + 'static,
    {
        self.key = self.key.limits(HashMap::from_iter(limits));
        self
    }
}
