//! The sending of an attempt beyond the first.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tower::Service;

use crate::{budget::Token, protocol::Changing};

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
