//! A client's stack.

use std::{marker::PhantomData, time::Duration};

use tower::Layer;

use super::{
    Client, ClientGates, ClientHandle, ClientService,
    check::Times,
    defaults::{ATTEMPT, MAX_IN_FLIGHT, TOTAL},
    handle::{Enabled, Updating},
    parts::{CallsPart, Part, RatePart, circuit_breaker_config, named},
    timed::{InTimed, OfTimed, Sending, WithDeadline},
};
use crate::{
    ConfigError, Name,
    budget::{BudgetsHandle, KeyedBudgets},
    bulkhead::{BulkheadBuilder, LimitByKey},
    circuit_breaker::{CircuitBreakerBuilder, CircuitBreakerLayer},
    gate::{Chain, FindKey, GateLayer},
    keyed::{ByHost, ByKey, Host},
    protocol::http,
    rate_limit::{Rate, RateLimitBuilder},
    retry::{RetryBuilder, RetryLayer},
    timeout::{TimeoutBuilder, TimeoutLayer},
};

/// Protects a client: see [the module](super). All services it makes, and all their clones, share
/// its state.
#[derive(Debug, Clone)]
pub struct ClientStack<P, W = ByHost> {
    pub(super) total: TimeoutLayer<WithDeadline<P>>,
    pub(super) retry: RetryLayer<WithDeadline<P>, KeyedBudgets<Host, InTimed<W>>>,
    pub(super) gates: GateLayer<ClientGates<W>, WithDeadline<P>>,
    pub(super) attempt: TimeoutLayer<WithDeadline<P>>,
    protocol: P,
    budgets: BudgetsHandle<Host>,
    name: Option<&'static str>,
    updating: Updating,
    enabled: Enabled,
}

/// Settings of a [`ClientStack`], in any order.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ClientBuilder<P, W = ByHost> {
    name: Option<&'static str>,
    total: Part<TimeoutBuilder>,
    retry: Part<RetryBuilder>,
    breaker: Part<CircuitBreakerBuilder>,
    limit: RatePart,
    bulkhead: CallsPart,
    attempt: Part<TimeoutBuilder>,
    protocol: P,
    /// Whether [`AnyHost`] is `W`.
    one_peer: bool,
    by: PhantomData<fn() -> W>,
}

/// All requests go to the same upstream, or to upstreams that fail together.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyHost;

impl<Req> FindKey<Req, Host> for AnyHost {
    fn find(&self, _: &Req) -> Option<Host> {
        None
    }
}

impl Client {
    /// For HTTP clients, such as hyper-util's: a circuit and a bulkhead for each host.
    pub fn http(self) -> ClientBuilder<http::Client> {
        ClientBuilder::new(http::Client::new(), false)
    }

    /// For tonic's channels. A request of tonic's names no host, so one circuit and one bulkhead
    /// serve the channel.
    #[cfg(feature = "tonic-014")]
    pub fn grpc(
        self,
        client: crate::protocol::grpc::Client,
    ) -> ClientBuilder<crate::protocol::grpc::Client> {
        ClientBuilder::new(client, false)
    }

    /// For any client, with one circuit and one bulkhead. Say with the protocol which requests may
    /// be sent more than once: `Plain::new().idempotent()`, for example.
    pub fn plain<P>(self, protocol: P) -> ClientBuilder<P, AnyHost> {
        ClientBuilder::new(protocol, true)
    }
}

impl<P, W> ClientBuilder<P, W> {
    fn new(protocol: P, one_peer: bool) -> Self {
        Self {
            name: None,
            total: Part::new(TimeoutLayer::builder(TOTAL)),
            retry: Part::new(RetryLayer::builder()),
            breaker: Part::new(CircuitBreakerLayer::builder().config(circuit_breaker_config())),
            limit: RatePart::default(),
            bulkhead: CallsPart::new(None, Some(MAX_IN_FLIGHT)),
            attempt: Part::new(TimeoutLayer::builder(ATTEMPT)),
            protocol,
            one_peer,
            by: PhantomData,
        }
    }

