//! The builder.

use std::{
    hash::Hash,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ConfigError, Criticality, Name,
    algorithm::{AdaptiveLimit, Overflow},
    bulkhead::{
        BulkheadGate, BulkheadLayer, Missing,
        adaptive::Algorithm,
        asked::{AllAlike, AndAsks, CriticalityOf, DeadlineOf, Wrap},
        keyed::Plan,
        settings::{Order, Settings, checked, within_total},
    },
    gate::{GateLayer, Keyed, KeyedParts},
    keyed::{ByKey, KeySettings, NotKeyed},
    observe::{Tally, register},
    protocol::Plain,
    time::Clock,
};

/// Settings of a [`BulkheadLayer`], in any order.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BulkheadBuilder<K = NotKeyed, P = Plain, A = AllAlike> {
    limit: usize,
    total: Option<usize>,
    adaptive: Option<Algorithm>,
    settings: Settings,
    name: Option<&'static str>,
    keys: KeySettings,
    key: K,
    asks: A,
    protocol: P,
}

impl BulkheadLayer {
    /// At most `limit` calls at once: at most half of the peak rate times the callers' timeout. By
    /// Little's law, at the whole of it every answer comes just too late, and a server that is
    /// overloaded once stays so. The guide has the figures.
    pub fn builder(limit: usize) -> BulkheadBuilder {
        BulkheadBuilder {
            limit,
            total: None,
            adaptive: None,
            settings: Settings::new(),
            name: None,
            keys: KeySettings::default(),
            key: NotKeyed,
            asks: AllAlike,
            protocol: Plain::new(),
        }
    }
}

impl<K, P, A> BulkheadBuilder<K, P, A> {
    /// `false` lets everything through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
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
        self.adaptive = Some(Algorithm(Box::new(limit)));
        self
    }

    /// How long a call may wait for a place, in order of arrival. A call with [a
    /// deadline](Self::deadline) of its own waits no longer than that. Default: not at all, because
    /// under overload each call that waits makes all of them slower; a few times the usual latency
    /// smooths bursts.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = Some(wait);
        self
    }

    /// How many calls may wait at once, if [they may](Self::max_wait); of keys, of each, and 16
    /// times as many of all that wait for one [total](Self::within). Default 1024. The next one is
    /// rejected, as it is without a wait.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.settings.max_waiting = Some(calls);
        self
    }

    /// When to give up the order of arrival: once the oldest waiter has waited at least `target`
    /// for `interval` on end, so that the queue does not drain. Then the newest is served first,
    /// and waiters are rejected that have waited twice the target, until nobody waits. See
    /// [`CoDel`](crate::algorithm::CoDel). Default: 5 ms, or a twentieth of
    /// [`max_wait`](Self::max_wait) if that is longer, and 100 ms, or all of `max_wait`.
    pub fn codel(mut self, target: Duration, interval: Duration) -> Self {
        self.settings.order = Order::CoDel(target, interval);
        self
    }

    /// Serves waiters by arrival even while the queue does not drain. All of them then wait about
    /// as long as they may, so this is for calls that lose nothing by it.
    pub fn always_in_order(mut self) -> Self {
        self.settings.order = Order::Arrival;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// How many keys have a bulkhead of their own, if [a key](Self::keyed_by) is set. Default 1024.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.keys.max_keys = Some(keys);
        self
    }

    /// What becomes of new keys when there are more than that. Default [`Overflow::Shared`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.keys.overflow = Some(overflow);
        self
    }

    /// What becomes of requests without a key. Default [`Missing::Share`].
    pub fn missing(mut self, missing: Missing) -> Self {
        self.keys.missing = Some(missing);
        self
    }

    /// Lets all keys together have so many places, if [a key](Self::keyed_by) is set, and makes the
    /// limit of each key its guaranteed share. Only when the total is in use are shares enforced: a
    /// key above its share is rejected then, and one below it is admitted all the same.
    ///
    /// So what runs may pass the total by what other keys are guaranteed: at most by one share for
    /// each key. Default: no total.
    ///
    /// Where calls [may wait](Self::max_wait), they wait in order of arrival for whichever comes
    /// first: room in the total, for which the calls of all keys wait in one queue, or a place of
    /// their key's share. So a key that is over its share holds up none that is below.
    pub fn within(mut self, total: usize) -> Self {
        self.total = Some(total);
        self
    }

    /// How rejections travel. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> BulkheadBuilder<K, Q, A> {
        let Self {
            limit,
            total,
            adaptive,
            settings,
            name,
            keys,
            key,
            asks,
            ..
        } = self;
        BulkheadBuilder {
            limit,
            total,
            adaptive,
            settings,
            name,
            keys,
            key,
            asks,
            protocol,
        }
    }

    /// A bulkhead for each key, such as a host or a tenant, each with the whole limit: a closure
    /// `Fn(&Req) -> Option<K>` finds it.
    pub fn keyed_by<Req, L, F>(self, key: F) -> BulkheadBuilder<ByKey<L, F>, P, A>
    where
        F: Fn(&Req) -> Option<L>,
        L: Hash + Eq + Clone,
    {
        self.with_key(ByKey::new(key))
    }

    /// Rejects a call at its own deadline, which a closure `Fn(&Req) ->
    /// Option<tokio::time::Instant>` tells: one that comes so late even if a place is free, and
    /// one that [waits](Self::max_wait) at that moment at the latest. Default: no deadlines, and no
    /// reading of the clock.
    ///
    /// With HTTP: `|request: &Request<_>| request.extensions().get().map(|d: &Deadline|
    /// d.moment())`.
    pub fn deadline<Req, F>(self, deadline: F) -> BulkheadBuilder<K, P, AndAsks<A, DeadlineOf<F>>>
    where
        F: Fn(&Req) -> Option<Instant>,
    {
        self.with_ask(DeadlineOf(deadline))
    }

    /// Rejects the least critical calls first, by what a closure `Fn(&Req) -> Criticality` says of
    /// a request: those of each class once more than a [share](Self::shed_above) of the limit is in
    /// use. Where calls may [wait](Self::max_wait), the queue tells of pressure, not the use: they
    /// are rejected once so much of `max_waiting` is taken. Default: all calls are alike.
    pub fn criticality<Req, F>(
        self,
        class: F,
    ) -> BulkheadBuilder<K, P, AndAsks<A, CriticalityOf<F>>>
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
        self.settings.shares[class as usize] = percent;
        self
    }

    pub(crate) fn with_key<L>(self, key: L) -> BulkheadBuilder<L, P, A> {
        let Self {
            limit,
            total,
            adaptive,
            settings,
            name,
            keys,
            asks,
            protocol,
            ..
        } = self;
        BulkheadBuilder {
            limit,
            total,
            adaptive,
            settings,
            name,
            keys,
            key,
            asks,
            protocol,
        }
    }

    fn with_ask<B>(self, ask: B) -> BulkheadBuilder<K, P, AndAsks<A, B>> {
        let Self {
            limit,
            total,
            adaptive,
            settings,
            name,
            keys,
            key,
            asks,
            protocol,
        } = self;
        BulkheadBuilder {
            limit,
            total,
            adaptive,
            settings,
            name,
            keys,
            key,
            asks: AndAsks(asks, ask),
            protocol,
        }
    }
}

