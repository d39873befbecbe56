//! A server's stack.

use std::time::Duration;

use tower::{Layer, layer::util::Identity};

use super::{
    ServerHandle, ServerWithoutProtocol,
    defaults::{BUSY, TIMEOUT},
    parts::{
        Beside, BulkheadPart, CallsPart, FallbackPart, LimitPart, NoFallback, Own, RatePart,
        Untried, named,
    },
    saying::BySettings,
    updating::Updating,
};
use crate::{
    ConfigError, Name,
    bulkhead::BulkheadGate,
    drain::{Drain, DrainGate},
    fallback::{FallbackBuilder, FallbackHandle},
    gate::{Asking, Chain, Controlled, GateLayer, Gated, Shadow},
    protocol::{Plain, http},
    rate_limit::{LimitGate, Rate},
    timeout::{Timeout, TimeoutBuilder, TimeoutLayer},
};

/// A stack that protects a server: see [the module](super). All services it makes, and all their
/// clones, share its state: it is one limit for a whole `Router`.
#[derive(Debug, Clone)]
pub struct ServerStack<P, G = ServerGates, F = Identity, A = Identity> {
    pub(super) gates: GateLayer<BySettings<G, P>, P>,
    pub(super) timeout: TimeoutLayer<P>,
    pub(super) audit: A,
    pub(super) fallback: F,
    pub(super) protocol: P,
    pub(super) answers: Option<FallbackHandle>,
    pub(super) name: Option<&'static str>,
    pub(super) updating: Updating,
}

/// Settings of a [`ServerStack`], in any order.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ServerBuilder<P, L = Own, B = Own, X = Untried, F = NoFallback> {
    settings: Settings,
    limit: L,
    bulkhead: B,
    trial: X,
    fallback: F,
    protocol: P,
}

/// The stack's own settings.
#[derive(Debug)]
struct Settings {
    name: Option<&'static str>,
    rate: RatePart,
    max_in_flight: Option<usize>,
    reclaim_after: Option<Duration>,
    timeout: Option<Duration>,
}

/// The gates of a server: a count of its calls for a [drain](ServerHandle::drain), a rate, and a
/// limit on the calls in flight.
pub type ServerGates<L = Option<Asking<LimitGate>>, B = Asking<BulkheadGate>> =
    Chain<DrainGate, Chain<L, B>>;

/// The stack that a [`ServerBuilder`] builds.
pub type BuiltServer<P, L, B, X = Untried, F = NoFallback> = ServerStack<
    P,
    ServerGates<<L as LimitPart>::Gate, <X as Beside>::With<<B as BulkheadPart>::Gate>>,
    <F as FallbackPart<P>>::Layer,
>;

/// A service behind a [`ServerStack`] without a fallback.
pub type ServerService<S, P, G = ServerGates> = Gated<Timeout<S, P>, BySettings<G, P>, P>;

impl ServerWithoutProtocol {
    /// Starts a stack for HTTP servers, such as an axum `Router`. Rejections are 429 and 503
    /// responses, with a `Retry-After`. If the wait is not known it is [a
    /// guess](http::Server::hint_when_busy) of one to three seconds.
    pub fn http(self) -> ServerBuilder<http::Server> {
        ServerBuilder::new(http::Server::new().hint_when_busy(BUSY))
    }

    /// Starts a stack for tonic's servers. Rejections are trailers-only responses, with pushback as
    /// over [HTTP](Self::http).
    #[cfg(feature = "tonic-014")]
    pub fn grpc(self) -> ServerBuilder<crate::protocol::grpc::Server> {
        ServerBuilder::new(crate::protocol::grpc::Server::new().hint_when_busy(BUSY))
    }

    /// Starts a stack for any service. Rejections are errors.
    pub fn plain(self) -> ServerBuilder<Plain> {
        ServerBuilder::new(Plain::new())
    }
}

impl<P> ServerBuilder<P> {
    fn new(protocol: P) -> Self {
        let settings = Settings {
            name: None,
            rate: RatePart::default(),
            max_in_flight: None,
            reclaim_after: None,
            timeout: Some(TIMEOUT),
        };
        Self {
            settings,
            limit: Own,
            bulkhead: Own,
            trial: Untried,
            fallback: NoFallback,
            protocol,
        }
    }
}

