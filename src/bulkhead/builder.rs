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
    keyed::{HasKey, KeyFn, KeySettings, NotKeyed},
    protocol::{Advertise, Plain},
};

/// Settings of a [`BulkheadLayer`], in any order.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BulkheadBuilder<K = NotKeyed, P = Plain, A = ()> {
    pub(super) values: BulkheadValues,
    pub(super) key: K,
    pub(super) asks: A,
    pub(super) protocol: P,
}

/// The settings that no type parameter of the builder depends on.
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
    /// At most `limit` calls at once: at most half of the peak rate times the callers' timeout. By
    /// Little's law, at the whole of it every answer comes just too late, and a server that is
    /// overloaded once stays so. The guide has the figures.
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
    /// `false` lets everything through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.settings.enabled = enabled;
        self
    }

    /// Learns how many calls the upstream can work on, and admits so many; the limit given to
    /// [`builder`](super::BulkheadLayer::builder) is the most that it may become. By key, each key
    /// learns its own. Default: it stays at that limit.
    ///
    /// ```
    /// use tower_keep::{algorithm::Vegas, bulkhead::BulkheadLayer};
    ///
    /// let bulkhead = BulkheadLayer::builder(500).adaptive(Vegas::default()).build()?;
    /// assert_eq!(bulkhead.handle().snapshot().limit, 20); // to start with
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    ///
    /// Which one, and how each fails, is told in the [guide](crate::guide::adaptive). It costs two
    /// readings of the clock for each call, which other gates in the layer share, and some
    /// shared writes a call while it samples. What is timed is the call up to the head of its
    /// response. A dropped call tells nothing, so a [timeout](crate::timeout) belongs beneath the
    /// bulkhead: outside, it hides the slow calls.
    pub fn adaptive(mut self, limit: impl AdaptiveLimit + 'static) -> Self {
        self.values.adaptive = Some(Algorithm(Box::new(limit)));
        self
    }

    /// How long a call may wait for a place, in order of arrival. A call with [a
    /// deadline](Self::deadline) of its own waits no longer than that. Default: not at all, because
    /// under overload each call that waits makes all of them slower; a few times the usual latency
    /// smooths bursts.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.values.settings.max_wait = Some(wait);
        self
    }

    /// How many calls may wait at once, if [they may](Self::max_wait); of keys, of each, and 16
    /// times as many of all that wait for one [total](Self::within). Default 1024. The next one is
    /// rejected, as it is without a wait.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.values.settings.max_waiting = Some(calls);
        self
    }

    /// Takes the place back of a call that has held it for so long, once another call finds none.
    /// Default: a call keeps its place until it ends.
    ///
    /// For bulkheads that hold a call's place [to the end of its
    /// response](crate::protocol::http::UntilBodyEnd). A client that does not read its response
    /// holds a place there for as long as its connection lives. A timeout that [reaches to the end
    /// of the body](crate::timeout::TimeoutBuilder::until_body_end) does not help, since a server
    /// does not poll what it cannot write. Give a call more time than that timeout does.
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
    /// A call whose place was taken back goes on beside those that may run, and what it counts as
    /// is decided at its end, as ever. [`Totals::reclaimed`](crate::observe::Totals::reclaimed)
    /// counts the places. An [adaptive](Self::adaptive) limit learns nothing from it. A call over
    /// an upgraded connection keeps its place. Where calls [wait](Self::max_wait), the first of
    /// them takes a place back as soon as it may.
    ///
    /// No task and no timer: places are looked at by calls that find none, when one may be overdue.
    /// An admitted call costs three writes of shared words more, and each place 32 bytes. Beyond
    /// the first million that are in use at once, places are not taken back.
    pub fn reclaim_after(mut self, duration: Duration) -> Self {
        self.values.settings.reclaim_after = Some(duration);
        self
    }

    /// When to give up the order of arrival: once the oldest waiter has waited at least `target`
    /// for `interval` on end, so that the queue does not drain. Then the newest is served first,
    /// and waiters are rejected that have waited twice the target, until nobody waits. See
    /// [`CoDel`](crate::algorithm::CoDel). Default: 5 ms, or a twentieth of
    /// [`max_wait`](Self::max_wait) if that is longer, and 100 ms, or all of `max_wait`.
    pub fn codel(mut self, target: Duration, interval: Duration) -> Self {
        self.values.settings.order = Order::CoDel(target, interval);
        self
    }

    /// Serves waiters by arrival even while the queue does not drain. All of them then wait about
    /// as long as they may, so this is for calls that lose nothing by it.
    pub fn always_in_order(mut self) -> Self {
        self.values.settings.order = Order::Arrival;
        self
    }

    /// Tells callers the limit and how many places are left of it with every response, if the
    /// [`protocol`](Self::protocol) has means to: [`http::Server`](crate::protocol::http::Server)
    /// has. A response counts its own call as ended. Default `false`. [`Advertise::keys`] tells the
    /// partitions of keys apart. A bulkhead has no unit but calls.
    pub fn advertise(mut self, advertise: impl Into<Advertise>) -> Self {
        self.values.settings.advertise = advertise.into();
        self
    }

    /// Names this instance in errors and events, and makes it known to the
    /// [`Registry`](crate::observe::Registry): without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.name = Some(name.into().as_str());
        self
    }

    /// How many keys have a bulkhead of their own, if [a key](Self::keyed_by) is set. Default 1024.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.values.keys.max_keys = Some(keys);
        self
    }

    /// What becomes of new keys when there are more than that. Default [`Overflow::Shared`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.values.keys.overflow = Some(overflow);
        self
    }

    /// Labels for so many keys, unless that was set already.
    #[cfg(feature = "http")]
    pub(crate) fn labelled(mut self, max: Option<usize>) -> Self {
        self.values.keys.label_keys = self.values.keys.label_keys.or(max);
        self
    }

    /// What becomes of requests without a key. Default [`Missing::Share`].
    pub fn missing(mut self, missing: Missing) -> Self {
        self.values.keys.missing = Some(missing);
        self
    }

    /// Makes each key a label `key` of the gauges in metrics, if [a key](Self::keyed_by) is set and
    /// keys are few: up to so many, from 1 to 256. Those that come later share the label `other`,
    /// which shows the fullest of them. Default: none.
    pub fn label_keys(mut self, max: usize) -> Self {
        self.values.keys.label_keys = Some(max);
        self
    }

    /// Lets all keys together have so many places, if [a key](Self::keyed_by) is set, and makes the
    /// limit of each key its guaranteed share. Only when the total is in use are shares enforced: a
    /// key above its share is rejected then, and one below it is admitted all the same.
    ///
    /// So what runs may pass the total by what other keys are guaranteed: at most by one share for
    /// each key. A share above the total is an error, and so are [shares of a list](Self::limits)
    /// that are more together. Default: no total.
    ///
    /// Where calls [may wait](Self::max_wait), they wait in order of arrival for whichever comes
    /// first: room in the total, or a place of their key's share. The calls of all keys wait in one
    /// queue for the total. So a key that is over its share holds up none that is below.
    pub fn within(mut self, total: usize) -> Self {
        self.values.total = Some(total);
        self
    }

    /// How rejections travel. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> BulkheadBuilder<K, Q, A> {
        BulkheadBuilder {
            values: self.values,
            key: self.key,
            asks: self.asks,
            protocol,
        }
    }

    /// A bulkhead for each key, such as a host or a tenant, each with the whole limit: a closure
    /// `Fn(&Req) -> Option<K>` finds it. Some may have [another limit](Self::limit_for).
    pub fn keyed_by<Req, L, F>(self, key: F) -> BulkheadBuilder<LimitByKey<KeyFn<F, Req>>, P, A>
    where
        F: Fn(&Req) -> Option<L>,
        L: Hash + Eq + Clone,
    {
        self.with_key(LimitByKey::new(KeyFn::new(key)))
    }

    /// Rejects a call at its own deadline, which a closure `Fn(&Req) ->
    /// Option<tokio::time::Instant>` tells: one that comes so late even if a place is free, and
    /// one that [waits](Self::max_wait) at that moment at the latest. Default: no deadlines, and no
    /// reading of the clock.
    ///
    /// With HTTP: `|request: &Request<_>| request.extensions().get().map(|d: &Deadline|
    /// d.moment())`.
    pub fn deadline<Req, F>(self, deadline: F) -> BulkheadBuilder<K, P, (A, DeadlineOf<F>)>
    where
        F: Fn(&Req) -> Option<Instant>,
    {
        self.with_ask(DeadlineOf(deadline))
    }

    /// Rejects the least critical calls first, by what a closure `Fn(&Req) -> Criticality` says of
    /// a request: those of each class once more than a [share](Self::shed_above) of the limit is in
    /// use. Where calls may [wait](Self::max_wait), the queue tells of pressure, not the use: they
    /// are rejected once so much of `max_waiting` is taken. Of those that wait the more critical go
    /// first, but past no call that has waited for over half of its time. Default: all calls are
    /// alike.
    pub fn criticality<Req, F>(self, class: F) -> BulkheadBuilder<K, P, (A, CriticalityOf<F>)>
    where
        F: Fn(&Req) -> Criticality,
    {
        self.with_ask(CriticalityOf(class))
    }

    /// Up to how much of the limit, or of the queue, in percent, calls of a class are admitted, if
    /// [classes](Self::criticality) are told apart. Default: 50 for
    /// [`Sheddable`](Criticality::Sheddable), 75 for `SheddablePlus`, 90 for `Critical`, 100 for
    /// `CriticalPlus`; always a whole call, at least 1.
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

