//! The service of a client's stack.

use std::{
    marker::PhantomData,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{
    ClientGates,
    resend::Retries,
    timed::{Sending, Timed, WithDeadline},
};
use crate::{CarryDeadline, gate::Gated, keyed::ByHost, timeout::Timeout};

/// A service behind a [`ClientStack`](super::ClientStack) without a fallback, of the same
/// parameters.
pub type ClientService<S, P, W = ByHost, R = Retries<P, W>, G = ClientGates<W>> =
    InStack<Layers<<R as Layer<Attempts<S, P, G>>>::Service, P>, P, W>;

/// The layers of a client's stack, as a service of its users' requests.
#[derive(Debug)]
pub struct InStack<L, P, W> {
    layers: L,
    protocol: P,
    by: PhantomData<fn() -> W>,
}

/// The layers of a client, of which `R` is what sends attempts again.
pub(super) type Layers<R, P> = Timeout<R, WithDeadline<P>>;

/// An attempt, and the gates that it passes.
pub(super) type Attempts<S, P, G> =
    Gated<Timeout<Sending<S, P>, WithDeadline<P>>, G, WithDeadline<P>>;

impl<L, P, W> InStack<L, P, W> {
    pub(super) fn new(layers: L, protocol: P) -> Self {
        Self {
            layers,
            protocol,
            by: PhantomData,
        }
    }
}

impl<L: Clone, P: Clone, W> Clone for InStack<L, P, W> {
    fn clone(&self) -> Self {
        Self::new(self.layers.clone(), self.protocol.clone())
    }
}

impl<L, P, W, Req> Service<Req> for InStack<L, P, W>
where
    P: CarryDeadline<Req>,
    L: Service<Timed<Req>>,
{
    type Response = L::Response;
    type Error = L::Error;
    type Future = L::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.layers.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let deadline = self.protocol.deadline(&request);
        let settings = self.protocol.settings(&request);
        self.layers.call(Timed::new(request, deadline, settings))
    }
}
