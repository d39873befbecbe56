//! The path of a call's deadline from a stack's total timeout to the layers beneath.
//!
//! A deadline in the request's extensions would work for HTTP alone, and costs an allocation.
//! Within a stack the request travels in a [`Timed`] instead, whatever the protocol. [`Sending`]
//! writes its deadline into the request just before the upstream is called, so that the remaining
//! time is right after any wait.

use std::{
    any::Any,
    error::Error,
    task::{Context, Poll},
};

use tower::Service;

use crate::{
    CallSettings, CarryDeadline, Classify, Deadline, Outcome, Rejected, Timeouts,
    ambient::clock,
    gate::{Demand, FindKey, Inquiry},
    keyed::{HasKey, Host},
    protocol::{
        Advice, Changing, Kept, PrimaryError, Proof, Protocol, Quota, Replay, Settle, SpillReport,
        WouldReject,
    },
};

/// A request within a stack, with its caller's deadline.
#[derive(Debug, Clone)]
pub struct Timed<Req> {
    request: Req,
    /// The request's own deadline, or the total timeout's if that is earlier.
    deadline: Option<Deadline>,
    /// The request's own settings, read once.
    settings: CallSettings,
}

/// A protocol whose requests travel in a [`Timed`]. The rest is that of `P`.
#[derive(Debug, Clone, Copy)]
pub struct WithDeadline<P>(P);

/// A wrapper that lets `F` work on [`Timed`] requests. Finds a key as `F` finds it in the request.
/// Decides as the gate `F` decides, with the deadline known.
#[derive(Debug, Clone, Copy, Default)]
pub struct InTimed<F>(pub(super) F);

/// The innermost service of a stack. Writes the deadline into a request and sends it.
#[derive(Debug, Clone)]
pub struct Sending<S, P> {
    inner: S,
    protocol: P,
}

impl<Req> Timed<Req> {
    #[inline]
    pub(super) fn new(request: Req, deadline: Option<Deadline>, settings: CallSettings) -> Self {
        Self {
            request,
            deadline,
            settings,
        }
    }

    /// Returns the request's demand on gates, its deadline included.
    #[inline(always)]
    pub(super) fn demand(&self, demand: &Demand) -> Demand {
        Demand {
            deadline: self.deadline.map(Deadline::moment),
            cost: self.settings.cost.unwrap_or(demand.cost),
            criticality: self.settings.criticality.unwrap_or(demand.criticality),
            ..*demand
        }
    }

    /// Returns the request as an inquiry for a gate that does not know [`Timed`].
    #[inline(always)]
    pub(super) fn within<'a, A>(
        &'a self,
        demand: &'a Demand,
        asked: &'a mut A,
    ) -> Inquiry<'a, Req, A> {
        Inquiry {
            request: &self.request,
            demand,
            asked,
        }
    }

    #[inline]
    fn map<T>(self, change: impl FnOnce(Req) -> T) -> Timed<T> {
        Timed {
            request: change(self.request),
            deadline: self.deadline,
            settings: self.settings,
        }
    }
}

impl<P> WithDeadline<P> {
    pub(super) fn new(protocol: P) -> Self {
        Self(protocol)
    }

    pub(super) fn inner(&self) -> &P {
        &self.0
    }
}

impl<P: CarryDeadline<Req>, Req> CarryDeadline<Timed<Req>> for WithDeadline<P> {
    #[inline]
    fn deadline(&self, timed: &Timed<Req>) -> Option<Deadline> {
        timed.deadline
    }

    #[inline]
    fn set_deadline(&self, timed: &mut Timed<Req>, deadline: Deadline) {
        timed.deadline = Some(deadline);
    }

    /// Returns true for a total timeout, because here a deadline costs nothing to carry.
    #[inline]
    fn wants_deadline(&self, total: bool) -> bool {
        total || self.0.wants_deadline(total)
    }

    #[inline]
    fn timeouts(&self, timed: &Timed<Req>) -> Option<Timeouts> {
        Some(timed.settings.timeouts)
    }

    #[inline]
    fn settings(&self, timed: &Timed<Req>) -> CallSettings {
        timed.settings
    }
}

impl<P: Replay<Req>, Req> Replay<Timed<Req>> for WithDeadline<P> {
    type Request = Timed<P::Request>;
    type Snapshot = Timed<P::Snapshot>;

    #[inline]
    fn once(&self, timed: Timed<Req>) -> Self::Request {
        timed.map(|request| self.0.once(request))
    }

    #[inline]
    fn prepare(&self, timed: Timed<Req>) -> (Self::Request, Option<Kept<Self::Snapshot>>) {
        let Timed {
            request,
            deadline,
            settings,
        } = timed;
        let (request, kept) = self.0.prepare(request);
        let kept = kept.map(|kept| Kept {
            snapshot: Timed {
                request: kept.snapshot,
                deadline,
                settings,
            },
            idempotent: kept.idempotent,
            attempts: settings.attempts.or(kept.attempts),
        });
        let timed = Timed {
            request,
            deadline,
            settings,
        };
        (timed, kept)
    }

    fn replay(&self, kept: &Self::Snapshot) -> Option<Self::Request> {
        Some(Timed {
            request: self.0.replay(&kept.request)?,
            deadline: kept.deadline,
            settings: kept.settings,
        })
    }

