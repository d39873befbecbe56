//! The builder of several quotas.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    closures::{CostsOf, ReplaceCosts, UnitCosts, Unsettled, UsesOf},
    dimension::Dimension,
    keyed::{MakeQuotas, WeightOf},
};
use crate::{
    ConfigError, Name,
    ambient::clock::nanos,
    gate::DeadlineOf,
    keyed::{HasKey, KeyFn, KeySettings, NotKeyed},
    protocol::Plain,
    rate_limit::{
        Advertise, Outage, RateLimitLayer, fleet_values::FleetValues, key_hash::FleetSecret,
        settings::Settings,
    },
    store::Store,
};

/// Settings of a limit of several quotas, in any order. Those of keys follow the key. Made by
/// [`RateLimitLayer::dimensions`].
#[must_use = "a builder does nothing until `build`"]
pub struct DimensionsBuilder<const N: usize, K = NotKeyed, P = Plain, C = UnitCosts, U = Unsettled>
{
    pub(super) values: Values<N>,
    pub(super) key: K,
    pub(super) protocol: P,
    pub(super) costs: C,
    pub(super) uses: U,
}

/// The settings that no type parameter depends on.
#[derive(Debug)]
pub(super) struct Values<const N: usize> {
    pub(super) dimensions: [Dimension; N],
    pub(super) total: Option<[Dimension; N]>,
    pub(super) settings: Settings,
    pub(super) keys: KeySettings,
    pub(super) fleet: FleetValues,
}

/// A builder's state: quotas for each key.
pub struct PerKeyDimensions<F: HasKey, const N: usize> {
    pub(super) key: F,
    /// `None` if all keys have the same.
    pub(super) quotas: Option<MakeQuotas<F::Key, N>>,
    /// The weights of keys, if they have shares of the total.
    pub(super) weights: Option<WeightOf<F::Key>>,
}

impl RateLimitLayer {
    /// Limits calls by several named quotas, for example requests, tokens and dollars. A call is
    /// charged to all of them or to none. Each quota has its own cost, of 64 bits, and is settled
    /// by itself.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_keep::{Rejected, rate_limit::{Dimension, Rate, RateLimitLayer}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// struct Prompt { tenant: u32, tokens: u64, longest_answer: u64 }
    /// struct Answer { input: u64, output: u64 }
    ///
    /// let quotas = RateLimitLayer::dimensions([
    ///         Dimension::new("requests", Rate::per_minute(500)).burst(50),
    ///         Dimension::new("input_tokens", Rate::per_minute(80_000)),
    ///         Dimension::new("output_tokens", Rate::per_minute(16_000)),
    ///     ])
    ///     .cost(|prompt: &Prompt| [1, prompt.tokens, prompt.longest_answer])
    ///     .settle(|answer: &Answer| [1, answer.input, answer.output])
    ///     .keyed_by(|prompt: &Prompt| Some(prompt.tenant))
    ///     .build()?;
    ///
    /// let model = quotas.layer(service_fn(async |prompt: Prompt| {
    ///     Ok::<_, std::io::Error>(Answer { input: prompt.tokens, output: 200 })
    /// }));
    /// let ask = |longest_answer| {
    ///     model.clone().oneshot(Prompt { tenant: 7, tokens: 10, longest_answer })
    /// };
    /// ask(16_000).await?;
    /// // 15 800 came back with the answer.
    /// ask(15_000).await?;
    /// let error = ask(16_000).await.err().unwrap();
    /// let rejected = Rejected::find(&*error).unwrap();
    /// assert_eq!(rejected.dimension, Some("output_tokens"));
    /// assert_eq!(rejected.left()[2].available, 15_600);
    /// # Ok(()) }
    /// ```
    ///
    /// **Order.** With [`max_wait`](DimensionsBuilder::max_wait), calls wait in order of arrival,
    /// each until all its quotas have room. Each key has its own queue.
    ///
    /// **Cost.** One check of each quota, one compare-and-swap for each quota with a cost above 0,
    /// and no lock. A rejected call writes nothing to the quotas, and allocates its report.
    pub fn dimensions<const N: usize>(dimensions: [Dimension; N]) -> DimensionsBuilder<N> {
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
        DimensionsBuilder {
            values: Values {
                dimensions,
                total: None,
                settings,
                keys: KeySettings::default(),
                fleet: FleetValues::default(),
            },
            key: NotKeyed,
            protocol: Plain::new(),
            costs: UnitCosts,
            uses: Unsettled,
        }
    }
}

