//! The layer and its builder.

use std::{sync::Arc, time::Duration};

use tower::{Layer, Service};

use crate::{
    ConfigError, Name,
    algorithm::{Budget, LatencyQuantile, RetryBudget},
    budget::{FindBudget, KeyedBudgets, OneBudget, Payer, SharedBudget},
    hedge::{
        Hedge, HedgeConfig, HedgeHandle, ResponseFuture,
        service::start,
        state::{Fixed, State},
    },
    observe::register,
    protocol::{Choice, Chosen, Plain, Protocol, Replay, Unset},
    resend::FromLayer,
};

/// A layer that sends slow calls again. All services it makes, and all their clones, share the
/// budget and the latencies learned.
#[derive(Debug, Clone)]
pub struct HedgeLayer<P = Plain, B = OneBudget> {
    handle: HedgeHandle,
    protocol: P,
    budgets: B,
}

/// Settings of a [`HedgeLayer`], in any order.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct HedgeBuilder<P = Unset, B = OneBudget> {
    values: HedgeValues,
    protocol: P,
    budgets: B,
}

/// The settings that do not depend on the builder's type parameters.
#[derive(Debug, Clone)]
struct HedgeValues {
    delay: Option<Duration>,
    quantile: Option<f64>,
    max_hedges: usize,
    timeout: Option<Duration>,
    max_retry_after: Duration,
    payer: Payer,
    enabled: bool,
    name: Option<&'static str>,
}

impl HedgeLayer {
    /// Starts with one hedge per call, after the time in which 95 % of the calls are answered.
    pub fn builder() -> HedgeBuilder {
        HedgeBuilder {
            values: HedgeValues {
                delay: None,
                quantile: None,
                max_hedges: 1,
                timeout: None,
                max_retry_after: Duration::from_secs(10),
                payer: Payer::Own,
                enabled: true,
                name: None,
            },
            protocol: Unset,
            budgets: OneBudget,
        }
    }
}

impl<P, B> HedgeLayer<P, B> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> HedgeHandle {
        self.handle.clone()
    }
}

impl<P, B> HedgeLayer<P, B> {
    #[inline]
    pub(crate) fn shared_protocol(&self) -> &P {
        &self.protocol
    }

    /// Sends a call through the layer, to a service that is ready and cheap to clone.
    pub(crate) fn send<S, Q, Req>(
        &self,
        mut service: S,
        request: Req,
        protocol: Q,
    ) -> ResponseFuture<S, Q, Req, B, FromLayer<'_, S, HedgeHandle>>
    where
        B: FindBudget<Req>,
        Q: Replay<Req> + Protocol<S::Response, S::Error>,
        S: Service<Q::Request> + Clone,
    {
        let origin = FromLayer::new(&self.handle, service.clone());
        start(&mut service, request, protocol, &self.budgets, origin)
    }
}

impl<P, B> HedgeBuilder<P, B> {
    /// Sets all settings that can change at run time, and replaces those set so far.
    pub fn config(self, config: HedgeConfig) -> Self {
        self.delay(config.delay).max_hedges(config.max_hedges)
    }

