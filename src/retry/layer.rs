//! The layer and its builder.

use std::{sync::Arc, time::Duration};

use tower::{Layer, Service};

use crate::{
    ConfigError, Name,
    algorithm::{Backoff, Budget},
    budget::{FindBudget, KeyedBudgets, OneBudget, Payer, SharedBudget},
    gate::WatchedCircuits,
    observe::register,
    protocol::{Choice, Chosen, Plain, Protocol, Replay, Unset},
    resend::FromLayer,
    retry::{
        ResponseFuture, Retry, RetryConfig, RetryEvent, RetryHandle,
        event::Hook,
        service::start,
        state::{Fixed, State},
    },
};

/// A layer that retries calls. All services it makes, and all their clones, share one budget, or
/// one for each key.
#[derive(Debug)]
pub struct RetryLayer<P = Plain, B = OneBudget> {
    handle: RetryHandle,
    protocol: P,
    budgets: B,
}

/// Settings of a [`RetryLayer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RetryBuilder<P = Unset, B = OneBudget> {
    values: RetryValues,
    protocol: P,
    budgets: B,
}

/// The settings that do not depend on the builder's type parameters.
#[derive(Debug, Clone)]
struct RetryValues {
    config: RetryConfig,
    payer: Payer,
    fixed: Fixed,
    circuits: Option<Arc<dyn WatchedCircuits>>,
    hook: Hook,
}

impl RetryLayer {
    /// Starts with up to three attempts, the second after some 100 to 200 ms. The budget holds 10
    /// tokens, and each success adds 0.1.
    ///
    /// The protocol must say which requests may be sent again: set one.
    pub fn builder() -> RetryBuilder {
        RetryBuilder {
            values: RetryValues {
                config: RetryConfig::default(),
                payer: Payer::Own,
                fixed: Fixed {
                    enabled: true,
                    retry_rejected: false,
                    name: None,
                },
                circuits: None,
                hook: Hook::default(),
            },
            protocol: Unset,
            budgets: OneBudget,
        }
    }
}

impl<P, B> RetryLayer<P, B> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> RetryHandle {
        self.handle.clone()
    }
}

impl<P, B> RetryLayer<P, B> {
    #[inline]
    pub(crate) fn shared_protocol(&self) -> &P {
        &self.protocol
    }

    /// Sends a call through the layer, to a service that is ready and cheap to clone.
    #[inline]
    pub(crate) fn send<S, Q, Req>(
        &self,
        mut service: S,
        request: Req,
        protocol: Q,
    ) -> ResponseFuture<S, Q, Req, B, FromLayer<'_, S, RetryHandle>>
    where
        B: FindBudget<Req>,
        Q: Replay<Req> + Protocol<S::Response, S::Error>,
        S: Service<Q::Request> + Clone,
    {
        let origin = FromLayer::new(&self.handle, service.clone());
        start(&mut service, request, protocol, &self.budgets, origin)
    }
}

impl<P, B> RetryBuilder<P, B> {
    /// Sets all settings that can change at run time, and replaces those set so far.
    pub fn config(mut self, config: RetryConfig) -> Self {
        self.values.config = config;
        self
    }

