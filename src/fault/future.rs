//! The response future of a fault layer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::fault::{
    Injected,
    broken::Broken,
    inject::{Answering, Inject},
    kind::{Answer, BodyKind},
    state::{Active, CurrentRun},
    wait::{Wait, Waited},
};

pin_project! {
    /// The response future of a [`Faulty`](super::Faulty) service. Its output is the inner result,
    /// or that of a fault.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req>
    where
        S: Service<Req>,
        P: Inject<Req, S::Response, S::Error>,
    {
        // `None` until the call is sent.
        #[pin]
        inner: Option<S::Future>,
        // Boxed: most calls have none.
        suffering: Option<Box<Suffering<S, Req, P::Response, P::Error>>>,
        broken: Option<(Box<Broken>, Injected)>,
    }
}

/// A call that a fault delays or answers.
pub(super) struct Suffering<S, Req, Res, Err> {
    pub(super) wait: Option<Wait>,
    pub(super) unsent: Option<(S, Req)>,
    pub(super) then: Then<Res, Err>,
    pub(super) broken: Option<(BodyKind, Injected)>,
    pub(super) active: Option<Active>,
    pub(super) run: CurrentRun,
}

/// The step after the wait.
pub(super) enum Then<Res, Err> {
    /// Send the call.
    Call,
    /// Let the protocol answer.
    Answer(Answer, Injected),
    /// Return a closure's answer.
    Made(Result<Res, Err>),
    /// Wait for the answer that the protocol is making.
    Making(Pin<Box<dyn Future<Output = Result<Res, Err>> + Send>>),
    Panic(&'static str),
}

/// The result of a call's fault.
enum Becomes<F, Res, Err> {
    Sent(F, Option<(Box<Broken>, Injected)>),
    Answered(Result<Res, Err>),
}

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Inject<Req, S::Response, S::Error>,
{
    #[inline]
    pub(super) fn sent(inner: S::Future) -> Self {
        Self {
            inner: Some(inner),
            suffering: None,
            broken: None,
        }
    }

    pub(super) fn sent_to_break(inner: S::Future, broken: (Broken, Injected)) -> Self {
        let (broken, injected) = broken;
        Self {
            broken: Some((Box::new(broken), injected)),
            ..Self::sent(inner)
        }
    }

    pub(super) fn suffering(call: Suffering<S, Req, P::Response, P::Error>) -> Self {
        Self {
            inner: None,
            suffering: Some(Box::new(call)),
            broken: None,
        }
    }
}

impl<S, Req, Res, Err> Suffering<S, Req, Res, Err>
where
    S: Service<Req>,
{
    fn poll<P>(&mut self, cx: &mut Context<'_>) -> Poll<Becomes<S::Future, Res, Err>>
    where
        P: Inject<Req, S::Response, S::Error, Response = Res, Error = Err>,
    {
        if let Some(wait) = &mut self.wait {
            let waited = ready!(wait.poll(cx));
            self.wait = None;
            if waited == Waited::Released {
                self.spare();
            }
        }
        loop {
            match &mut self.then {
                Then::Call => return self.poll_call::<P>(cx),
                Then::Making(making) => return making.as_mut().poll(cx).map(Becomes::Answered),
                Then::Answer(..) | Then::Made(_) | Then::Panic(_) => {}
            }
            // The service that was to be called is dropped, so what it has reserved is free.
            let (service, request) = self.unsent.take().expect("polled after completion");
            drop(service);
            match std::mem::replace(&mut self.then, Then::Call) {
                Then::Answer(answer, injected) => match P::answer(&answer, request) {
                    Answering::Making(making) => self.then = Then::Making(making),
                    Answering::Made(mut answer) => {
                        if let Ok(response) = &mut answer {
                            P::mark(response, injected);
                        }
                        return Poll::Ready(Becomes::Answered(answer));
                    }
                },
                Then::Made(answer) => return Poll::Ready(Becomes::Answered(answer)),
                Then::Panic(reason) => panic!("injected fault: {reason}"),
                Then::Call | Then::Making(_) => {}
            }
        }
    }

    /// Sends the call once the service is ready.
    fn poll_call<P>(&mut self, cx: &mut Context<'_>) -> Poll<Becomes<S::Future, Res, Err>>
    where
        P: Inject<Req, S::Response, S::Error, Response = Res, Error = Err>,
    {
        let (service, _) = self.unsent.as_mut().expect("polled after completion");
        if let Err(error) = ready!(service.poll_ready(cx)) {
            return Poll::Ready(Becomes::Answered(Err(P::not_ready(error))));
        }
        let (mut service, request) = self.unsent.take().expect("it was there");
        let active = self.active.take();
        let broken = self.broken.take().zip(active);
        let broken = broken.map(|((kind, injected), active)| {
            (Box::new(Broken::new(kind, active, self.run)), injected)
        });
        Poll::Ready(Becomes::Sent(service.call(request), broken))
    }

    /// Lets the call continue unharmed: the run has ended.
    fn spare(&mut self) {
        self.then = Then::Call;
        self.broken = None;
        self.active = None;
    }
}

impl<S, P, Req> Future for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Inject<Req, S::Response, S::Error>,
{
    type Output = Result<P::Response, P::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(suffering) = this.suffering {
            match ready!(suffering.poll::<P>(cx)) {
                Becomes::Answered(answer) => {
                    *this.suffering = None;
                    return Poll::Ready(answer);
                }
                Becomes::Sent(inner, broken) => {
                    *this.suffering = None;
                    this.inner.set(Some(inner));
                    *this.broken = broken;
                }
            }
        }
        let inner = this.inner.as_pin_mut().expect("polled after completion");
        let result = ready!(inner.poll(cx));
        Poll::Ready(P::pass(result, this.broken.take()))
    }
}

impl<S, P, Req> fmt::Debug for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Inject<Req, S::Response, S::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("sent", &self.inner.is_some())
            .finish_non_exhaustive()
    }
}
