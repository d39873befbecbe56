//! The service beneath every stack: [`Echo`] answers at once, [`Yields`] at the second poll.

use std::{
    future::{Future, Ready, ready},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use tower::{BoxError, Service};

/// Answers at once.
#[derive(Debug, Clone)]
pub struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// Suspends once, as a call over a network does, and is woken at once.
#[derive(Debug, Clone)]
pub struct Yields;

impl Service<u64> for Yields {
    type Response = u64;
    type Error = BoxError;
    type Future = Yielded;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Yielded {
        Yielded {
            request,
            polled: false,
        }
    }
}

/// The future of [`Yields`].
#[derive(Debug)]
pub struct Yielded {
    request: u64,
    polled: bool,
}

impl Future for Yielded {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if mem::replace(&mut self.polled, true) {
            return Poll::Ready(Ok(self.request));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
