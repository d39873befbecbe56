//! The response future.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    Outcome, Rejected,
    call::Call,
    circuit_breaker::Permit,
    protocol::{Protocol, Settle, guarded},
};

pin_project! {
    /// The answer of a [`CircuitBreaker`](super::CircuitBreaker): the inner one, or a rejection.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S::Future, P, Waiting<S, P, Req>>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F, P, W> {
        Called { #[pin] call: Call<F, P, Permit> },
        // In a box, so that all other calls need not carry what this one takes along.
        Waiting { waiting: Box<W> },
    }
}

/// A call that was admitted although the circuit refused when it was asked for readiness, so the
/// inner service must be asked now.
struct Waiting<S, P, Req> {
    service: S,
    request: Option<Req>,
    permit: Option<Permit>,
    protocol: P,
}

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    S: Service<Req>,
{
    pub(super) fn admitted(protocol: P, permit: Permit, start: impl FnOnce() -> S::Future) -> Self {
        Self {
            state: State::Called {
                call: Call::admitted(protocol, permit, start),
            },
        }
    }

    pub(super) fn rejected(protocol: P, rejected: Rejected) -> Self {
        Self {
            state: State::Called {
                call: Call::rejected(protocol, rejected),
            },
        }
    }

    pub(super) fn once_ready(protocol: P, permit: Permit, service: S, request: Req) -> Self {
        let waiting = Waiting {
            service,
            request: Some(request),
            permit: Some(permit),
            protocol,
        };
        Self {
            state: State::Waiting {
                waiting: Box::new(waiting),
            },
        }
    }
}

impl<S, P, Req> Future for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error>,
{
    type Output = Result<P::Response<Permit>, P::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let call = match this.state.as_mut().project() {
                StateProject::Called { call } => return call.poll(cx),
                StateProject::Waiting { waiting } => {
                    let Waiting {
                        service,
                        request,
                        permit,
                        protocol,
                    } = &mut **waiting;
                    let readied = ready!(guarded(permit, || service.poll_ready(cx)));
                    let (permit, request) = permit
                        .take()
                        .zip(request.take())
                        .expect("polled after completion");
                    if let Err(error) = readied {
                        permit.settle(Outcome::Failure, None);
                        return Poll::Ready(Err(protocol.not_ready(error)));
                    }
                    Call::admitted(protocol.clone(), permit, || service.call(request))
                }
            };
            this.state.set(State::Called { call });
        }
    }
}

impl<S, P, Req> fmt::Debug for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
