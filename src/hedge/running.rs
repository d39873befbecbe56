//! A hedge under way, and what follows a failure.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tower::Service;

use crate::{budget::Token, protocol::Advice};

/// A hedge.
pub(super) struct Running<S: Service<R>, R> {
    /// What it is made of, until its service is ready.
    unsent: Option<Box<(S, R)>>,
    sent: Option<Pin<Box<S::Future>>>,
    token: Token,
    /// Whether it was sent, which is yet to be counted.
    is_new: bool,
}

/// The result of a hedge, or the error of its service's readiness.
type Ended<S, R> =
    Result<Result<<S as Service<R>>::Response, <S as Service<R>>::Error>, <S as Service<R>>::Error>;

/// When the next attempt follows one that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    AtOnce,
    /// Not before what the answer has asked for.
    After(Duration),
    /// It was rejected on its way, which says nothing about the upstream.
    AsPlanned,
    /// Never. Those under way may do better.
    Never,
    /// Never, and this is the answer if it was the first attempt, or that has ended.
    Fatal,
}

impl<S: Service<R>, R> Running<S, R> {
    pub(super) fn new(service: S, request: R, token: Token) -> Self {
        Self {
            unsent: Some(Box::new((service, request))),
            sent: None,
            token,
            is_new: false,
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        self.unsent.is_none()
    }

    /// Returns once whether it was sent.
    pub(super) fn counts_as_sent(&mut self) -> bool {
        mem::take(&mut self.is_new)
    }

    /// It was rejected before it reached the upstream.
    pub(super) fn give_back(&mut self) {
        self.token.give_back();
    }

    /// Sends it once its service is ready, and waits for its result. `tell` is called before it is
    /// sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tell: impl FnOnce(&mut R),
    ) -> Poll<Ended<S, R>> {
        if let Some(unsent) = &mut self.unsent {
            ready!(unsent.0.poll_ready(cx))?;
        }
        if let Some(unsent) = self.unsent.take() {
            let (mut service, mut request) = *unsent;
            tell(&mut request);
            self.token.send();
            self.is_new = true;
            self.sent = Some(Box::pin(service.call(request)));
        }
        let attempt = self
            .sent
            .as_mut()
            .expect("it is sent when it is not unsent");
        attempt.as_mut().poll(cx).map(Ok)
    }
}

impl Next {
    pub(super) fn after(advice: Advice) -> Self {
        match advice {
            Advice::Stop => Self::Fatal,
            Advice::DoNotRetry => Self::Never,
            Advice::Rejected { .. } => Self::AsPlanned,
            Advice::Retry { after: None, .. } => Self::AtOnce,
            Advice::Retry {
                after: Some(hint), ..
            }
            | Advice::RetryExactly { after: hint, .. } => Self::After(hint),
        }
    }
}
