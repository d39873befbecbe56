//! What a user writes to bring governor, recloser and tower's own retry into one stack.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use pin_project_lite::pin_project;
use recloser::{AnyError, AsyncRecloser, Recloser, RecloserFuture};
use tower::{BoxError, Layer, Service, retry::Policy};

/// A rate limit by governor; over the limit, a call fails.
#[derive(Debug, Clone)]
pub struct Governor<S> {
    inner: S,
    limiter: Arc<DefaultDirectRateLimiter>,
}

/// Makes [`Governor`]s that share one limit.
pub fn governor_layer<S>(quota: Quota) -> impl Layer<S, Service = Governor<S>> {
    let limiter = Arc::new(RateLimiter::direct(quota));
    tower::layer::layer_fn(move |inner| Governor {
        inner,
        limiter: limiter.clone(),
    })
}

impl<S, Req> Service<Req> for Governor<S>
where
    S: Service<Req, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Limited<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.limiter.check() {
            Ok(()) => Limited::Admitted {
                inner: self.inner.call(request),
            },
            Err(_) => Limited::Rejected,
        }
    }
}

pin_project! {
    /// The future of [`Governor`].
    #[project = LimitedProject]
    #[derive(Debug)]
    pub enum Limited<F> {
        Admitted { #[pin] inner: F },
        Rejected,
    }
}

impl<F, T> Future for Limited<F>
where
    F: Future<Output = Result<T, BoxError>>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            LimitedProject::Admitted { inner } => inner.poll(cx),
            LimitedProject::Rejected => Poll::Ready(Err("over the limit".into())),
        }
    }
}

/// A circuit breaker by recloser.
#[derive(Debug, Clone)]
pub struct Reclosed<S> {
    inner: S,
    recloser: AsyncRecloser,
}

/// Makes [`Reclosed`]s that share one circuit.
pub fn recloser_layer<S>(recloser: Recloser) -> impl Layer<S, Service = Reclosed<S>> {
    let recloser = AsyncRecloser::from(recloser);
    tower::layer::layer_fn(move |inner| Reclosed {
        inner,
        recloser: recloser.clone(),
    })
}

impl<S, Req> Service<Req> for Reclosed<S>
where
    S: Service<Req, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ReclosedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ReclosedFuture {
            inner: self.recloser.call(self.inner.call(request)),
        }
    }
}

pin_project! {
    /// The future of [`Reclosed`]. It has no `Debug`, for recloser's future has none.
    pub struct ReclosedFuture<F> {
        #[pin]
        inner: RecloserFuture<F, AnyError>,
    }
}

impl<F, T> Future for ReclosedFuture<F>
where
    F: Future<Output = Result<T, BoxError>>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.project().inner.poll(cx)) {
            Ok(response) => Ok(response),
            Err(recloser::Error::Inner(error)) => Err(error),
            Err(recloser::Error::Rejected) => Err("the circuit is open".into()),
        })
    }
}

/// The cheapest policy for tower's retry: it counts attempts. It has no budget and no backoff,
/// which would cost a call that succeeds a lock and a random generator.
#[derive(Debug, Clone)]
pub struct Attempts(pub u32);

impl<Req: Clone, Res> Policy<Req, Res, BoxError> for Attempts {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Req,
        result: &mut Result<Res, BoxError>,
    ) -> Option<std::future::Ready<()>> {
        if result.is_ok() || self.0 <= 1 {
            return None;
        }
        self.0 -= 1;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}