impl<P, A: Wrap<BulkheadGate>> BulkheadBuilder<NotKeyed, P, A> {
    /// Starts with nothing in flight.
    ///
    /// # Errors
    /// A limit of 0, which would reject everything, `max_waiting` without `max_wait` or of 0, or a
    /// setting that needs a key. `usize::MAX` is
    /// as good as none.
    pub fn build(self) -> Result<GateLayer<A::Gate, P>, ConfigError> {
        self.keys
            .unset()
            .map_err(|error| error.of("bulkhead", self.name))?;
        let (limit, name) = (checked(self.limit, self.name)?, self.name);
        if let Some(total) = self.total {
            let fix = "set a key too, with `keyed_by`, or leave it";
            return Err(ConfigError::new("within", total, fix).of("bulkhead", name));
        }
        let tally = Arc::new(Tally::new("bulkhead", name));
        let gate = BulkheadGate::new(
            limit,
            (None, self.adaptive.as_ref()),
            self.settings.checked(name)?,
            Clock::start(),
            tally,
        );
        register(&gate.state);
        Ok(GateLayer::with_protocol(
            self.asks.wrap(gate),
            self.protocol,
        ))
    }
}

impl<K, F, P, A> BulkheadBuilder<ByKey<K, F>, P, A>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    A: Wrap<Keyed<K, F, BulkheadGate>>,
{
    /// Starts with nothing in flight.
    ///
    /// # Errors
    /// A limit of 0, which would reject everything, `max_waiting` without `max_wait` or of 0,
    /// room for no key, or a total [within](Self::within) which not even one key's share fits.
    pub fn build(self) -> Result<GateLayer<A::Gate, P>, ConfigError> {
        let Self {
            limit,
            total,
            adaptive,
            settings,
            name,
            keys,
            key,
            asks,
            protocol,
        } = self;
        let max_keys = keys
            .max_keys(1024)
            .map_err(|error| error.of("bulkhead", name))?;
        let plan = Plan {
            total: within_total(total, limit, &settings, name)?,
            limit: AtomicUsize::new(limit),
            clock: Clock::start(),
            adaptive,
            settings: settings.checked(name)?,
            tally: Arc::new(Tally::new("bulkhead", name)),
        };
        let shared = plan.bulkhead()?;
        let fallback = (
            keys.overflow.unwrap_or_default(),
            keys.missing.unwrap_or_default(),
        );
        let parts = KeyedParts::new(max_keys, shared, plan, fallback, settings.enabled);
        let keyed = Keyed::new(key.key, parts);
        register(keyed.parts());
        Ok(GateLayer::with_protocol(asks.wrap(keyed), protocol))
    }
}

impl<A: Wrap<BulkheadGate, Gate: Clone>> BulkheadBuilder<NotKeyed, Plain, A> {
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<A::Gate, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

impl<K, F, A> BulkheadBuilder<ByKey<K, F>, Plain, A>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    A: Wrap<Keyed<K, F, BulkheadGate>, Gate: Clone>,
{
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<A::Gate, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}