    /// Sets the delay before a hedge, and between one hedge and the next. With a
    /// [`quantile`](Self::quantile) it is the shortest delay, 1 ms by default. So an upstream that
    /// answers in microseconds is not hedged because the scheduler paused.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.values.delay = Some(delay);
        self
    }

    /// Sets the share of calls whose answer arrives before the hedge. Their time is learned at run
    /// time, and nothing is hedged before 20 calls. Default 0.95 if no [`delay`](Self::delay) is
    /// set: one call in twenty is hedged while all is well.
    pub fn quantile(mut self, quantile: f64) -> Self {
        self.values.quantile = Some(quantile);
        self
    }

    /// Sets the most hedges of one call. Default 1: the second one gains little.
    pub fn max_hedges(mut self, hedges: usize) -> Self {
        self.values.max_hedges = hedges;
        self
    }

    /// Sets the longest time of a call: the timeout around this layer, or the timeout of an attempt
    /// beneath. A delay that is not below it is then an error, in `build` and in updates. Default:
    /// unknown.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.values.timeout = Some(timeout);
        self
    }

    /// Sets the longest `Retry-After` or pushback to wait for. A hedge after a failure with such a
    /// hint is sent at that time, not sooner. After a longer hint no hedge is sent. Default 10 s,
    /// as for a retry.
    pub fn max_retry_after(mut self, duration: Duration) -> Self {
        self.values.max_retry_after = duration;
        self
    }

    /// Sets the [`Budget`] that pays for hedges, such as that of a retry to the same upstream.
    ///
    /// Default: a [`RetryBudget`](crate::algorithm::RetryBudget) for this layer alone, to which
    /// each success adds a fiftieth. It stores no more than one call can use, so nothing in it
    /// could expire. A short queue makes all calls late at once, and ten stored tokens per client
    /// would make it a long one.
    pub fn budget(mut self, budget: impl Into<Arc<Budget>>) -> Self {
        self.values.payer = Payer::Given(budget.into());
        self
    }

    /// Sets one budget for each key, in place of one for all: see [`budget`](crate::budget). Give
    /// the same budgets to a [retry](crate::retry) of the same upstreams.
    pub fn budget_per<K, F>(
        self,
        budgets: KeyedBudgets<K, F>,
    ) -> HedgeBuilder<P, KeyedBudgets<K, F>> {
        HedgeBuilder {
            values: self.values,
            protocol: self.protocol,
            budgets,
        }
    }

    /// Hedges without a limit for all calls together. An upstream that becomes slow for all calls
    /// then gets twice its load, just when it can bear it least.
    pub fn without_budget(mut self) -> Self {
        self.values.payer = Payer::Unlimited;
        self
    }

    /// Sets whether calls are hedged. If `false`, each is sent once, with the same type. Default
    /// `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.enabled = enabled;
        self
    }

    /// Names this instance in errors and events, and registers it in the
    /// [`Registry`](crate::observe::Registry). Without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.name = Some(name.into().as_str());
        self
    }

    /// Sets which results are successes, and which requests may be sent twice. No default: see
    /// [`Replay`](crate::protocol::Replay).
    pub fn protocol<Q>(self, protocol: Q) -> HedgeBuilder<Chosen<Q>, B> {
        HedgeBuilder {
            values: self.values,
            protocol: Chosen(protocol),
            budgets: self.budgets,
        }
    }

    /// Returns what makes a budget for each key, unless a budget was set.
    #[cfg(feature = "http")]
    pub(crate) fn own_budgets(&self) -> Option<impl Fn() -> Budget + Send + Sync + 'static> {
        let has_own = matches!(self.values.payer, Payer::Own);
        has_own.then(|| own_budget(self.values.max_hedges))
    }

    /// Returns the shortest delay of a hedge.
    #[cfg(feature = "http")]
    pub(crate) fn least_delay(&self) -> Option<Duration> {
        self.values.delay.filter(|_| self.values.enabled)
    }

    /// Builds the layer, with a full budget and no latencies learned.
    ///
    /// # Errors
    /// - A delay under 100 microseconds, over an hour, or not below the `timeout` that was set.
    /// - A quantile that is not between 0 and 1.
    /// - No hedges or more than 10.
    /// - Budgets per key together with another budget, or with none.
    pub fn build(self) -> Result<HedgeLayer<P::Protocol, B>, ConfigError>
    where
        P: Choice,
        B: SharedBudget,
    {
        let name = self.values.name;
        let own = own_budget(self.values.max_hedges);
        let purses = self.values.payer.purses(own, self.budgets.shared());
        let purses = purses.map_err(|error| error.of("hedge", name))?;
        let share = self
            .values
            .quantile
            .or(self.values.delay.is_none().then_some(0.95));
        let quantile = share
            .map(LatencyQuantile::new)
            .transpose()
            .map_err(|error| error.of("hedge", name))?;
        let config = HedgeConfig {
            delay: self.values.delay.unwrap_or(HedgeConfig::default().delay),
            max_hedges: self.values.max_hedges,
        };
        let fixed = Fixed {
            enabled: self.values.enabled,
            timeout: self.values.timeout,
            max_retry_after: self.values.max_retry_after,
            name,
        };
        let state = Arc::new(State::new(config, quantile, purses, fixed)?);
        register(&state);
        Ok(HedgeLayer {
            handle: HedgeHandle::new(state),
            protocol: self.protocol.protocol(),
            budgets: self.budgets,
        })
    }
}

impl<S: Clone, P: Clone, B: Clone> Layer<S> for HedgeLayer<P, B> {
    type Service = Hedge<S, P, B>;

    fn layer(&self, inner: S) -> Self::Service {
        let rest = (self.protocol.clone(), self.budgets.clone());
        Hedge::new(inner, self.handle.clone(), rest)
    }
}

/// Returns what makes the budget of a layer, or of a key. It stores what one call can use.
fn own_budget(max_hedges: usize) -> impl Fn() -> Budget + Send + Sync + 'static {
    let stored = u32::try_from(max_hedges.clamp(1, 10)).unwrap_or(1);
    move || match RetryBudget::new(stored, OWN_RATIO) {
        Ok(own) => own.into(),
        Err(error) => unreachable!("{error}"),
    }
}

/// The part of a hedge that a success pays for: at most 2 % more calls. As
/// `tests/retry/hedge_load.rs` shows, a tenth does not harm a healthy server either, but stored
/// tokens do.
const OWN_RATIO: f64 = 0.02;
