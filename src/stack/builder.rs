//! The builder of a client's stack.

mod build;
mod typed;

use std::{marker::PhantomData, sync::Arc, time::Duration};

use super::{
    AnyHost, ClientGates, ClientStack, ClientWithoutProtocol,
    defaults::{ATTEMPT, TOTAL, circuit_breaker_config},
    hosts::Hosts,
    parts::{
        Beside, CallsPart, ClientBulkheadPart, FallbackPart, LimitPart, NoFallback, Own, Part,
        RatePart, Untried,
    },
    resend::{Resend, Retrying},
};
use crate::{
    Name,
    circuit_breaker::{CircuitBreakerBuilder, CircuitBreakerLayer},
    keyed::{ByHost, Host},
    protocol::http,
    rate_limit::Rate,
    retry::{RetryBuilder, RetryLayer},
    throttle::{ThrottleBuilder, ThrottleLayer},
    timeout::{TimeoutBuilder, TimeoutLayer},
};

/// Settings of a [`ClientStack`], in any order. `T` tells which parts were set with their own
/// types.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ClientBuilder<P, W = ByHost, T = Parts> {
    settings: Settings,
    protocol: P,
    parts: T,
    by: PhantomData<fn() -> W>,
}

/// The parts of a client's stack that have their own types: the one that sends calls again, the
/// rate limit, the bulkhead, the gate on trial, and the fallback.
#[derive(Debug, Default)]
pub struct Parts<R = Retrying, L = Own, B = Own, X = Untried, F = NoFallback> {
    resend: R,
    limit: L,
    bulkhead: B,
    trial: X,
    fallback: F,
}

/// The stack's own settings.
#[derive(Debug)]
struct Settings {
    name: Option<&'static str>,
    total: Part<TimeoutBuilder>,
    retry: RetryBuilder,
    breaker: Part<CircuitBreakerBuilder>,
    throttle: Option<ThrottleBuilder>,
    rate: RatePart,
    calls: CallsPart,
    attempt: Part<TimeoutBuilder>,
    hosts: Hosts,
    /// If true, the attempt's timeout was not set: it is at most the call's.
    attempt_follows: bool,
    /// If true, [`AnyHost`] is `W`.
    one_peer: bool,
    /// If true, a load balancer is above.
    is_balanced: bool,
}

/// The stack that a [`ClientBuilder`] builds.
pub type BuiltClient<P, W, R, L, B, X, F> = ClientStack<
    P,
    W,
    <R as Resend<P, W>>::Layer,
    ClientGates<W, <L as LimitPart>::Gate, <X as Beside>::With<<B as ClientBulkheadPart<W>>::Gate>>,
    <F as FallbackPart<P>>::Layer,
>;

impl ClientWithoutProtocol {
    /// Starts a stack for HTTP clients, such as hyper-util's: a circuit and a bulkhead for each
    /// host.
    pub fn http(self) -> ClientBuilder<http::Client> {
        ClientBuilder::new(http::Client::new(), false)
    }

    /// Starts a stack for tonic's channels. A tonic request names no host, so one circuit and one
    /// bulkhead serve the channel.
    #[cfg(feature = "tonic-014")]
    pub fn grpc(
        self,
        client: crate::protocol::grpc::Client,
    ) -> ClientBuilder<crate::protocol::grpc::Client> {
        ClientBuilder::new(client, false)
    }

    /// Starts a stack for any client, with one circuit and one bulkhead. The protocol says which
    /// requests may be sent more than once: `Plain::new().idempotent()`, for example.
    pub fn plain<P>(self, protocol: P) -> ClientBuilder<P, AnyHost> {
        ClientBuilder::new(protocol, true)
    }
}

impl<P, W> ClientBuilder<P, W> {
    fn new(protocol: P, one_peer: bool) -> Self {
        let breaker = CircuitBreakerLayer::builder().config(circuit_breaker_config());
        Self {
            settings: Settings {
                name: None,
                total: Part::new(TimeoutLayer::builder(TOTAL)),
                retry: RetryLayer::builder(),
                breaker: Part::new(breaker),
                throttle: None,
                rate: RatePart::default(),
                calls: CallsPart::default(),
                attempt: Part::new(TimeoutLayer::builder(ATTEMPT)),
                hosts: Hosts::default(),
                attempt_follows: true,
                one_peer,
                is_balanced: false,
            },
            protocol,
            parts: Parts::default(),
            by: PhantomData,
        }
    }
}