    fn head<'a>(&self, kept: &'a Self::Snapshot) -> Option<&'a dyn Any> {
        self.0.head(&kept.request)
    }

    #[inline]
    fn number(&self, timed: &mut Self::Request, attempt: u32) {
        self.0.number(&mut timed.request, attempt);
    }

    #[inline]
    fn changing(&self, timed: &mut Self::Request, attempt: u32) -> Option<Changing> {
        self.0.changing(&mut timed.request, attempt)
    }

    fn change(&self, timed: &mut Self::Request, to: Box<dyn Any + Send>) {
        self.0.change(&mut timed.request, to);
    }

    fn deadline(&self, kept: &Self::Snapshot) -> Option<Deadline> {
        kept.deadline
    }

    #[inline]
    fn tell_remaining(&self, timed: &mut Self::Request) {
        self.0.tell_remaining(&mut timed.request);
    }

    #[inline]
    fn was_taken(&self, kept: &Self::Snapshot) -> bool {
        self.0.was_taken(&kept.request)
    }

    #[inline]
    fn may_change(&self) -> bool {
        self.0.may_change()
    }

    #[inline]
    fn can_prove_unsent(&self) -> bool {
        self.0.can_prove_unsent()
    }
}

impl<P: Classify<Res, Err>, Res, Err> Classify<Res, Err> for WithDeadline<P> {
    #[inline]
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        self.0.classify(result)
    }
}

impl<P: Protocol<Res, Err>, Res, Err> Protocol<Res, Err> for WithDeadline<P> {
    type Response<T: Settle> = P::Response<T>;
    type Error = P::Error;

    #[inline]
    fn settle<T: Settle>(
        &self,
        result: Result<Res, Err>,
        permit: T,
    ) -> Result<P::Response<T>, P::Error> {
        self.0.settle(result, permit)
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<P::Response<T>, P::Error> {
        self.0.reject(rejected)
    }

    fn not_ready(&self, error: Err) -> P::Error {
        self.0.not_ready(error)
    }

    fn advertise<T: Settle>(&self, response: P::Response<T>, quota: &Quota) -> P::Response<T> {
        self.0.advertise(response, quota)
    }

    #[inline]
    fn advise(&self, outcome: Outcome, result: Result<&P::Response<()>, &P::Error>) -> Advice {
        self.0.advise(outcome, result)
    }

    #[inline]
    fn judge(&self, classified: Outcome, result: Result<&P::Response<()>, &P::Error>) -> Outcome {
        self.0.judge(classified, result)
    }

    fn proof(&self, advice: Advice, result: Result<&P::Response<()>, &P::Error>) -> Proof {
        self.0.proof(advice, result)
    }

    fn keep(&self, error: P::Error) -> Option<P::Error> {
        self.0.keep(error)
    }

    fn status(&self, response: &P::Response<()>) -> Option<u16> {
        self.0.status(response)
    }

    fn error<'a>(&self, error: &'a P::Error) -> Option<&'a (dyn Error + 'static)> {
        self.0.error(error)
    }

    fn describe(&self, result: Result<&P::Response<()>, &P::Error>) -> String {
        self.0.describe(result)
    }

    fn note_spill<T: Settle>(&self, response: &mut P::Response<T>, report: SpillReport) {
        self.0.note_spill(response, report);
    }

    fn note_primary<T: Settle>(&self, response: &mut P::Response<T>, primary: PrimaryError) {
        self.0.note_primary(response, primary);
    }

    fn note_would_reject<T: Settle>(&self, response: &mut P::Response<T>, mark: WouldReject) {
        self.0.note_would_reject(response, mark);
    }
}

impl<F> HasKey for InTimed<F> {
    type Key = Host;
}

impl<F: FindKey<Req, K>, Req, K> FindKey<Timed<Req>, K> for InTimed<F> {
    #[inline]
    fn find(&self, timed: &Timed<Req>) -> Option<K> {
        self.0.find(&timed.request)
    }
}

impl<S, P> Sending<S, P> {
    pub(super) fn new(inner: S, protocol: P) -> Self {
        Self { inner, protocol }
    }
}

impl<S, P, Req> Service<Timed<Req>> for Sending<S, P>
where
    S: Service<Req>,
    P: CarryDeadline<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, timed: Timed<Req>) -> S::Future {
        let mut request = timed.request;
        if let Some(deadline) = timed.deadline {
            self.protocol.set_deadline(&mut request, deadline);
        }
        clock::call_inner(|| self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    /// Returns the methods that a trait declares, from its source.
    fn methods<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
        let start = source.find(&format!("pub trait {name}<")).unwrap();
        let body = &source[start..];
        let body = &body[..body.find("\n}").unwrap()];
        let declared = body.lines().filter_map(|line| line.strip_prefix("    fn "));
        declared
            .map(|line| line.split(['(', '<']).next().unwrap())
            .collect()
    }

    #[test]
    fn every_method_of_a_protocol_is_forwarded() {
        let (traits, own) = (
            include_str!("../protocol/traits.rs"),
            include_str!("timed.rs"),
        );
        let methods = [methods(traits, "Protocol"), methods(traits, "Replay")].concat();
        assert!(methods.len() > 15, "{methods:?}");
        // The wrapper answers these itself. The header is written when the request is sent.
        let own_answer = ["deadline", "deadline_of", "tell_deadline"];
        for method in methods
            .into_iter()
            .filter(|method| !own_answer.contains(method))
        {
            let forwarded = format!("self.0.{method}(");
            assert!(own.contains(&forwarded), "`{method}` is not forwarded");
        }
    }
}