impl<P, L, B, X, F> ServerBuilder<P, L, B, X, F> {
    /// Names all parts in errors and events, and registers them in the
    /// [`Registry`](crate::observe::Registry): without a name they have no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.settings.name = Some(name.into().as_str());
        self
    }

    /// Sets the rate at which calls are admitted. More are rejected. Default: none.
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

    /// Sets a rate limit of any kind, in place of a [`rate`](Self::rate): a sliding window, one
    /// that waits, one that is advertised, one for each tenant. It has the stack's name, if there
    /// is one.
    ///
    /// ```
    /// use tower_keep::{keyed, rate_limit::{Rate, RateLimitLayer}, stack};
    /// # type Request = http::Request<()>;
    ///
    /// let tenants = RateLimitLayer::builder(Rate::per_second(50))
    ///     .keyed_by(|request: &Request| keyed::header("x-tenant")(request));
    /// let server = stack::server().http().rate_limit(tenants).max_in_flight(100).build()?;
    /// assert_eq!(server.handle().rate_limit.snapshot().active, 0);
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn rate_limit<T: LimitPart>(self, limit: T) -> ServerBuilder<P, T, B, X, F> {
        ServerBuilder {
            settings: self.settings,
            limit,
            bulkhead: self.bulkhead,
            trial: self.trial,
            fallback: self.fallback,
            protocol: self.protocol,
        }
    }

    /// Sets a bulkhead by its own builder: one with a queue, one that learns its limit, one for
    /// each route. It has its own limit, so it and [`max_in_flight`](Self::max_in_flight) together
    /// are an error. It has the stack's name, if there is one.
    pub fn bulkhead<T: BulkheadPart>(self, bulkhead: T) -> ServerBuilder<P, L, T, X, F> {
        ServerBuilder {
            settings: self.settings,
            limit: self.limit,
            bulkhead,
            trial: self.trial,
            fallback: self.fallback,
            protocol: self.protocol,
        }
    }

    /// Puts a gate on [trial](Shadow), innermost of the gates. It checks each call that the others
    /// admit, and counts the calls that it would reject. Its handle is the [`Shadow`]'s.
    ///
    /// ```
    /// use tower_keep::{bulkhead::BulkheadLayer, gate::Shadow, stack};
    ///
    /// let candidate = Shadow::new(BulkheadLayer::builder(50).gate()?, "fifty");
    /// let trial = candidate.handle();
    /// let stack = stack::server().http().max_in_flight(100).shadow(candidate).build()?;
    /// assert_eq!(trial.snapshot().calls, 0);
    /// # let _ = stack;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn shadow<C>(self, candidate: Shadow<C>) -> ServerBuilder<P, L, B, Shadow<C>, F> {
        ServerBuilder {
            settings: self.settings,
            limit: self.limit,
            bulkhead: self.bulkhead,
            trial: candidate,
            fallback: self.fallback,
            protocol: self.protocol,
        }
    }

    /// Gives failed calls another answer: a [fallback](crate::fallback) around the whole stack,
    /// with the stack's protocol and name. Default: none.
    pub fn fallback<C>(
        self,
        fallback: FallbackBuilder<C>,
    ) -> ServerBuilder<P, L, B, X, FallbackBuilder<C>> {
        ServerBuilder {
            settings: self.settings,
            limit: self.limit,
            bulkhead: self.bulkhead,
            trial: self.trial,
            fallback,
            protocol: self.protocol,
        }
    }

    /// Sets how many calls may be in flight. More are rejected.
    ///
    /// Default with a [`rate`](Self::rate): a quarter of the calls that it admits within the
    /// [timeout](Self::timeout). As many more may wait for three tenths of that time. By Little's
    /// law, calls would be answered just too late if all of them were in flight. Half is too much
    /// while the server works at half its speed: at 70 % load 31 % of the calls are then answered.
    /// With a quarter that waits it is 70 %, as a [drill](crate::guide::choosing) shows. Without a
    /// rate the limit must be set.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.settings.max_in_flight = Some(calls);
        self
    }

    /// Reclaims the permit of a call that has held it for `duration`, once another call finds none,
    /// as a [bulkhead](crate::bulkhead::BulkheadBuilder::reclaim_after) does. For stacks that hold
    /// a permit to the end of the response. Default: a call keeps its permit until it ends.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_keep::{protocol::http::UntilBodyEnd, stack};
    ///
    /// let server = stack::server()
    ///     .http()
    ///     .protocol(UntilBodyEnd::new)
    ///     .max_in_flight(100)
    ///     .reclaim_after(Duration::from_secs(60))
    ///     .build()?;
    /// assert_eq!(server.handle().bulkhead.snapshot().totals.reclaimed, 0);
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn reclaim_after(mut self, duration: Duration) -> Self {
        self.settings.reclaim_after = Some(duration);
        self
    }

    /// Sets how long a call may take. Default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Leaves the timeout out.
    pub fn without_timeout(mut self) -> Self {
        self.settings.timeout = None;
        self
    }

    /// Changes the protocol: how rejections are answered.
    pub fn protocol<Q>(self, change: impl FnOnce(P) -> Q) -> ServerBuilder<Q, L, B, X, F> {
        ServerBuilder {
            settings: self.settings,
            limit: self.limit,
            bulkhead: self.bulkhead,
            trial: self.trial,
            fallback: self.fallback,
            protocol: change(self.protocol),
        }
    }
}