impl<P, W, T> ClientBuilder<P, W, T> {
    /// Names all parts in errors and events, and registers them in the
    /// [`Registry`](crate::observe::Registry): without a name they have no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.settings.name = Some(name.into().as_str());
        self
    }

    /// Shows hosts in events of circuits, in snapshots and as [labels](Self::label_keys). A closure
    /// makes the text of a host: `ToString::to_string` for the whole host. Default: they are
    /// redacted to a hash, because a user may have chosen the host.
    ///
    /// ```
    /// use tower_keep::stack;
    ///
    /// let stack = stack::client().http().name("search").show_keys(ToString::to_string).build()?;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    ///
    /// It does not change a bulkhead that was set with its own keys.
    pub fn show_keys(mut self, show: impl Fn(&Host) -> String + Send + Sync + 'static) -> Self {
        self.settings.hosts.show = Some(Arc::new(show));
        self
    }

    /// Makes each host a label `key` of the gauges in metrics, for up to `max` hosts (1 to 256).
    /// Later hosts share the label `other`. Default: none.
    pub fn label_keys(mut self, max: usize) -> Self {
        self.settings.hosts.keys.label_keys = Some(max);
        self
    }

    /// Sets how many hosts have a circuit, a bulkhead and a retry budget of their own. Later hosts
    /// share one of each, until one that is unused makes room. Default: 1024, and 1000 budgets.
    ///
    /// It does not change a bulkhead that was set with its own keys.
    pub fn max_hosts(mut self, hosts: usize) -> Self {
        self.settings.hosts.keys.max_keys = Some(hosts);
        self
    }

    /// Sets how long a call may take with all its attempts and waits. Default 10 s, about as long
    /// as people wait.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.settings.total = Part::new(TimeoutLayer::builder(timeout));
        self
    }

    /// Sets how long one attempt may take. Default 3 s, or the [total](Self::total_timeout) if that
    /// is less. Better: a little above the time of the slowest good answers.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings.attempt_follows = false;
        self.settings.attempt = Part::new(TimeoutLayer::builder(timeout));
        self
    }

    /// Sets how many calls may be in flight to each host.
    ///
    /// Default with a [`rate`](Self::rate): half of the calls that it admits within the [attempt's
    /// timeout](Self::attempt_timeout). As many more may wait for three tenths of that time, or a
    /// whole [`burst`](Self::burst) if that is more.
    ///
    /// Default without a rate: no limit until [`Changes`](super::Changes) sets one. Any number is
    /// wrong for some healthy upstream. At 2000 calls a second that take 100 ms, a limit of 100
    /// rejects every second call, as a [drill](crate::guide::choosing) shows. The circuit breaker
    /// ends the calls to an upstream that hangs.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.settings.calls.set = Some(calls);
        self
    }

    /// Sets the rate at which calls are sent to all hosts together. More are rejected. Default:
    /// none.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.settings.rate.rate = Some(rate);
        self
    }

    /// Sets how many calls may arrive at once after a pause, if there is a [`rate`](Self::rate).
    /// Default: the calls of one second, and at least 1.
    pub fn burst(mut self, burst: u32) -> Self {
        self.settings.rate.burst = Some(burst);
        self
    }

    /// Changes the circuit breaker. The closure receives its builder.
    pub fn circuit_breaker(
        mut self,
        change: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder,
    ) -> Self {
        self.settings.breaker = Part::new(change(self.settings.breaker.builder));
        self
    }

    /// Adds a [throttle](crate::throttle) for each host. It sends less to a host that is overloaded
    /// but still answers. The closure receives its builder. The throttle is within the circuit
    /// breaker. Default: none, because the circuit is enough for most clients.
    ///
    /// ```
    /// use tower_keep::stack;
    ///
    /// let stack = stack::client().http().throttle(|throttle| throttle.multiplier(1.5)).build()?;
    /// assert_eq!(stack.handle().throttle.unwrap().keys().len(), 0);
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn throttle(mut self, change: impl FnOnce(ThrottleBuilder) -> ThrottleBuilder) -> Self {
        let builder = self.settings.throttle.take();
        let builder = builder.unwrap_or_else(ThrottleLayer::builder);
        self.settings.throttle = Some(change(builder));
        self
    }

    /// Changes the protocol: which results are failures, and what may be retried.
    pub fn protocol<Q>(self, change: impl FnOnce(P) -> Q) -> ClientBuilder<Q, W, T> {
        ClientBuilder {
            settings: self.settings,
            protocol: change(self.protocol),
            parts: self.parts,
            by: PhantomData,
        }
    }

    /// Uses one circuit and one bulkhead for all requests, whatever hosts they name: for the stack
    /// of one peer beneath a [load balancer](crate::guide::balancing). Default over HTTP: one for
    /// each host.
    ///
    /// The circuit breaker then has [backpressure](CircuitBreakerBuilder::backpressure). Otherwise
    /// a peer with an open circuit would answer first, and receive most calls. Without a balancer
    /// above, set [`without_backpressure`](CircuitBreakerBuilder::without_backpressure). Otherwise
    /// calls would wait for the circuit, where they should be rejected.
    pub fn one_peer(mut self) -> ClientBuilder<P, AnyHost, T> {
        self.settings.one_peer = true;
        self.settings.is_balanced = true;
        ClientBuilder {
            settings: self.settings,
            protocol: self.protocol,
            parts: self.parts,
            by: PhantomData,
        }
    }

    /// Leaves the total timeout out.
    pub fn without_total_timeout(mut self) -> Self {
        self.settings.total.enabled = false;
        self
    }

    /// Leaves the circuit breaker out.
    pub fn without_circuit_breaker(mut self) -> Self {
        self.settings.breaker.enabled = false;
        self
    }

    /// Leaves the bulkhead out.
    pub fn without_bulkhead(mut self) -> Self {
        self.settings.calls = CallsPart::left_out();
        self
    }

    /// Leaves the timeout of each attempt out.
    pub fn without_attempt_timeout(mut self) -> Self {
        self.settings.attempt.enabled = false;
        self
    }

    /// Sets the retry's builder, in a stack that may have no retry.
    #[cfg(feature = "serde")]
    pub(crate) fn with_retry(mut self, retry: RetryBuilder) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Removes the limit on calls in flight, until one is set.
    #[cfg(feature = "serde")]
    pub(crate) fn with_any_in_flight(mut self) -> Self {
        self.settings.calls = CallsPart::unbounded();
        self
    }

    fn with_parts<U>(self, change: impl FnOnce(T) -> U) -> ClientBuilder<P, W, U> {
        ClientBuilder {
            settings: self.settings,
            protocol: self.protocol,
            parts: change(self.parts),
            by: PhantomData,
        }
    }
}