impl<const N: usize, K, P, C, U> DimensionsBuilder<N, K, P, C, U> {
    /// Sets the costs of a request: a closure `Fn(&Req) -> [u64; N]` with one number for each
    /// dimension, called once for each admission. Default: one unit of each. A cost of 0 passes a
    /// quota even if that is in debt. A cost above the burst is rejected as
    /// [`CostTooHigh`](crate::RejectedKind::CostTooHigh).
    ///
    /// ```compile_fail,E0308
    /// use tower_keep::rate_limit::{Dimension, Rate, RateLimitLayer};
    ///
    /// let quotas = ["requests", "tokens"].map(|name| Dimension::new(name, Rate::per_second(1)));
    /// // The tokens are missing.
    /// let _ = RateLimitLayer::dimensions(quotas).cost(|_: &String| [1]);
    /// ```
    pub fn cost<Req, F>(self, cost: F) -> DimensionsBuilder<N, K, P, C::Replaced<F>, U>
    where
        F: Fn(&Req) -> [u64; N],
        C: ReplaceCosts,
    {
        DimensionsBuilder {
            values: self.values,
            key: self.key,
            protocol: self.protocol,
            costs: self.costs.replaced(CostsOf(cost)),
            uses: self.uses,
        }
    }

    /// Settles a call by its response: a closure `Fn(&Res) -> [u64; N]` returns the units used, or
    /// an `Option` of them if not every response has them. Each quota is settled by itself. Units
    /// taken in excess are refunded. Units taken short become a debt of that quota, which later
    /// calls wait for. If only the end of the body has the numbers, call the handle's
    /// [`settle`](super::DimensionsHandle::settle) there.
    pub fn settle<Res, T, F>(self, used: F) -> DimensionsBuilder<N, K, P, C, UsesOf<F>>
    where
        F: Fn(&Res) -> T,
        T: Into<Option<[u64; N]>>,
    {
        DimensionsBuilder {
            values: self.values,
            key: self.key,
            protocol: self.protocol,
            costs: self.costs,
            uses: UsesOf(used),
        }
    }

    /// Sets a deadline per request: a closure `Fn(&Req) -> Option<tokio::time::Instant>`. A call
    /// over a quota may wait until its deadline. It is rejected at once if it would be admitted
    /// only then or later, and so is a call that arrives too late. With
    /// [`max_wait`](Self::max_wait) the earlier of the two applies. Default: no deadlines. Within a
    /// client's stack the call's [`Deadline`](crate::Deadline) counts anyway.
    pub fn deadline<Req, F>(
        mut self,
        deadline: F,
    ) -> DimensionsBuilder<N, K, P, (C, DeadlineOf<F>), U>
    where
        F: Fn(&Req) -> Option<Instant>,
    {
        self.values.settings.deadlines = true;
        DimensionsBuilder {
            values: self.values,
            key: self.key,
            protocol: self.protocol,
            costs: (self.costs, DeadlineOf(deadline)),
            uses: self.uses,
        }
    }

    /// Gives each key its own quotas, all alike. A closure `Fn(&Req) -> Option<K>` finds the key.
    /// Keys are kept and can be listed, up to [`max_keys`](Self::max_keys).
    pub fn keyed_by<Req, T, F>(
        self,
        key: F,
    ) -> DimensionsBuilder<N, PerKeyDimensions<KeyFn<F, Req>, N>, P, C, U>
    where
        F: Fn(&Req) -> Option<T>,
    {
        self.with_key(PerKeyDimensions {
            key: KeyFn::new(key),
            quotas: None,
            weights: None,
        })
    }

    /// Gives each key its own quotas. A closure `Fn(&K) -> Result<[Dimension; N], ConfigError>`
    /// makes them at the key's first request. Keys past the bound, and requests without a key,
    /// share the quotas that the builder was made with.
    pub fn per_key<Req, T, F, G>(
        self,
        key: F,
        quotas: G,
    ) -> DimensionsBuilder<N, PerKeyDimensions<KeyFn<F, Req>, N>, P, C, U>
    where
        F: Fn(&Req) -> Option<T>,
        G: Fn(&T) -> Result<[Dimension; N], ConfigError> + Send + Sync + 'static,
    {
        self.with_key(PerKeyDimensions {
            key: KeyFn::new(key),
            quotas: Some(Arc::new(quotas)),
            weights: None,
        })
    }

