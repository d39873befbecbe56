//! The layers as services of calls, by reference.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    Classify,
    budget::FindBudget,
    fallback::{self, Answer, FallbackLayer},
    gate::{self, Admit, GateLayer, Read},
    hedge::{self, HedgeLayer},
    protocol::Replay,
    resend::FromLayer,
    retry::{self, RetryLayer},
    run::{Call, CallError, direct::Direct},
    timeout::{self, TimeoutLayer},
};

/// A trait for the layers that calls pass: one or several, given by reference. `S` is the inner
/// service.
#[diagnostic::on_unimplemented(
    message = "no function runs through `{Self}`",
    note = "functions run through a layer, which a builder is not before `.build()?`, a tuple of up to four layers, or a stack of `.plain(..)`"
)]
pub trait Through<S> {
    /// The layered service.
    type Service;

    /// Wraps a service, which is always ready and cheap to clone, in the layers.
    fn through(self, inner: S) -> Self::Service;
}

/// A service behind a layer that it borrows. It shares the layer's state without a reference count,
/// and is made for one call.
#[derive(Debug)]
pub struct Behind<'a, L, S> {
    layer: &'a L,
    inner: S,
}

impl<L, S: Clone> Clone for Behind<'_, L, S> {
    fn clone(&self) -> Self {
        Self {
            layer: self.layer,
            inner: self.inner.clone(),
        }
    }
}

impl<'a, G, P, S> Through<S> for &'a GateLayer<G, P> {
    type Service = Behind<'a, GateLayer<G, P>, S>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        Behind { layer: self, inner }
    }
}

impl<'a, P, B, S> Through<S> for &'a RetryLayer<P, B> {
    type Service = Behind<'a, RetryLayer<P, B>, S>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        Behind { layer: self, inner }
    }
}

impl<'a, P, B, S> Through<S> for &'a HedgeLayer<P, B> {
    type Service = Behind<'a, HedgeLayer<P, B>, S>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        Behind { layer: self, inner }
    }
}

impl<'a, P, S> Through<S> for &'a TimeoutLayer<P> {
    type Service = Behind<'a, TimeoutLayer<P>, S>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        Behind { layer: self, inner }
    }
}

impl<'a, F, P, S> Through<S> for &'a FallbackLayer<F, P> {
    type Service = Behind<'a, FallbackLayer<F, P>, S>;

    #[inline]
    fn through(self, inner: S) -> Self::Service {
        Behind { layer: self, inner }
    }
}

impl<'a, G, P, K, S, E> Service<Call<K>> for Behind<'a, GateLayer<G, P>, S>
where
    S: Service<Call<K>, Error = CallError<E>> + Clone,
    G: Admit<Call<K>> + Read<S::Response> + Send + Sync + 'static,
    P: Classify<S::Response, E>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = gate::ResponseFuture<S, G, Direct<'a, P>, Call<K>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, call: Call<K>) -> Self::Future {
        let (inner, demand) = (self.inner.clone(), call.demand());
        let protocol = Direct(self.layer.shared_protocol());
        self.layer.send(inner, call, demand, protocol)
    }
}

impl<'a, P, B, K, S, E> Service<Call<K>> for Behind<'a, RetryLayer<P, B>, S>
where
    S: Service<Call<K>, Error = CallError<E>> + Clone,
    B: FindBudget<Call<K>>,
    P: Classify<S::Response, E> + Replay<Call<K>, Request = Call<K>, Snapshot = Call<K>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future =
        retry::ResponseFuture<S, Direct<'a, P>, Call<K>, B, FromLayer<'a, S, retry::RetryHandle>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, call: Call<K>) -> Self::Future {
        let protocol = Direct(self.layer.shared_protocol());
        self.layer.send(self.inner.clone(), call, protocol)
    }
}

impl<'a, P, B, K, S, E> Service<Call<K>> for Behind<'a, HedgeLayer<P, B>, S>
where
    S: Service<Call<K>, Error = CallError<E>> + Clone,
    B: FindBudget<Call<K>>,
    P: Classify<S::Response, E> + Replay<Call<K>, Request = Call<K>, Snapshot = Call<K>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future =
        hedge::ResponseFuture<S, Direct<'a, P>, Call<K>, B, FromLayer<'a, S, hedge::HedgeHandle>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, call: Call<K>) -> Self::Future {
        let protocol = Direct(self.layer.shared_protocol());
        self.layer.send(self.inner.clone(), call, protocol)
    }
}

impl<'a, P, K, S, E> Service<Call<K>> for Behind<'a, TimeoutLayer<P>, S>
where
    S: Service<Call<K>, Error = CallError<E>> + Clone,
    P: Classify<S::Response, E>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = timeout::ResponseFuture<S, Direct<'a, P>, Call<K>, timeout::ToResponse>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, call: Call<K>) -> Self::Future {
        let protocol = Direct(self.layer.shared_protocol());
        self.layer.send(self.inner.clone(), call, protocol)
    }
}

impl<'a, F, P, K, S, E> Service<Call<K>> for Behind<'a, FallbackLayer<F, P>, S>
where
    S: Service<Call<K>, Error = CallError<E>> + Clone,
    P: Classify<S::Response, E>,
    F: Answer<Call<K>, Direct<'a, P>, S::Response, CallError<E>, Request = Call<K>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = fallback::ResponseFuture<S, F, Direct<'a, P>, Call<K>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, call: Call<K>) -> Self::Future {
        let protocol = Direct(self.layer.shared_protocol());
        self.layer.send(self.inner.clone(), call, protocol)
    }
}
