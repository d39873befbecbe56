//! A call through a list of backends.

use std::{future::poll_fn, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tower::BoxError;

use super::shared::Shared;
use crate::{
    CarryDeadline, Deadline, Outcome, Rejected, RejectedKind,
    ambient::clock,
    budget::Token,
    observe::trace,
    protocol::{Advice, Kept, Protocol, Replay, SpillReason, SpillReport},
    resend::Resend,
};

/// A call under way.
struct RunningCall<'a, P: Replay<Req>, Req, Res> {
    shared: &'a Shared<P, P::Request, Res>,
    /// The request of the first backend that is tried.
    first: Option<P::Request>,
    kept: Option<Kept<P::Snapshot>>,
    report: SpillReport,
    /// The end of the call's time.
    until: Option<Instant>,
    /// The backend that is asked now.
    asked: Option<usize>,
    /// If true, that backend has received the request.
    is_sent: bool,
    /// The last failure: the answer, if there is no better one.
    failure: Option<Result<Res, BoxError>>,
    /// If true, that failure is an upstream's, and no rejection of a backend's own stack.
    is_upstreams: bool,
    /// If true, the next attempt costs a token.
    owes: bool,
    /// If true, nothing more may be sent.
    is_over: bool,
}

/// The consequence of a backend's result.
enum Then {
    Answer,
    /// Try the next backend. If `paid`, that costs a token.
    Next {
        reason: SpillReason,
        paid: bool,
    },
}

pub(super) async fn run<P, Req, Res>(
    shared: Arc<Shared<P, P::Request, Res>>,
    mut request: Req,
) -> Result<Res, BoxError>
where
    P: Protocol<Res, BoxError, Error = BoxError, Response<()> = Res>,
    P: Replay<Req> + CarryDeadline<Req>,
{
    let protocol = &shared.protocol;
    let own = CarryDeadline::deadline(protocol, &request).map(Deadline::moment);
    let total = shared
        .total
        .map(|total| clock::later(clock::moment(), total));
    let until = match (own, total) {
        (Some(own), Some(total)) => Some(own.min(total)),
        (own, total) => own.or(total),
    };
    if let Some(until) = until.filter(|_| own != until) {
        protocol.set_deadline(&mut request, Deadline::at(until));
    }
    if let Some(budget) = &shared.budget {
        Token::begin_call(budget);
    }
    let (first, kept) = protocol.prepare(request);
    let mut call = RunningCall {
        shared: &shared,
        first: Some(first),
        kept,
        report: SpillReport::default(),
        until,
        asked: None,
        is_sent: false,
        failure: None,
        is_upstreams: false,
        owes: false,
        is_over: false,
    };
    let answer = match until {
        Some(until) => call.within(until).await,
        None => call.through().await,
    };
    call.end(answer)
}