    /// Names all parts in errors and events, and makes them known to the
    /// [`Registry`](crate::observe::Registry): without a name they have no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// How long a call may take with all its attempts and waits. Default 10 s, about as long as
    /// people wait.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total = Part::new(TimeoutLayer::builder(timeout));
        self
    }

    /// How long one attempt may take. Default 3 s; a little above what the slowest good answers
    /// take is better.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt = Part::new(TimeoutLayer::builder(timeout));
        self
    }

    /// How many calls may be in flight to each host. Default 100. What the upstream answers in a
    /// second times half of the attempt's timeout is a start.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.bulkhead.set = Some(calls);
        self
    }

    /// The rate at which calls are sent, to all hosts together; more are rejected. Default: any.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.limit.rate = Some(rate);
        self
    }

    /// How many calls may come at once after a pause, if there is a [`rate`](Self::rate). Default:
    /// those of one second, and at least 1.
    pub fn burst(mut self, burst: u32) -> Self {
        self.limit.burst = Some(burst);
        self
    }

    /// A rate limit of any kind, in place of a [`rate`](Self::rate): a sliding window, one that
    /// waits. One that honors `Retry-After` needs a stack of [one peer](Self::one_peer): the limit
    /// is for all hosts, and one host's hint would close it for the others. Its name is the
    /// stack's, if that has one.
    pub fn rate_limit(mut self, limit: RateLimitBuilder) -> Self {
        self.limit.builder = Some(limit);
        self
    }

    /// A bulkhead by its own builder. It has a limit of its own, so it and
    /// [`max_in_flight`](Self::max_in_flight) are an error together. Each host gets one. Its name
    /// is the stack's, if that has one.
    pub fn bulkhead(mut self, bulkhead: BulkheadBuilder) -> Self {
        self.bulkhead.builder = Some(bulkhead);
        self
    }

    /// Changes the retries: a closure is given their builder. Over HTTP each host has a budget of
    /// its own, unless the closure gives one to all, or none.
    pub fn retry(mut self, change: impl FnOnce(RetryBuilder) -> RetryBuilder) -> Self {
        self.retry = Part::new(change(self.retry.builder));
        self
    }

    /// Changes the circuit breaker: a closure is given its builder.
    pub fn circuit_breaker(
        mut self,
        change: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder,
    ) -> Self {
        self.breaker = Part::new(change(self.breaker.builder));
        self
    }

    /// Changes the protocol: which results are failures, and what may be retried.
    pub fn protocol<Q>(self, change: impl FnOnce(P) -> Q) -> ClientBuilder<Q, W> {
        let one_peer = self.one_peer;
        self.changed(change, one_peer)
    }

    /// One circuit and one bulkhead for all requests, whatever hosts they name: for the stack of
    /// one peer beneath a [load balancer](crate::guide::balancing), where the circuit breaker may
    /// have [backpressure](CircuitBreakerBuilder::backpressure). Default, over HTTP: one for each
    /// host.
    pub fn one_peer(self) -> ClientBuilder<P, AnyHost> {
        self.changed(|protocol| protocol, true)
    }

    fn changed<Q, V>(self, change: impl FnOnce(P) -> Q, one_peer: bool) -> ClientBuilder<Q, V> {
        let Self {
            name,
            total,
            retry,
            breaker,
            limit,
            bulkhead,
            attempt,
            protocol,
            ..
        } = self;
        ClientBuilder {
            name,
            total,
            retry,
            breaker,
            limit,
            bulkhead,
            attempt,
            protocol: change(protocol),
            one_peer,
            by: PhantomData,
        }
    }

    /// Leaves the total timeout out.
    pub fn without_total_timeout(mut self) -> Self {
        self.total.enabled = false;
        self
    }

    /// Leaves the retries out.
    pub fn without_retry(mut self) -> Self {
        self.retry.enabled = false;
        self
    }

    /// Leaves the circuit breaker out.
    pub fn without_circuit_breaker(mut self) -> Self {
        self.breaker.enabled = false;
        self
    }

    /// Leaves the bulkhead out.
    pub fn without_bulkhead(mut self) -> Self {
        self.bulkhead = CallsPart::new(None, None);
        self
    }

    /// Leaves the timeout of each attempt out.
    pub fn without_attempt_timeout(mut self) -> Self {
        self.attempt.enabled = false;
        self
    }

    fn times(&self) -> Times {
        let window = self.breaker.builder.window_of_time();
        let (hint, backoff) = self.retry.builder.waits();
        Times {
            total: self.total.enabled.then(|| self.total.builder.limit()),
            attempt: self.attempt.enabled.then(|| self.attempt.builder.limit()),
            window: window.filter(|_| self.breaker.enabled),
            max_retry_after: self.retry.enabled.then_some(hint),
            backoff: backoff.filter(|_| self.retry.enabled),
        }
    }
}

