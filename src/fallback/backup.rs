//! A backup service.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    budget::Prototype,
    fallback::{Answer, Keep},
    protocol::{Kept, Proof, Replay},
};

/// A service that gets the requests of calls that have failed.
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

    /// What may have had an effect is not done a second time, elsewhere.
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
            called: None,
            request: None,
            kept: kept.map(|kept| kept.snapshot),
            failure: Some(failure),
            yielded: false,
            service: self.0.service(),
            protocol: protocol.clone(),
        }
    }
}

pin_project! {
    /// The answer of a backup, or the failure if the request cannot be made again.
    pub struct BackupFuture<B, P, Req, Res, Err>
    where
        P: Replay<Req>,
        B: Service<P::Request>,
    {
        #[pin]
        called: Option<B::Future>,
        // Made again, and not sent yet.
        request: Option<P::Request>,
        kept: Option<P::Snapshot>,
        // Stands until the backup is called.
        failure: Option<Result<Res, Err>>,
        yielded: bool,
        service: B,
        protocol: P,
    }
}

impl<B, P, Req, Res, Err> Future for BackupFuture<B, P, Req, Res, Err>
where
    P: Replay<Req>,
    B: Service<P::Request, Response = Res>,
    B::Error: Into<Err>,
{
    type Output = Result<Res, Err>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.called.is_none() {
            if this.request.is_none() {
                *this.request = this
                    .kept
                    .as_ref()
                    .and_then(|kept| this.protocol.replay(kept));
            }
            if this.request.is_none() && !*this.yielded {
                // hyper lets go of a body only after it has told of the error: let it run.
                *this.yielded = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let stands = this.request.is_none() || ready!(this.service.poll_ready(cx)).is_err();
            let failure = this.failure.take().expect("polled after completion");
            match this.request.take().filter(|_| !stands) {
                None => return Poll::Ready(failure),
                Some(mut request) => {
                    this.protocol.tell_remaining(&mut request);
                    this.called.set(Some(this.service.call(request)));
                }
            }
        }
        let called = this.called.as_mut().as_pin_mut().expect("it was called");
        let result = ready!(called.poll(cx));
        Poll::Ready(result.map_err(Into::into))
    }
}

impl<B, P, Req, Res, Err> fmt::Debug for BackupFuture<B, P, Req, Res, Err>
where
    P: Replay<Req>,
    B: Service<P::Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupFuture")
            .field("called", &self.called.is_some())
            .finish_non_exhaustive()
    }
}