impl<P, Req, Res> RunningCall<'_, P, Req, Res>
where
    P: Protocol<Res, BoxError, Error = BoxError, Response<()> = Res>,
    P: Replay<Req>,
{
    async fn within(&mut self, until: Instant) -> Option<Result<Res, BoxError>> {
        if clock::has_passed(until) {
            return Some(Err(self.rejected(RejectedKind::DeadlineExceeded, None)));
        }
        match timeout_at(until, self.through()).await {
            Ok(answer) => answer,
            Err(_) => {
                if let Some(place) = self.asked {
                    self.pass_over(place, SpillReason::OutOfTime);
                }
                let timed_out = || Err(self.rejected(RejectedKind::TimedOut, None));
                (!self.failure_stands()).then(timed_out)
            }
        }
    }

    /// Returns whether there is a failure that is the answer at the end of the time, as the last
    /// result is for a retry. A backend that hangs may have acted on the request. A rejection, or a
    /// failure after which a call went on that is not idempotent, would deny that. A caller could
    /// take it for a proof that nothing was processed.
    fn failure_stands(&self) -> bool {
        let idempotent = self.kept.as_ref().is_some_and(|kept| kept.idempotent);
        let denies_nothing = !self.is_sent || (idempotent && self.is_upstreams);
        self.failure.is_some() && denies_nothing
    }

    /// Returns the answer of the first backend that gives one. `None` if none does.
    async fn through(&mut self) -> Option<Result<Res, BoxError>> {
        let shared = self.shared;
        let backends = &shared.backends;
        let fits: Vec<bool> = match &self.first {
            Some(first) => backends.iter().map(|backend| backend.fits(first)).collect(),
            None => return None,
        };
        for (place, fits) in fits.iter().enumerate() {
            let reason = match self.shared.state.cooling(place) {
                _ if !fits => SpillReason::Unfit,
                Some(left) => SpillReason::Cooling(left),
                None => match self.ask(place).await {
                    Ok(answer) => return Some(answer),
                    Err(reason) => reason,
                },
            };
            self.pass_over(place, reason);
            if self.is_over {
                return None;
            }
        }
        let mut last = backends.iter().zip(&fits);
        let place = last.position(|(backend, fits)| backend.is_last_resort && *fits)?;
        match self.ask(place).await {
            Ok(answer) => Some(answer),
            Err(reason) => {
                self.pass_over(place, reason);
                None
            }
        }
    }

    fn pass_over(&mut self, place: usize, reason: SpillReason) {
        let name = self.shared.backends[place].name;
        trace::passed_over(self.shared.state.name, name, &reason);
        self.shared.state.count(place, reason.index());
        self.report.passed_over.push((name, reason));
    }

    /// Tries one backend. Returns its answer, or the reason why there is none.
    async fn ask(&mut self, place: usize) -> Result<Result<Res, BoxError>, SpillReason> {
        let (shared, protocol) = (self.shared, &self.shared.protocol);
        let backend = &shared.backends[place];
        let Some(token) = self.token() else {
            self.is_over = true;
            return Err(SpillReason::Unpaid);
        };
        let Some(mut request) = self.request().await else {
            self.is_over = true;
            return Err(SpillReason::Unsendable);
        };
        if let Some(rewrite) = &backend.rewrite {
            rewrite(&mut request);
        }
        // At the end of the time nothing is sent: the timer around this call ends it.
        let mut attempt = Resend::new(backend.service(), request, token).before(self.until);
        let tell = |request: &mut P::Request| protocol.tell_remaining(request);
        self.asked = Some(place);
        let polled = poll_fn(|cx| {
            let polled = attempt.poll(cx, |_, _, _| (), tell);
            self.is_sent = attempt.is_sent();
            polled
        });
        // A readiness error is this backend's error, though it received nothing.
        let result = polled.await.and_then(|result| result);
        (self.asked, self.is_sent) = (None, false);
        let classified = protocol.classify(result.as_ref());
        let result = protocol.settle(result, ());
        let outcome = protocol.judge(classified, result.as_ref());
        if matches!(
            protocol.advise(outcome, result.as_ref()),
            Advice::Rejected { .. }
        ) {
            attempt.give_back();
        }
        drop(attempt);
        match self.then(place, outcome, &result) {
            Then::Answer => {
                shared.state.count(place, 0);
                self.report.answered_by = Some(backend.name);
                if let Some(budget) = shared
                    .budget
                    .as_ref()
                    .filter(|_| outcome == Outcome::Success)
                {
                    budget.succeeded();
                }
                Ok(result)
            }
            Then::Next { reason, paid } => {
                self.owes |= paid;
                self.is_over = !self.may_go_on(outcome, &result);
                (self.failure, self.is_upstreams) = (Some(result), paid);
                Err(reason)
            }
        }
    }

    /// Returns the first request, or a replay of it.
    async fn request(&mut self) -> Option<P::Request> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let again = self.replayed();
        if again.is_some() {
            return again;
        }
        // hyper drops a body only after it has reported the error, so yield once and try again.
        tokio::task::yield_now().await;
        self.replayed()
    }

    fn replayed(&self) -> Option<P::Request> {
        let kept = self.kept.as_ref()?;
        self.shared.protocol.replay(&kept.snapshot)
    }

    fn then(&self, place: usize, outcome: Outcome, result: &Result<Res, BoxError>) -> Then {
        let protocol = &self.shared.protocol;
        let words = || protocol.describe(result.as_ref());
        let (after, retryable) = match protocol.advise(outcome, result.as_ref()) {
            Advice::Rejected { kind, .. } => {
                let reason = SpillReason::Rejected(kind);
                return Then::Next {
                    reason,
                    paid: false,
                };
            }
            Advice::Retry { after, .. } => (after, true),
            Advice::RetryExactly { after, .. } => (Some(after), true),
            Advice::Stop | Advice::DoNotRetry => (None, false),
        };
        let failed = matches!(outcome, Outcome::Failure | Outcome::Overload);
        if failed {
            let cooldown = Duration::from_nanos(self.shared.backends[place].cooldown);
            let pause = after.map_or(cooldown, |after| after.min(MAX_PAUSE));
            self.shared.state.cool(place, pause);
        }
        let wanted = self.shared.wanted.as_ref();
        // An overload says "not here, not now", which says nothing about another backend.
        if retryable || outcome == Outcome::Overload {
            let reason = SpillReason::Failed(words());
            return Then::Next { reason, paid: true };
        }
        if wanted.is_some_and(|wants| !wants(result.as_ref())) {
            let reason = SpillReason::Unwanted(words());
            return Then::Next { reason, paid: true };
        }
        Then::Answer
    }

    /// Returns whether the request may be sent again: a call that may have had an effect is not
    /// repeated elsewhere.
    fn may_go_on(&self, outcome: Outcome, result: &Result<Res, BoxError>) -> bool {
        let protocol = &self.shared.protocol;
        let advice = protocol.advise(outcome, result.as_ref());
        let proof = protocol.proof(advice, result.as_ref());
        self.kept.as_ref().is_some_and(|kept| {
            kept.idempotent || proof.holds(|| protocol.was_taken(&kept.snapshot))
        })
    }

    /// Takes the token of the next attempt. Free unless it must be paid for. `None` if the budget
    /// is empty.
    fn token(&self) -> Option<Token> {
        match &self.shared.budget {
            Some(budget) if self.owes => Token::take(budget, false),
            _ => Some(Token::free()),
        }
    }

    /// Ends the call: returns the result, with the report on it.
    fn end(mut self, answer: Option<Result<Res, BoxError>>) -> Result<Res, BoxError> {
        let failure = self.failure.take();
        match answer.or(failure) {
            Some(Ok(mut response)) => {
                let protocol = &self.shared.protocol;
                protocol.note_spill::<()>(&mut response, self.report);
                Ok(response)
            }
            Some(Err(error)) => Err(self.report.around(error)),
            None => {
                let error = self.none_asked();
                Err(self.report.around(error))
            }
        }
    }

    /// Returns the error of a call for which no backend was tried.
    fn none_asked(&self) -> BoxError {
        let pauses = self.report.passed_over.iter();
        let pauses = pauses.filter_map(|(_, reason)| match reason {
            SpillReason::Cooling(left) => Some(*left),
            _ => None,
        });
        match pauses.min() {
            Some(left) => self.rejected(RejectedKind::CircuitOpen, Some(left)),
            None => self.rejected(RejectedKind::CostTooHigh, None),
        }
    }

    fn rejected(&self, kind: RejectedKind, retry_after: Option<Duration>) -> BoxError {
        let mut rejected = Rejected::new(kind, "spill");
        rejected.name = self.shared.state.name;
        rejected.retry_after = retry_after;
        rejected.into()
    }
}

/// The longest pause that a backend's answer sets. One that is wrong, or hostile, costs no more.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
