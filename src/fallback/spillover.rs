//! A backup that receives the original requests of calls that gates reject.

use std::{
    fmt,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use crate::{
    ConfigError, Name, Rejected,
    fallback::{
        FallbackHandle, SpilloverFuture,
        spilling::Spill,
        state::{Settings, State},
    },
    gate::{Admit, Gated, Permit, Read},
    observe::register,
    protocol::Protocol,
    resend::Prototype,
    sync::Striped,
};

/// A layer that sends the calls that gates reject to a backup.
///
/// It wraps the gates' layer and replaces it: a rate limit, a circuit breaker, a bulkhead, keyed or
/// not, or a [`GateLayer`](crate::gate::GateLayer) of several. A gate still has the request when it
/// rejects it, at once or after a wait. So no request is kept or cloned, and an admitted call costs
/// nothing more. A call that is admitted and fails is not sent to the backup: use
/// [`FallbackLayer::service`](super::FallbackLayer::service) for that.
///
/// ```
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_keep::{
///     circuit_breaker::CircuitBreakerLayer, fallback::SpilloverLayer, protocol::Plain,
/// };
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// struct Order(u32); // not `Clone`
///
/// let breaker = CircuitBreakerLayer::builder().protocol(Plain::new()).build()?;
/// let circuit = breaker.handle();
/// let backup = service_fn(async |order: Order| {
///     Ok::<_, std::io::Error>(format!("later: {}", order.0))
/// });
/// let layer = SpilloverLayer::builder(breaker, backup).build()?;
/// let service = layer.layer(service_fn(async |order: Order| {
///     Ok::<_, std::io::Error>(format!("done: {}", order.0))
/// }));
///
/// assert_eq!(service.clone().oneshot(Order(7)).await?, "done: 7");
/// circuit.force_open();
/// assert_eq!(service.oneshot(Order(8)).await?, "later: 8");
/// assert_eq!(layer.handle().snapshot().rejections, 1);
/// # Ok(()) }
/// ```
///
/// The wait for the backup's readiness has no limit: give it a timeout. If its readiness fails,
/// that error is the answer. Over HTTP the response has a [`PrimaryError`](super::PrimaryError) in
/// its extensions.
#[derive(Debug)]
pub struct SpilloverLayer<L, B> {
    gates: L,
    spill: Striped<Spill<B>>,
}

/// Settings of a [`SpilloverLayer`], in any order.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct SpilloverBuilder<L, B> {
    gates: L,
    backup: B,
    accepts: fn(&Rejected) -> bool,
    settings: Settings,
}

/// A service behind a [`SpilloverLayer`].
pub struct Spillover<S, B> {
    gated: S,
    spill: Striped<Spill<B>>,
}

impl<L, B> SpilloverLayer<L, B> {
    /// Starts with the `gates` to wrap and the `backup` for all calls that they reject. It is a
    /// service of the same requests and responses, and its error becomes that of the layer.
    pub fn builder(gates: L, backup: B) -> SpilloverBuilder<L, B> {
        SpilloverBuilder {
            gates,
            backup,
            accepts: |_| true,
            settings: Settings::default(),
        }
    }
}

impl<L, B: Clone> SpilloverBuilder<L, B> {
    /// Sets whether rejected calls go to the backup. If `false`, every rejection is passed on, with
    /// the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Sends only rejections that the function accepts to the backup. Default: all, whether a
    /// bulkhead is full or a call costs too much.
    pub fn when(mut self, accepts: fn(&Rejected) -> bool) -> Self {
        self.accepts = accepts;
        self
    }

    /// Names this instance and registers it in the [`Registry`](crate::observe::Registry). Without
    /// a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.settings.name = Some(name.into().as_str());
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// None so far. It returns a `Result` like the other layers' `build`.
    pub fn build(self) -> Result<SpilloverLayer<L, B>, ConfigError> {
        let accepts = match self.settings.enabled {
            true => self.accepts,
            false => |_: &Rejected| false,
        };
        let state = Striped::new(State::new(self.settings));
        register(state.value());
        let spill = Striped::new(Spill {
            backup: Prototype::new(self.backup),
            accepts,
            state,
        });
        Ok(SpilloverLayer {
            gates: self.gates,
            spill,
        })
    }
}

impl<L, B> SpilloverLayer<L, B> {
    /// Returns the handle. It counts the calls that went to the backup. Of the causes, only
    /// `rejections` is used.
    #[must_use]
    pub fn handle(&self) -> FallbackHandle {
        FallbackHandle::new(self.spill.state.clone())
    }
}

impl<L: Clone, B> Clone for SpilloverLayer<L, B> {
    fn clone(&self) -> Self {
        Self {
            gates: self.gates.clone(),
            spill: self.spill.clone(),
        }
    }
}

impl<S, L: Layer<S>, B> Layer<S> for SpilloverLayer<L, B> {
    type Service = Spillover<L::Service, B>;

    fn layer(&self, inner: S) -> Self::Service {
        Spillover {
            gated: self.gates.layer(inner),
            spill: self.spill.clone(),
        }
    }
}

impl<S, G, P, B, Req: 'static> Service<Req> for Spillover<Gated<S, G, P>, B>
where
    S: Service<Req> + Clone,
    G: Admit<Req> + Read<S::Response> + Send + Sync + 'static,
    P: Protocol<S::Response, S::Error>,
    B: Service<Req, Response = P::Response<Permit<G>>> + Clone,
    B::Error: Into<P::Error>,
{
    type Response = P::Response<Permit<G>>;
    type Error = P::Error;
    type Future = SpilloverFuture<S, G, P, B, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.gated.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let mut returned = None;
        let gated = self
            .gated
            .enter(request, |request| returned = Some(request));
        let protocol = self.gated.shared_protocol().clone();
        SpilloverFuture::new(gated, returned, self.spill.for_call(), protocol)
    }
}

impl<S: Clone, B> Clone for Spillover<S, B> {
    fn clone(&self) -> Self {
        Self {
            gated: self.gated.clone(),
            spill: self.spill.clone(),
        }
    }
}

impl<S: fmt::Debug, B> fmt::Debug for Spillover<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spillover")
            .field("gated", &self.gated)
            .finish_non_exhaustive()
    }
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, B> tonic::server::NamedService for Spillover<S, B> {
    const NAME: &'static str = S::NAME;
}