impl<P: Clone, W: Default + Clone> ClientBuilder<P, W> {
    /// Checks all settings, and each part's against the others'.
    ///
    /// # Errors
    /// What a part would reject. A total timeout below an attempt's. A circuit breaker's window
    /// below twice the attempt's timeout. A hint that a retry waits for above the total timeout, or
    /// a backoff whose base is not below it.
    pub fn build(mut self) -> Result<ClientStack<P, W>, ConfigError> {
        // Unless it was set: a longer wait would only end in the total timeout.
        if self.total.enabled {
            let total = self.total.builder.limit();
            self.retry.builder = self.retry.builder.cap_retry_after(total);
        }
        self.times()
            .check()
            .map_err(|error| error.of("stack", self.name))?;
        let Self {
            name,
            total,
            retry,
            breaker,
            limit,
            bulkhead,
            attempt,
            protocol,
            one_peer,
            ..
        } = self;
        let enabled = Enabled {
            total: total.enabled,
            retry: retry.enabled,
            breaker: breaker.enabled,
            attempt: attempt.enabled,
        };
        let has_backpressure = breaker.builder.has_backpressure() && breaker.enabled;
        let breaker = named(breaker.builder, name, CircuitBreakerBuilder::name)
            .enabled(breaker.enabled)
            .with_key(ByKey::new(InTimed::<W>::default()))
            .all_share(one_peer)
            .gate()?;
        let bulkhead = bulkhead.builder_or_off(name)?;
        let bulkhead = named(bulkhead, name, BulkheadBuilder::name)
            .with_key(LimitByKey::new(InTimed::<W>::default()))
            .with_ask(OfTimed)
            .gate()?;
        if !one_peer {
            limit.for_all_hosts(name)?;
        }
        let limit = limit.builder(name)?;
        let limit = limit.map(|limit| limit.with_ask(OfTimed).gate());
        let limit = limit.transpose()?;
        let budgets = KeyedBudgets::builder(InTimed::default()).build()?;
        let budgets = match (one_peer, retry.builder.has_own_budget()) {
            (true, _) => KeyedBudgets::off(InTimed::default()),
            (false, true) => budgets,
            // Each call's host is known, of which the circuit is asked.
            (false, false) => budgets.keys_alone(),
        };
        let circuits = breaker.handle();
        let layered = WithDeadline::new(protocol.clone());
        Ok(ClientStack {
            total: named(total.builder, name, TimeoutBuilder::name)
                .enabled(total.enabled)
                .total(true)
                .passes_backpressure(has_backpressure)
                .protocol(layered.clone())
                .build()
                .map_err(|error| error.renamed("duration", "total_timeout"))?,
            budgets: budgets.handle(),
            retry: named(retry.builder, name, RetryBuilder::name)
                .enabled(retry.enabled)
                .protocol(layered.clone())
                .budget_per(budgets)
                .stop_while_open(circuits)
                .build()?,
            gates: GateLayer::with_protocol(
                Chain::new(breaker, Chain::new(limit, bulkhead)),
                layered.clone(),
            ),
            attempt: named(attempt.builder, name, TimeoutBuilder::name)
                .enabled(attempt.enabled)
                .protocol(layered)
                .build()
                .map_err(|error| error.renamed("duration", "attempt_timeout"))?,
            protocol,
            name,
            updating: Updating::default(),
            enabled,
        })
    }
}

impl<P, W> ClientStack<P, W> {
    /// Returns the handle of all parts.
    #[must_use]
    pub fn handle(&self) -> ClientHandle {
        let Chain {
            first: breaker,
            second:
                Chain {
                    first: limit,
                    second: bulkhead,
                },
        } = self.gates.gate();
        ClientHandle {
            total_timeout: self.total.handle(),
            retry: self.retry.handle(),
            retry_budgets: self.budgets.clone(),
            circuit_breaker: breaker.handle(),
            rate_limit: limit.as_ref().map(|limit| limit.handle()),
            bulkhead: bulkhead.handle(),
            attempt_timeout: self.attempt.handle(),
            name: self.name,
            updating: self.updating.clone(),
            enabled: self.enabled,
        }
    }
}

impl<S: Clone, P: Clone, W: Clone> Layer<S> for ClientStack<P, W> {
    type Service = ClientService<S, P, W>;

    fn layer(&self, inner: S) -> Self::Service {
        let sending = Sending::new(inner, self.protocol.clone());
        let attempts = self.gates.layer(self.attempt.layer(sending));
        let layers = self.total.layer(self.retry.layer(attempts));
        ClientService::new(layers, self.protocol.clone())
    }
}
