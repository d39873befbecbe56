//! The service of a client's stack.

use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{
    ClientGates,
    resend::Retries,
    timed::{InTimed, Sending, Timed, WithDeadline},
};
use crate::{
    CarryDeadline,
    ambient::clock,
    budget::KeyedBudgets,
    gate::Gated,
    keyed::{ByHost, Host},
    retry::Retry,
    timeout::Timeout,
};

/// A service behind a [`ClientStack`](super::ClientStack) without a fallback, with the same
/// parameters.
pub type ClientService<S, P, W = ByHost, R = Retries<P, W>, G = ClientGates<W>> =
    InStack<S, P, W, <R as Layer<GatedAttempt<S, P, G>>>::Service>;

/// A client's stack around its service, as a service of its users' requests.
///
/// `T` is everything within the total timeout. Its default is the stack of
/// `stack::client().http()`, so that compiler messages can leave it out.
pub struct InStack<S, P, W = ByHost, T = Retried<S, P, W>> {
    layers: Layers<T, P>,
    protocol: P,
    of: PhantomData<fn(S) -> W>,
}

/// A call that is retried, as in a stack with default settings.
type Retried<S, P, W> =
    Retry<GatedAttempt<S, P, ClientGates<W>>, WithDeadline<P>, KeyedBudgets<Host, InTimed<W>>>;

/// The layers of a client. `R` sends attempts again.
pub(super) type Layers<R, P> = Timeout<R, WithDeadline<P>>;

/// An attempt, and the gates that it passes.
pub(super) type GatedAttempt<S, P, G> =
    Gated<Timeout<Sending<S, P>, WithDeadline<P>>, G, WithDeadline<P>>;

impl<S, P, W, T> InStack<S, P, W, T> {
    pub(super) fn new(layers: Layers<T, P>, protocol: P) -> Self {
        Self {
            layers,
            protocol,
            of: PhantomData,
        }
    }
}

impl<S, P: Clone, W, T: Clone> Clone for InStack<S, P, W, T> {
    fn clone(&self) -> Self {
        Self::new(self.layers.clone(), self.protocol.clone())
    }
}

impl<S, P: fmt::Debug, W, T: fmt::Debug> fmt::Debug for InStack<S, P, W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InStack")
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

impl<S, P, W, T, Req> Service<Req> for InStack<S, P, W, T>
where
    P: CarryDeadline<Req>,
    Layers<T, P>: Service<Timed<Req>>,
{
    type Response = <Layers<T, P> as Service<Timed<Req>>>::Response;
    type Error = <Layers<T, P> as Service<Timed<Req>>>::Error;
    type Future = <Layers<T, P> as Service<Timed<Req>>>::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.layers.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        clock::share_moment(|| {
            let deadline = self.protocol.deadline(&request);
            let settings = self.protocol.settings(&request);
            self.layers.call(Timed::new(request, deadline, settings))
        })
    }
}
