//! The response future of a fallback.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    fallback::{Answer, Passed, state::State},
    protocol::{Advice, PrimaryError, Protocol},
    sync::Held,
};

pin_project! {
    /// The response future of a [`Fallback`](super::Fallback). Its output is the inner result, or
    /// another answer in its place.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, F, P, Req>
    where
        S: Service<Passed<F, Req, P>>,
        P: Protocol<S::Response, S::Error>,
        F: Answer<Req, P, P::Response<()>, P::Error>,
    {
        // `None` once it has ended.
        #[pin]
        inner: Option<S::Future>,
        #[pin]
        answer: Option<F::Future>,
        // `None` if any result is passed on.
        kept: Option<(F::Kept, F)>,
        // Boxed: most calls have none.
        primary: Option<Box<PrimaryError>>,
        protocol: P,
        state: Held<State>,
    }
}

impl<S, F, P, Req> ResponseFuture<S, F, P, Req>
where
    S: Service<Passed<F, Req, P>>,
    P: Protocol<S::Response, S::Error>,
    F: Answer<Req, P, P::Response<()>, P::Error>,
{
    #[inline]
    pub(super) fn new(
        inner: S::Future,
        kept: Option<(F::Kept, F)>,
        state: Held<State>,
        protocol: P,
    ) -> Self {
        Self {
            inner: Some(inner),
            answer: None,
            kept,
            primary: None,
            protocol,
            state,
        }
    }
}

impl<S, F, P, Req> Future for ResponseFuture<S, F, P, Req>
where
    S: Service<Passed<F, Req, P>>,
    P: Protocol<S::Response, S::Error>,
    F: Answer<Req, P, P::Response<()>, P::Error>,
{
    type Output = Result<P::Response<()>, P::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            let result = ready!(inner.poll(cx));
            let classified = this.protocol.classify(result.as_ref());
            let result = this.protocol.settle(result, ());
            let outcome = this.protocol.judge(classified, result.as_ref());
            let advice = this.protocol.advise(outcome, result.as_ref());
            // Dropped before the other answer begins, so that it frees what it holds.
            this.inner.set(None);
            let wanted = this.state.settings.wants(outcome, advice);
            let Some((kept, fallback)) = this.kept.take().filter(|(kept, fallback)| {
                let proof = this.protocol.proof(advice, result.as_ref());
                wanted && fallback.accepts(this.protocol, kept, proof, result.as_ref())
            }) else {
                return Poll::Ready(result);
            };
            let rejected = match advice {
                Advice::Rejected { kind, .. } => Some(kind),
                _ => None,
            };
            this.state.begin(outcome, rejected);
            let message = this.protocol.describe(result.as_ref());
            *this.primary = Some(Box::new(PrimaryError::new(outcome, rejected, message)));
            this.answer
                .set(Some(fallback.answer(this.protocol, kept, result)));
        }
        let answer = this.answer.as_mut().as_pin_mut();
        let mut result = ready!(answer.expect("polled after completion").poll(cx));
        this.answer.set(None);
        this.state.end(result.is_ok());
        if let (Ok(response), Some(primary)) = (&mut result, this.primary.take()) {
            this.protocol.note_primary(response, *primary);
        }
        Poll::Ready(result)
    }
}

impl<S, F, P, Req> fmt::Debug for ResponseFuture<S, F, P, Req>
where
    S: Service<Passed<F, Req, P>>,
    P: Protocol<S::Response, S::Error>,
    F: Answer<Req, P, P::Response<()>, P::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("falls_back", &self.answer.is_some())
            .finish_non_exhaustive()
    }
}