    /// Sets how often a call is sent at most, the first time included. Default 3.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.values.config.attempts = attempts;
        self
    }

    /// Sets how long to wait between attempts. Default: from 100 ms, doubling up to 10 s, jittered.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.values.config.backoff = backoff;
        self
    }

    /// Sets the longest `Retry-After` to wait for. Beyond it the response is returned. Default 10
    /// s.
    pub fn max_retry_after(mut self, duration: Duration) -> Self {
        self.values.config.max_retry_after = duration;
        self
    }

    /// Sets the [`Budget`] that pays for retries. Layers that call the same upstream may share one:
    /// pass clones of an `Arc<Budget>`.
    ///
    /// Default: a [`RetryBudget`](crate::algorithm::RetryBudget) of 10 tokens for this layer alone.
    /// It keeps what ten seconds of the layer's successes pay, and at least one token. So in an
    /// outage a client with one call a second has one retry to spend, and one with ten a second has
    /// ten. A budget that you pass keeps all its tokens.
    pub fn budget(mut self, budget: impl Into<Arc<Budget>>) -> Self {
        self.values.payer = Payer::Given(budget.into());
        self
    }

    /// Sets one budget for each key, in place of one for all: see [`budget`](crate::budget). Give
    /// the same budgets to a [hedge](crate::hedge) of the same upstreams.
    pub fn budget_per<K, F>(
        self,
        budgets: KeyedBudgets<K, F>,
    ) -> RetryBuilder<P, KeyedBudgets<K, F>> {
        RetryBuilder {
            values: self.values,
            protocol: self.protocol,
            budgets,
        }
    }

    /// Retries without a limit for all calls together. A failing upstream then gets up to
    /// `attempts` times its load, just when it can bear it least.
    pub fn without_budget(mut self) -> Self {
        self.values.payer = Payer::Unlimited;
        self
    }

    /// Also retries rejections of the layers beneath: an open circuit, a rate limit, a full
    /// bulkhead. It waits as long as the rejection says, if that is within `max_retry_after` and
    /// the deadline. The first such retry of a call needs no token. Default `false`: most such
    /// calls are better answered at once.
    pub fn retry_rejected(mut self, retry: bool) -> Self {
        self.values.fixed.retry_rejected = retry;
        self
    }

    /// Skips an attempt that a circuit beneath is certain to reject: the last result is the answer
    /// at once. Give it the handle of that circuit breaker. For a keyed one, the retry needs
    /// [budgets](Self::budget_per) of the same keys, which tell a call's key. The ready-made stacks
    /// do so. Default: such an attempt is waited for, and its rejection is the answer.
    pub fn stop_while_open(mut self, circuits: impl WatchedCircuits + 'static) -> Self {
        self.values.circuits = Some(Arc::new(circuits));
        self
    }

    /// Calls a closure for each retry, before its wait, for your own logs and metrics. It runs on
    /// the path of that call, so it must not block. With the feature `tracing` there is also an
    /// event at level `DEBUG`. Default: none.
    ///
    /// ```
    /// # #[cfg(feature = "http")] {
    /// use tower_keep::{protocol::http::Client, retry::RetryLayer};
    ///
    /// let retry = RetryLayer::builder().protocol(Client::new()).on_retry(|retry| {
    ///     let path = retry.request().map(|head: &http::request::Parts| head.uri.path());
    ///     eprintln!("attempt {} of {path:?}: {retry}, next in {:?}", retry.attempt, retry.wait);
    /// });
    /// # let _ = retry.build();
    /// # }
    /// ```
    pub fn on_retry(mut self, hook: impl Fn(&RetryEvent<'_>) + Send + Sync + 'static) -> Self {
        self.values.hook = Hook::new(hook);
        self
    }

    /// Sets whether calls are retried. If `false`, each is sent once, with the same type. Default
    /// `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.fixed.enabled = enabled;
        self
    }

    /// Names this instance in errors and events, and registers it in the
    /// [`Registry`](crate::observe::Registry). Without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.fixed.name = Some(name.into().as_str());
        self
    }

    /// Sets which results may be retried, and which requests. No default: see
    /// [`Replay`](crate::protocol::Replay).
    pub fn protocol<Q>(self, protocol: Q) -> RetryBuilder<Chosen<Q>, B> {
        RetryBuilder {
            values: self.values,
            protocol: Chosen(protocol),
            budgets: self.budgets,
        }
    }

    /// Returns the longest hint that is waited for, and the shortest wait if there is no hint.
    #[cfg(feature = "http")]
    pub(crate) fn waits(&self) -> (Duration, Option<Duration>) {
        (
            self.values.config.max_retry_after,
            self.values.config.least_wait(),
        )
    }

    #[cfg(feature = "http")]
    pub(crate) fn is_enabled(&self) -> bool {
        self.values.fixed.enabled
    }

    /// Lowers the default of `max_retry_after`. A value that was set stays.
    #[cfg(feature = "http")]
    pub(crate) fn cap_retry_after(mut self, cap: Duration) -> Self {
        self.values.config.cap_retry_after(cap);
        self
    }

    /// Returns whether no budget was set.
    #[cfg(feature = "http")]
    pub(crate) fn has_own_budget(&self) -> bool {
        matches!(self.values.payer, Payer::Own)
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// `attempts` is 0, or budgets per key are set together with another budget or with none.
    pub fn build(self) -> Result<RetryLayer<P::Protocol, B>, ConfigError>
    where
        P: Choice,
        B: SharedBudget,
    {
        let RetryValues {
            config,
            payer,
            fixed,
            circuits,
            hook,
        } = self.values;
        let config = config.check(fixed.name)?;
        let purses = payer.purses(Budget::default, self.budgets.shared());
        let purses = purses.map_err(|error| error.of("retry", fixed.name))?;
        let state = Arc::new(State::new(config, purses, fixed, (circuits, hook)));
        register(&state);
        Ok(RetryLayer {
            handle: RetryHandle::new(state),
            protocol: self.protocol.protocol(),
            budgets: self.budgets,
        })
    }
}

impl<P: Clone, B: Clone> Clone for RetryLayer<P, B> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            protocol: self.protocol.clone(),
            budgets: self.budgets.clone(),
        }
    }
}

impl<S: Clone, P: Clone, B: Clone> Layer<S> for RetryLayer<P, B> {
    type Service = Retry<S, P, B>;

    fn layer(&self, inner: S) -> Self::Service {
        let rest = (self.protocol.clone(), self.budgets.clone());
        Retry::new(inner, self.handle.clone(), rest)
    }
}
