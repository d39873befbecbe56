//! A backup service.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower::Service;

use crate::{
    budget::Token,
    fallback::{Answer, Keep},
    protocol::{Kept, Proof, Replay},
    resend::{Prototype, Resend},
};

/// A service that receives the requests of calls that have failed.
#[derive(Debug)]
pub struct Backup<B>(Arc<Prototype<B>>);

impl<B: Clone> Backup<B> {
    pub(super) fn new(service: B) -> Self {
        Self(Arc::new(Prototype::new(service)))
    }
}

impl<B> Clone for Backup<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Req, P: Replay<Req>, B> Keep<Req, P> for Backup<B> {
    type Request = P::Request;
    type Kept = Option<Kept<P::Snapshot>>;

    fn pass(&self, protocol: &P, request: Req) -> P::Request {
        protocol.once(request)
    }

    fn keep(&self, protocol: &P, request: Req) -> (P::Request, Self::Kept) {
        protocol.prepare(request)
    }
}

impl<Req, P, Res, Err, B> Answer<Req, P, Res, Err> for Backup<B>
where
    P: Replay<Req> + Clone,
    B: Service<P::Request, Response = Res> + Clone,
    B::Error: Into<Err>,
{
    type Future = BackupFuture<B, P, Req, Res, Err>;

    /// Returns whether the request may be sent again: a call that may have had an effect is not
    /// repeated elsewhere.
    fn accepts(
        &self,
        protocol: &P,
        kept: &Self::Kept,
        proof: Proof,
        _: Result<&Res, &Err>,
    ) -> bool {
        kept.as_ref().is_some_and(|kept| {
            kept.idempotent || proof.holds(|| protocol.was_taken(&kept.snapshot))
        })
    }

    fn answer(&self, protocol: &P, kept: Self::Kept, failure: Result<Res, Err>) -> Self::Future {
        BackupFuture {
            attempt: None,
            kept: kept.map(|kept| kept.snapshot),
            service: Some(self.0.service()),
            failure: Some(failure),
            yielded: false,
            protocol: protocol.clone(),
        }
    }
}

/// The future of a backup's answer. Its output is the failure if the request cannot be made again.
pub struct BackupFuture<B, P, Req, Res, Err>
where
    P: Replay<Req>,
    B: Service<P::Request>,
{
    attempt: Option<Resend<B, P::Request>>,
    kept: Option<P::Snapshot>,
    /// The answer unless the backup is called.
    failure: Option<Result<Res, Err>>,
    yielded: bool,
    service: Option<B>,
    protocol: P,
}

// Only boxed parts are pinned.
impl<B, P, Req, Res, Err> Unpin for BackupFuture<B, P, Req, Res, Err>
where
    P: Replay<Req>,
    B: Service<P::Request>,
{
}

impl<B, P, Req, Res, Err> Future for BackupFuture<B, P, Req, Res, Err>
where
    P: Replay<Req>,
    B: Service<P::Request, Response = Res>,
    B::Error: Into<Err>,
{
    type Output = Result<Res, Err>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.attempt.is_none() {
            let kept = this.kept.as_ref();
            let Some(request) = kept.and_then(|kept| this.protocol.replay(kept)) else {
                if this.yielded {
                    return Poll::Ready(this.failure.take().expect("polled after completion"));
                }
                // hyper drops a body only after it has reported the error, so yield once and try
                // again.
                this.yielded = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            };
            let service = this.service.take();
            this.attempt = service.map(|service| Resend::new(service, request, Token::free()));
        }
        let attempt = this.attempt.as_mut().expect("polled after completion");
        let (failure, protocol) = (&mut this.failure, &this.protocol);
        let ended = ready!(attempt.poll(
            cx,
            |_, _, _| {},
            |request| {
                *failure = None;
                protocol.tell_remaining(request);
            }
        ));
        Poll::Ready(match (ended, failure.take()) {
            (Ok(result), _) => result.map_err(Into::into),
            (Err(_), Some(failure)) => failure,
            (Err(error), None) => Err(error.into()),
        })
    }
}

impl<B, P, Req, Res, Err> fmt::Debug for BackupFuture<B, P, Req, Res, Err>
where
    P: Replay<Req>,
    B: Service<P::Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupFuture")
            .field("sent", &self.attempt.as_ref().is_some_and(Resend::is_sent))
            .finish_non_exhaustive()
    }
}
