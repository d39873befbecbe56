//! The future of a call that may go to a backup when it is rejected.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    Deadline, Outcome, Rejected,
    budget::Token,
    fallback::state::State,
    gate::{self, Admit, Gate, Permit, Read},
    protocol::{PrimaryError, Protocol},
    resend::{Prototype, Resend},
    sync::{Held, Striped},
};

pin_project! {
    /// The response future of a [`Spillover`](super::Spillover) service. Its output is the gates'
    /// result, or the backup's.
    #[must_use = "futures do nothing unless polled"]
    pub struct SpilloverFuture<S, G, P, B, Req>
    where
        S: Service<Req>,
        G: Gate,
        B: Service<Req>,
    {
        // `None` once the call went to the backup.
        #[pin]
        gated: Option<gate::ResponseFuture<S, G, P, Req>>,
        // Boxed, so that admitted calls do not carry it.
        spilled: Option<Box<Spilled<B, Req>>>,
        protocol: P,
        spill: Held<Spill<B>>,
    }
}

/// The state that the layer, its services and its calls share.
#[derive(Debug)]
pub(super) struct Spill<B> {
    pub(super) backup: Prototype<B>,
    pub(super) accepts: fn(&Rejected) -> bool,
    pub(super) state: Striped<State>,
}

/// A call that went to the backup.
struct Spilled<B: Service<Req>, Req> {
    attempt: Resend<B, Req>,
    /// The request's deadline, written again when it is sent.
    deadline: Option<Deadline>,
    primary: PrimaryError,
}

impl<B: Clone> Spill<B> {
    /// Returns a backup for a call, not yet polled for readiness, if its rejection goes there.
    pub(super) fn backup(&self, rejected: &Rejected) -> Option<B> {
        (self.accepts)(rejected).then(|| self.backup.service())
    }
}

impl<S, G, P, B, Req> SpilloverFuture<S, G, P, B, Req>
where
    S: Service<Req>,
    G: Gate,
    P: Protocol<S::Response, S::Error>,
    B: Service<Req> + Clone,
    Req: 'static,
{
    #[inline]
    pub(super) fn new(
        gated: gate::ResponseFuture<S, G, P, Req>,
        returned: Option<Req>,
        spill: Held<Spill<B>>,
        protocol: P,
    ) -> Self {
        let spilled = returned.and_then(|request| Spilled::new(&gated, request, &spill, &protocol));
        Self {
            gated: Some(gated),
            spilled,
            protocol,
            spill,
        }
    }
}

impl<B, Req> Spilled<B, Req>
where
    B: Service<Req> + Clone,
{
    /// Prepares the backup's call, if the rejection goes to the backup.
    #[cold]
    fn new<S, G, P>(
        gated: &gate::ResponseFuture<S, G, P, Req>,
        request: Req,
        spill: &Spill<B>,
        protocol: &P,
    ) -> Option<Box<Self>>
    where
        S: Service<Req>,
        G: Gate,
        P: Protocol<S::Response, S::Error>,
        Req: 'static,
    {
        let rejected = gated.rejection()?;
        let backup = spill.backup(rejected)?;
        let kind = Some(rejected.kind);
        spill.state.begin(Outcome::Ignore, kind);
        Some(Box::new(Self {
            deadline: protocol.deadline_of(&request),
            attempt: Resend::new(backup, request, Token::free()),
            primary: PrimaryError::new(Outcome::Ignore, kind, rejected.to_string()),
        }))
    }
}

impl<S, G, P, B, Req> Future for SpilloverFuture<S, G, P, B, Req>
where
    S: Service<Req> + Clone,
    G: Admit<Req> + Read<S::Response> + Send + Sync + 'static,
    P: Protocol<S::Response, S::Error>,
    B: Service<Req, Response = P::Response<Permit<G>>> + Clone,
    B::Error: Into<P::Error>,
    Req: 'static,
{
    type Output = Result<P::Response<Permit<G>>, P::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.spilled.is_none() {
            let mut gated = this
                .gated
                .as_mut()
                .as_pin_mut()
                .expect("polled after completion");
            if let Some(request) = ready!(gated.as_mut().poll_turn(cx))? {
                *this.spilled = Spilled::new(&gated, request, this.spill, this.protocol);
            }
            if this.spilled.is_none() {
                return gated.poll(cx);
            }
        }
        // Dropped first, so that it frees what it holds of the gates.
        this.gated.set(None);
        let Some(spilled) = this.spilled.as_mut() else {
            return Poll::Pending;
        };
        let result = ready!(spilled.attempt.poll(
            cx,
            |_, _, _| {},
            |request| {
                if let Some(deadline) = spilled.deadline {
                    this.protocol.tell_deadline(request, deadline);
                }
            }
        ));
        let result = result.and_then(|result| result);
        this.spill.state.end(result.is_ok());
        let spilled = this.spilled.take();
        let mut response = result.map_err(Into::into)?;
        if let Some(spilled) = spilled {
            this.protocol.note_primary(&mut response, spilled.primary);
        }
        Poll::Ready(Ok(response))
    }
}

impl<S, G, P, B, Req> fmt::Debug for SpilloverFuture<S, G, P, B, Req>
where
    S: Service<Req>,
    G: Gate,
    B: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpilloverFuture")
            .field("spilled", &self.spilled.is_some())
            .finish_non_exhaustive()
    }
}
