//! Gates on trial that mark the calls they would reject.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    Name, Rejected,
    ambient::clock::Now,
    gate::{Admit, Demand, Gate, GateLayer, Inquiry, Permit, Read, Shadow, ShadowHandle},
    protocol::{Protocol, WouldReject},
    sync::Striped,
};

/// A layer that admits all calls, and marks those that its gates would have rejected. It is a
/// [trial](crate::gate::Shadow) whose verdicts are visible to handlers, callers and logs, over HTTP
/// and gRPC.
///
/// The request and the response carry a [`WouldReject`] in their extensions, and a server's
/// response has the field `x-would-reject` with the kind of the rejection. So callers can be warned
/// before a limit is enforced. Everything else is as in a trial, including the handle and the
/// metrics. A call that would have waited is counted, and not marked.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use tower_keep::{
///     protocol::{WouldReject, http::Server}, rate_limit::{Rate, RateLimitLayer},
/// };
///
/// let limit = RateLimitLayer::builder(Rate::per_second(10)).protocol(Server::new()).build()?;
/// let audit = limit.audit("ten a second");
/// let handle = audit.handle();
/// let app: Router = Router::new()
///     .route("/", get(async |mark: Option<Extension<WouldReject>>| match mark {
///         Some(_) => "soon you will be limited",
///         None => "hello",
///     }))
///     .layer(audit);
/// assert_eq!(handle.snapshot().calls, 0);
/// # let _ = app;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
///
/// Put it around a [stack](crate::stack), or in place of the layer that it tries. For the gates
/// within a stack, use the stack's [`audit`](crate::stack::ServerStack::audit).
pub struct AuditLayer<G, P> {
    gate: Striped<Shadow<G>>,
    protocol: P,
}

/// A service behind an [`AuditLayer`].
pub struct Audited<S, G, P> {
    inner: S,
    gate: Striped<Shadow<G>>,
    protocol: P,
}

pin_project! {
    /// The answer of an [`Audited`] service.
    #[must_use = "futures do nothing unless polled"]
    pub struct AuditFuture<F, G: Gate, P> {
        #[pin]
        inner: F,
        permit: Permit<Shadow<G>>,
        would_reject: Option<Box<Rejected>>,
        protocol: P,
    }
}

impl<G: Gate + Clone, P> GateLayer<G, P> {
    /// Returns a layer that rejects nothing and marks what this one would reject: see
    /// [`AuditLayer`]. Both share their state.
    #[must_use]
    pub fn audit(self, name: impl Into<Name>) -> AuditLayer<G, P> {
        AuditLayer {
            gate: Striped::new(Shadow::new(self.gate().clone(), name)),
            protocol: self.into_protocol(),
        }
    }
}

impl<G: Gate, P> AuditLayer<G, P> {
    /// Creates a layer for gates that are on trial already.
    pub(crate) fn of(trial: Shadow<G>, protocol: P) -> Self {
        Self {
            gate: Striped::new(trial),
            protocol,
        }
    }

    /// Returns the handle of the trial.
    #[must_use]
    pub fn handle(&self) -> ShadowHandle {
        self.gate.handle()
    }
}

impl<S, G, P: Clone> Layer<S> for AuditLayer<G, P> {
    type Service = Audited<S, G, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Audited {
            inner,
            gate: self.gate.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S, G, P, B> Service<Request<B>> for Audited<S, G, P>
where
    S: Service<Request<B>>,
    G: Admit<Request<B>> + Read<S::Response> + Send + Sync + 'static,
    P: Protocol<S::Response, S::Error>,
{
    type Response = P::Response<Permit<Shadow<G>>>;
    type Error = P::Error;
    type Future = AuditFuture<S::Future, G, P>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        let ready = self.inner.poll_ready(cx);
        ready.map_err(|error| self.protocol.not_ready(error))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (now, gate) = (Now::unread(), self.gate.here());
        let inquiry = Inquiry {
            request: &request,
            demand: &Demand::default(),
            asked: &mut G::Asked::default(),
        };
        let (pass, would_reject) = gate.ask(inquiry, &now);
        let mut permit = Permit::sent(gate, pass, &now);
        if let Some(rejected) = &would_reject {
            let mark = WouldReject(Rejected::clone(rejected));
            request.extensions_mut().insert(mark);
        }
        let inner = permit.guarded(|| self.inner.call(request));
        AuditFuture {
            inner,
            permit,
            would_reject,
            protocol: self.protocol.clone(),
        }
    }
}

impl<F, G, P, Res, Err> Future for AuditFuture<F, G, P>
where
    F: Future<Output = Result<Res, Err>>,
    G: Read<Res> + Send + Sync + 'static,
    P: Protocol<Res, Err>,
{
    type Output = Result<P::Response<Permit<Shadow<G>>>, P::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let inner = this.inner;
        let result = ready!(this.permit.guarded(|| inner.poll(cx)));
        if let Ok(response) = &result {
            this.permit.read(response);
        }
        let mut settled = this.protocol.settle(result, this.permit.take());
        if let (Ok(response), Some(rejected)) = (&mut settled, this.would_reject.take()) {
            this.protocol
                .note_would_reject(response, WouldReject(*rejected));
        }
        Poll::Ready(settled)
    }
}

impl<G, P: Clone> Clone for AuditLayer<G, P> {
    fn clone(&self) -> Self {
        Self {
            gate: self.gate.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S: Clone, G, P: Clone> Clone for Audited<S, G, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            gate: self.gate.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<G: fmt::Debug, P> fmt::Debug for AuditLayer<G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLayer")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, G, P> fmt::Debug for Audited<S, G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audited")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<F, G: Gate, P> fmt::Debug for AuditFuture<F, G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditFuture")
            .field("would_reject", &self.would_reject)
            .finish_non_exhaustive()
    }
}

/// Lets a layered service still go into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, G, P> tonic::server::NamedService for Audited<S, G, P> {
    const NAME: &'static str = S::NAME;
}
