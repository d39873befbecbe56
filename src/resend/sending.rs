//! The sending of an attempt beyond the first.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;
use tower::Service;

use crate::{
    ambient::{clock, timer::CallTimer},
    budget::Token,
    protocol::Changing,
};

/// An attempt beyond the first: sent once its own service is ready, then polled for its result.
///
/// If dropped before it is sent, its token goes back.
pub(crate) struct Resend<S: Service<R>, R> {
    /// `Some` until the service is ready.
    unsent: Option<Box<Unsent<S, R>>>,
    sent: Option<Pin<Box<S::Future>>>,
    token: Token,
}

/// The service and the request of an attempt that is not sent yet.
struct Unsent<S, R> {
    service: S,
    request: R,
    /// The change to the request that is awaited first, and the number of the attempt.
    changing: Option<(Changing, u32)>,
    /// The time from which on it is not sent any more.
    deadline: Option<Instant>,
    /// Made once it is known to wait.
    timer: Option<CallTimer>,
}

/// The result of an attempt, or the error of its service's readiness.
pub(crate) type ResendResult<S, R> =
    Result<Result<<S as Service<R>>::Response, <S as Service<R>>::Error>, <S as Service<R>>::Error>;

impl<S: Service<R>, R> Resend<S, R> {
    /// Makes an attempt for which a token pays.
    pub(crate) fn new(service: S, request: R, token: Token) -> Self {
        Self {
            unsent: Some(Box::new(Unsent {
                service,
                request,
                changing: None,
                deadline: None,
                timer: None,
            })),
            sent: None,
            token,
        }
    }

    /// Delays the attempt until its request is changed.
    pub(crate) fn after(mut self, changing: Option<Changing>, attempt: u32) -> Self {
        if let Some(unsent) = &mut self.unsent {
            unsent.changing = changing.map(|changing| (changing, attempt));
        }
        self
    }

    /// Sends the attempt only before this time. Until [`is_too_late`](Self::is_too_late), it is
    /// pending from then on.
    pub(crate) fn before(mut self, deadline: Option<Instant>) -> Self {
        if let Some(unsent) = &mut self.unsent {
            unsent.deadline = deadline;
        }
        self
    }

    /// Returns whether the deadline has passed and the attempt was not sent. If it is still to
    /// pass, the task is woken then.
    pub(crate) fn is_too_late(&mut self, cx: &mut Context<'_>) -> bool {
        let unsent = self.unsent.as_mut();
        let Some((unsent, deadline)) = unsent.and_then(|one| one.deadline.map(|at| (one, at)))
        else {
            return false;
        };
        let timer = &mut unsent.timer;
        let timer = timer.get_or_insert_with(|| CallTimer::new(None, deadline));
        timer.poll(cx).is_ready() || clock::has_passed(deadline)
    }

    /// Returns whether the attempt was sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.unsent.is_none()
    }

    /// Returns the token: the attempt was rejected before it reached the upstream.
    pub(crate) fn give_back(&mut self) {
        self.token.give_back();
    }

    /// Sends the attempt once its service is ready, and waits for its result. `change` applies a
    /// change that was awaited. `send` sees the request last.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        change: impl FnOnce(&mut R, Box<dyn Any + Send>, u32),
        send: impl FnOnce(&mut R),
    ) -> Poll<ResendResult<S, R>> {
        if let Some(unsent) = &mut self.unsent {
            if unsent.deadline.is_some_and(clock::has_passed) {
                return Poll::Pending;
            }
            if let Some((changing, attempt)) = &mut unsent.changing {
                let to = ready!(changing.poll(cx));
                change(&mut unsent.request, to, *attempt);
                unsent.changing = None;
            }
            ready!(unsent.service.poll_ready(cx))?;
        }
        if let Some(unsent) = self.unsent.take() {
            let Unsent {
                mut service,
                mut request,
                ..
            } = *unsent;
            send(&mut request);
            self.token.send();
            self.sent = Some(Box::pin(service.call(request)));
        }
        let sent = self.sent.as_mut().expect("polled after completion");
        sent.as_mut().poll(cx).map(Ok)
    }
}
