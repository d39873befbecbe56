//! The service of a client's stack.

use std::task::{Context, Poll};

use tower::Service;

use super::timed::{InTimed, OfTimed, Sending, Timed, WithDeadline};
use crate::{
    CarryDeadline,
    budget::KeyedBudgets,
    bulkhead::BulkheadGate,
    circuit_breaker::CircuitGate,
    gate::{Asking, Chain, Gated, Keyed},
    keyed::{ByHost, Host},
    rate_limit::LimitGate,
    retry::Retry,
    timeout::Timeout,
};

/// A service behind a [`ClientStack`](super::ClientStack).
#[derive(Debug, Clone)]
pub struct ClientService<S, P, W = ByHost> {
    layers: Layers<S, P, W>,
    protocol: P,
}

/// The layers of a client around its service, from the outside in.
pub(super) type Layers<S, P, W> = Timeout<Retried<S, P, W>, WithDeadline<P>>;
type Retried<S, P, W> =
    Retry<GatedAttempt<S, P, W>, WithDeadline<P>, KeyedBudgets<Host, InTimed<W>>>;
type GatedAttempt<S, P, W> =
    Gated<Timeout<Sending<S, P>, WithDeadline<P>>, ClientGates<W>, WithDeadline<P>>;

/// The gates of a client: a circuit for each host, a rate, and a bulkhead for each host.
pub type ClientGates<W = ByHost> = Chain<
    Keyed<InTimed<W>, CircuitGate>,
    Chain<Option<ClientLimit>, Asking<Keyed<InTimed<W>, BulkheadGate>, ((), OfTimed)>>,
>;

/// A rate limit whose waits end with the call's deadline.
type ClientLimit = Asking<LimitGate, ((), OfTimed)>;

impl<S, P, W> ClientService<S, P, W> {
    pub(super) fn new(layers: Layers<S, P, W>, protocol: P) -> Self {
        Self { layers, protocol }
    }
}

impl<S, P, W, Req> Service<Req> for ClientService<S, P, W>
where
    P: CarryDeadline<Req>,
    Layers<S, P, W>: Service<Timed<Req>>,
{
    type Response = <Layers<S, P, W> as Service<Timed<Req>>>::Response;
    type Error = <Layers<S, P, W> as Service<Timed<Req>>>::Error;
    type Future = <Layers<S, P, W> as Service<Timed<Req>>>::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.layers.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let deadline = self.protocol.deadline(&request);
        self.layers.call(Timed::new(request, deadline))
    }
}