    /// Sets the total of all keys, from a file. `build` rejects it without a key.
    #[cfg(feature = "serde")]
    pub(crate) fn total(mut self, total: [Dimension; N]) -> Self {
        self.values.total = Some(total);
        self
    }

    fn with_key<L>(self, key: L) -> DimensionsBuilder<N, L, P, C, U> {
        DimensionsBuilder {
            values: self.values,
            key,
            protocol: self.protocol,
            costs: self.costs,
            uses: self.uses,
        }
    }

    /// Sets the protocol of rejections. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> DimensionsBuilder<N, K, Q, C, U> {
        DimensionsBuilder {
            values: self.values,
            key: self.key,
            protocol,
            costs: self.costs,
            uses: self.uses,
        }
    }

    /// Shares the quotas among all processes that give the same name, through a
    /// [store](crate::store). With keys, shares those of each key, and with
    /// [`within`](Self::within) also those of all keys. Each quota keeps the bound of a
    /// [limit](crate::rate_limit::RateLimitBuilder::fleet) of a fleet. A call is charged to all of
    /// them or to none.
    ///
    /// The store knows a quota as `name.dimension`, so processes may list them in another order.
    /// Calls may wait for 250 ms unless [`max_wait`](Self::max_wait) is set. A burst must take at
    /// least 400 ms to refill, and be below 2^27 units. A fleet's quotas cannot
    /// [follow](Dimension::follow) the upstream.
    ///
    /// A store takes no units back. What a settlement gives back can be spent while its lease
    /// lives, at most a second, and is lost after that. A debt is never lost. So if calls last
    /// longer, take a low estimate, and let the settlement add the rest.
    pub fn fleet<S: Store + Clone>(mut self, store: &S, name: impl Into<Name>) -> Self {
        self.values.fleet.share(store, name.into());
        self
    }

    /// Sets what becomes of calls while the store of a [fleet](Self::fleet) does not answer.
    /// Default [`Outage::Closed`], which quotas of [money](Dimension::money) keep in any case.
    pub fn while_down(mut self, outage: Outage) -> Self {
        self.values.fleet.outage = Some(outage);
        self
    }

    /// Hashes the keys of a [fleet](Self::fleet) under a secret of yours, as
    /// [`RateLimitBuilder::fleet_secret`](crate::rate_limit::RateLimitBuilder::fleet_secret) does.
    pub fn fleet_secret(mut self, secret: [u8; 16]) -> Self {
        self.values.fleet.secret = Some(FleetSecret(secret));
        self
    }

    /// Lets a call over a quota wait in order of arrival, if it can be admitted within `wait`.
    /// Default: no call waits.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.values.settings.max_wait = Some(nanos(wait));
        self
    }

    /// Sets the most calls that wait at a time, for each key if there are keys. Default 1024.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.values.settings.max_waiting = Some(calls);
        self
    }

    /// Lets the upstream's `Retry-After` close all quotas for at most `max`, or all quotas of the
    /// call's key if there are keys. Default: hints are not honored. A single quota can
    /// [follow](Dimension::follow) the upstream's report of it.
    pub fn honor_retry_after(mut self, max: Duration) -> Self {
        self.values.settings.max_penalty = nanos(max);
        self
    }

    /// Sends callers each quota and what is left of it with every response, if the protocol
    /// supports that. In the `RateLimit` fields a quota is named `name-dimension`. Default `false`.
    pub fn advertise(mut self, advertise: impl Into<Advertise>) -> Self {
        self.values.settings.advertise = advertise.into();
        self
    }

    /// The longest time that a hint closes the quotas, if hints are honored.
    #[cfg(feature = "http")]
    pub(crate) fn honored(&self) -> Option<Duration> {
        let settings = &self.values.settings;
        let honors = settings.enabled && settings.max_penalty > 0;
        honors.then(|| Duration::from_nanos(settings.max_penalty))
    }

    /// If `false`, lets every call through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.settings.enabled = enabled;
        self
    }

    /// Names this instance in errors and events, and adds it to the
    /// [`Registry`](crate::observe::Registry): the limit by its name, and each dimension as
    /// `name.dimension`.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.settings.name = Some(name.into().as_str());
        self
    }
}

impl<const N: usize, K, P, C, U> fmt::Debug for DimensionsBuilder<N, K, P, C, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DimensionsBuilder")
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

impl<F: HasKey, const N: usize> fmt::Debug for PerKeyDimensions<F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerKeyDimensions")
    }
}
