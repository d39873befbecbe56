//! The service of a fault layer.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower::Service;

use crate::{
    fault::{
        ResponseFuture,
        broken::Broken,
        future::{Suffering, Then},
        inject::Inject,
        kind::Kind,
        plan::Plan,
        rules::Rules,
        state::{Active, CurrentRun, State},
        wait::Wait,
    },
    sync::Striped,
};

/// A service behind a [`FaultLayer`](super::FaultLayer).
pub struct Faulty<S, F, P> {
    inner: S,
    readiness: FaultReadiness,
    rules: Arc<F>,
    state: Striped<State>,
    protocol: PhantomData<fn() -> P>,
}

/// The faults' decision on the next call's readiness.
enum FaultReadiness {
    Undecided,
    HeldUp { wait: Wait, _active: Active },
    Decided,
}

impl<S, F, P> Faulty<S, F, P> {
    pub(super) fn new(inner: S, rules: Arc<F>, state: Striped<State>) -> Self {
        Self {
            inner,
            readiness: FaultReadiness::Undecided,
            rules,
            state,
            protocol: PhantomData,
        }
    }

    /// Waits until no fault makes the service unready.
    fn poll_faults(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.readiness = match &mut self.readiness {
                FaultReadiness::Decided => return Poll::Ready(()),
                FaultReadiness::HeldUp { wait, .. } => {
                    ready!(wait.poll(cx));
                    // Another window may start where this one ends.
                    FaultReadiness::Undecided
                }
                FaultReadiness::Undecided => {
                    let run = self.state.run();
                    match run.and_then(|run| Plan::of_readiness(&self.state, run)) {
                        Some((wait, _active)) => FaultReadiness::HeldUp { wait, _active },
                        None => FaultReadiness::Decided,
                    }
                }
            }
        }
    }

    /// Returns a fresh service for a call that is sent later or never. So whatever the readied one
    /// has reserved is free until then.
    fn fresh(&mut self) -> S
    where
        S: Clone,
    {
        let fresh = self.inner.clone();
        self.inner = fresh.clone();
        fresh
    }

    /// Handles a call while faults run.
    #[cold]
    fn call_in<Req>(&mut self, run: CurrentRun, request: Req) -> ResponseFuture<S, P, Req>
    where
        S: Service<Req> + Clone,
        P: Inject<Req, S::Response, S::Error>,
        F: Rules<Req, P::Response, P::Error>,
    {
        let (state, rules) = (&self.state, &self.rules);
        let plan = Plan::of_call(state, run, P::attempt(&request), |fault, draw| {
            rules.holds(fault, state.faults[fault].name, &request, draw)
        });
        let Some(plan) = plan else {
            return ResponseFuture::sent(self.inner.call(request));
        };
        let broken = plan
            .body
            .and_then(|fault| match self.state.faults[fault].kind {
                Kind::Body(kind) => Some((kind, self.state.mark(fault))),
                _ => None,
            });
        if let (None, None, Some((kind, injected))) = (&plan.wait, plan.end, broken) {
            let broken = (Broken::new(kind, plan.active, plan.run), injected);
            return ResponseFuture::sent_to_break(self.inner.call(request), broken);
        }
        let then = self.then::<Req>(plan.end, &request);
        ResponseFuture::suffering(Suffering {
            wait: plan.wait,
            unsent: Some((self.fresh(), request)),
            then,
            broken,
            active: Some(plan.active),
            run: plan.run,
        })
    }

    /// Returns the step after the wait, if there is one.
    fn then<Req>(&self, end: Option<usize>, request: &Req) -> Then<P::Response, P::Error>
    where
        S: Service<Req>,
        P: Inject<Req, S::Response, S::Error>,
        F: Rules<Req, P::Response, P::Error>,
    {
        let Some(fault) = end else {
            return Then::Call;
        };
        let injected = self.state.mark(fault);
        match &self.state.faults[fault].kind {
            Kind::Answer(answer) => Then::Answer(answer.clone(), injected),
            Kind::Panic => Then::Panic(injected.reason),
            _ => match self.rules.answer(fault, request) {
                Some(mut answer) => {
                    if let Ok(response) = &mut answer {
                        P::mark(response, injected);
                    }
                    Then::Made(answer)
                }
                None => Then::Call,
            },
        }
    }
}

impl<S, F, P, Req> Service<Req> for Faulty<S, F, P>
where
    S: Service<Req> + Clone,
    P: Inject<Req, S::Response, S::Error>,
    F: Rules<Req, P::Response, P::Error>,
{
    type Response = P::Response;
    type Error = P::Error;
    type Future = ResponseFuture<S, P, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        ready!(self.poll_faults(cx));
        self.inner.poll_ready(cx).map_err(P::not_ready)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        self.readiness = FaultReadiness::Undecided;
        match self.state.run() {
            None => ResponseFuture::sent(self.inner.call(request)),
            Some(run) => self.call_in(run, request),
        }
    }
}

impl<S: Clone, F, P> Clone for Faulty<S, F, P> {
    /// Clones the service. The clone has not been polled for readiness.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.rules.clone(), self.state.clone())
    }
}

impl<S: fmt::Debug, F, P> fmt::Debug for Faulty<S, F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("inner", &self.inner)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, F, P> tonic::server::NamedService for Faulty<S, F, P> {
    const NAME: &'static str = S::NAME;
}