impl<P, L, B, X, F> ServerBuilder<P, L, B, X, F>
where
    P: Clone,
    L: LimitPart,
    B: BulkheadPart,
    X: Beside,
    F: FallbackPart<P>,
{
    /// Builds the stack and checks all settings.
    ///
    /// # Errors
    /// A setting that a part rejects, or no limit on the calls in flight.
    pub fn build(self) -> Result<BuiltServer<P, L, B, X, F>, ConfigError> {
        let Self {
            settings,
            limit,
            bulkhead,
            trial,
            fallback,
            protocol,
        } = self;
        let calls = settings.calls();
        let Settings {
            name,
            rate,
            timeout,
            ..
        } = settings;
        let limits = Chain {
            first: limit.limit(rate, name)?,
            second: trial.beside(bulkhead.bulkhead(calls, name)?),
        };
        let gates = Chain::new(DrainGate::new(Drain::new(name)), limits);
        let (fallback, answers) = fallback.layer(&protocol, name)?;
        let gates = BySettings::new(gates, protocol.clone());
        let builder = TimeoutLayer::builder(timeout.unwrap_or(TIMEOUT));
        Ok(ServerStack {
            gates: GateLayer::with_protocol(gates, protocol.clone()),
            timeout: named(builder, name, TimeoutBuilder::name)
                .enabled(timeout.is_some())
                .protocol(protocol.clone())
                .build()
                .map_err(|error| error.renamed("duration", "timeout"))?,
            audit: Identity::new(),
            protocol,
            fallback,
            answers,
            name,
            updating: Updating::default(),
        })
    }
}

impl Settings {
    /// Returns the limit on the calls in flight.
    fn calls(&self) -> CallsPart {
        let known = self.rate.rate.zip(self.timeout);
        let calls = CallsPart::new(self.max_in_flight).or_quarter_of(known);
        calls.reclaiming(self.reclaim_after)
    }
}

impl<P, L: Controlled, B: Controlled, F, A> ServerStack<P, ServerGates<L, B>, F, A> {
    /// Returns the handle of all parts.
    #[must_use]
    pub fn handle(&self) -> ServerHandle<L::Handle, B::Handle> {
        let Chain {
            first: drain,
            second: Chain { first, second },
        } = self.gates.gate().gate();
        ServerHandle {
            drain: drain.drain().clone(),
            rate_limit: first.control_if_on(),
            limit: first.control(),
            bulkhead: second.control(),
            timeout: self.timeout.handle(),
            fallback: self.answers.clone(),
            name: self.name,
            updating: self.updating.clone(),
        }
    }
}

impl<S, P: Clone, G, F, A> Layer<S> for ServerStack<P, G, F, A>
where
    A: Layer<S>,
    F: Layer<ServerService<A::Service, P, G>>,
{
    type Service = F::Service;

    fn layer(&self, inner: S) -> Self::Service {
        let audited = self.audit.layer(inner);
        self.fallback
            .layer(self.gates.layer(self.timeout.layer(audited)))
    }
}