impl<F: HasKey, P, A> BulkheadBuilder<LimitByKey<F>, P, A> {
    /// Gives keys that are known a limit, or with [`within`](Self::within) a share, of their own: a
    /// closure `Fn(&K) -> usize`, or `-> Option<usize>` where the others have that of
    /// [`builder`](BulkheadLayer::builder). Default: all have that.
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
    /// It is asked when a key comes for the first time, and may be asked again. A limit of 0, or a
    /// share above the total, is an error, so that the key is one that found [no
    /// place](Self::overflow). The shares of all keys may be more than the total: which keys will
    /// come is not known, so what they are guaranteed runs on top of it. [`limits`](Self::limits)
    /// is checked. The keyed handle's `update` is for the other keys: it leaves these limits.
    pub fn limit_for<L, G>(mut self, limit: G) -> Self
    where
        G: Fn(&F::Key) -> L + Send + Sync + 'static,
        L: Into<Option<usize>>,
    {
        self.key = self.key.limit_for(limit);
        self
    }

    /// Shows keys in snapshots and as [labels](Self::label_keys), as the text that a closure
    /// `Fn(&K) -> String` makes of one. Default: they are redacted, as a hash.
    pub fn show_keys(mut self, show: impl Fn(&F::Key) -> String + Send + Sync + 'static) -> Self {
        self.key.texts.show(show);
        self
    }

    /// As [`limit_for`](Self::limit_for), for keys that are all known: their limits are checked
    /// when the layer is built, and with [`within`](Self::within) their shares together may not be
    /// more than the total. Default: none. Keys that are not on the list are asked of `limit_for`.
    ///
    /// ```
    /// use tower_keep::bulkhead::BulkheadLayer;
    ///
    /// let shares = |payments| {
    ///     BulkheadLayer::builder(5)
    ///         .within(60)
    ///         .keyed_by(|dependency: &&'static str| Some(*dependency))
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
