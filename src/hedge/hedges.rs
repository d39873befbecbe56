//! The hedges of a call: its attempts beyond the first.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use crate::{
    Deadline, Outcome,
    ambient::{clock, timer::CallTimer},
    budget::{Counting, FindBudget, Purse},
    hedge::{HedgeHandle, next::NextAttempt, state::Winner},
    protocol::{Advice, Kept, Protocol, Replay},
    resend::{Origin, Resend},
};

/// The state of a call, except its first attempt.
pub(super) struct Hedges<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
{
    /// The hedges that were started and have not ended.
    running: Vec<Resend<S, P::Request>>,
    /// The number of hedges that were started.
    started: usize,
    /// If true, at least one hedge was sent.
    hedged: bool,
    /// If true, the first hedge was due while no attempt had ended.
    was_due: bool,
    /// The most hedges allowed, if the request itself says so.
    most: Option<usize>,
    /// `None` if the request may not be sent again, or not any more.
    snapshot: Option<P::Snapshot>,
    /// The request's deadline, set when the first hedge starts.
    deadline: Option<Instant>,
    /// The timer of the next hedge, made when the call first has to wait.
    timer: Option<CallTimer>,
    /// A wait that an answer has asked for. Nothing is sent before it ends.
    hold: Option<Pin<Box<Sleep>>>,
    /// The time at which the first attempt was sent, if it is measured and under way.
    sent_at: Option<Instant>,
    /// The last failure.
    last: Option<AttemptResult<S, P, Req>>,
    /// The budget of the call's key.
    purse: B::Held,
    /// If true, the budget has counted the call, which happens at the first poll.
    has_begun: bool,
    protocol: P,
    origin: O,
}

pub(super) type AttemptResult<S, P, Req> = Result<
    <P as Protocol<
        <S as Service<<P as Replay<Req>>::Request>>::Response,
        <S as Service<<P as Replay<Req>>::Request>>::Error,
    >>::Response<()>,
    <P as Protocol<
        <S as Service<<P as Replay<Req>>::Request>>::Response,
        <S as Service<<P as Replay<Req>>::Request>>::Error,
    >>::Error,
>;

/// The consequence of an attempt's result for the call.
pub(super) enum Verdict<A> {
    /// The result is the answer.
    Stands(A),
    /// Another attempt may do better.
    Failed(NextAttempt),
}

/// The context of an attempt's result.
#[derive(Clone, Copy)]
pub(super) struct Of {
    pub(super) winner: Winner,
    /// If true, the first attempt is still under way.
    pub(super) first_runs: bool,
    /// If true, a layer beneath has counted the result in this layer's budget.
    pub(super) counted: bool,
}

impl<S, P, Req, B, O> Hedges<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
    O: Origin<S, Handle = HedgeHandle>,
{
    /// Makes the state of a call that has no hedge yet.
    pub(super) fn new(
        (kept, purse): (Option<Kept<P::Snapshot>>, B::Held),
        protocol: P,
        origin: O,
    ) -> Self {
        let attempts = kept.as_ref().and_then(|kept| kept.attempts);
        let most = attempts.and_then(|attempts| usize::try_from(attempts - 1).ok());
        Self {
            most,
            running: Vec::new(),
            started: 0,
            hedged: false,
            was_due: false,
            snapshot: kept.map(|kept| kept.snapshot),
            deadline: None,
            timer: None,
            hold: None,
            sent_at: origin.handle().state().sent_at(),
            last: None,
            purse,
            has_begun: false,
            protocol,
            origin,
        }
    }

    pub(super) fn started(&self) -> usize {
        self.started
    }

    /// Enters the poll of the call.
    pub(super) fn enter(&mut self) -> Counting {
        let own = self.purse.own();
        self.origin.handle().state().enter(own, &mut self.has_begun)
    }

    pub(super) fn are_over(&self) -> bool {
        self.running.is_empty()
    }

    /// Ends the call with an answer: drops the hedges that are under way.
    pub(super) fn end(&mut self) {
        self.running.clear();
    }

    /// Returns the last failure as the answer. `None` if it was taken already.
    pub(super) fn give_up(&mut self) -> Option<AttemptResult<S, P, Req>> {
        self.lose();
        self.last.take()
    }

    /// Records a call that was dropped unfinished. The time of its first attempt counts only if a
    /// hedge was sent: a caller that gives up sooner is no quick answer.
    pub(super) fn dropped(&mut self) {
        if self.hedged {
            self.first_took();
        }
    }

    /// Records the time of a first attempt that has succeeded, or took at least that long when a
    /// hedge overtook it.
    fn first_took(&mut self) {
        if let Some(sent_at) = self.sent_at.take() {
            self.origin.handle().state().took(sent_at);
        }
    }

    /// Reads the result of an attempt.
    pub(super) fn judge(
        &mut self,
        result: Result<S::Response, S::Error>,
        of: Of,
    ) -> Verdict<AttemptResult<S, P, Req>> {
        let classified = self.protocol.classify(result.as_ref());
        let answer = self.protocol.settle(result, ());
        let outcome = self.protocol.judge(classified, answer.as_ref());
        let advice = self.protocol.advise(outcome, answer.as_ref());
        let (state, own) = (&self.origin.handle().state(), self.purse.own());
        if outcome == Outcome::Success && advice == Advice::Stop {
            if !of.counted {
                state.succeeded(own);
            }
            if self.hedged {
                state.ended(of.winner);
            }
            if of.winner == Winner::First && !self.was_due && self.snapshot.is_some() {
                state.due(false);
            }
            self.first_took();
            return Verdict::Stands(answer);
        }
        let next = NextAttempt::after(advice);
        if !of.counted && next != NextAttempt::AsPlanned && outcome != Outcome::Ignore {
            state.failed(own);
        }
        if of.winner == Winner::First {
            // A failure may be quick, which says nothing about how long answers take.
            self.sent_at = None;
        }
        // The first attempt need not fail with the error of a hedge.
        if next == NextAttempt::Fatal && !of.first_runs {
            self.lose();
            return Verdict::Stands(answer);
        }
        // A rejection says less than the failure of an attempt that was sent.
        if next != NextAttempt::AsPlanned || self.last.is_none() {
            self.last = Some(answer);
        }
        Verdict::Failed(next)
    }

    fn lose(&self) {
        if self.hedged {
            self.origin.handle().state().ended(Winner::Nobody);
        }
    }

    /// Sends nothing more.
    fn stop(&mut self) {
        self.snapshot = None;
        self.running.retain(Resend::is_sent);
    }
}

impl<S, P, Req, B, O> Hedges<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
    O: Origin<S, Handle = HedgeHandle>,
{
    /// Continues the call after a failed attempt, because others may succeed.
    pub(super) fn go_on(&mut self, next: NextAttempt) {
        match next {
            // A hedge that is not sent yet is the next one.
            NextAttempt::AtOnce if self.running.iter().all(Resend::is_sent) => {
                self.start(clock::moment());
            }
            NextAttempt::AtOnce | NextAttempt::AsPlanned => {}
            NextAttempt::After(hint) => self.hold_off(hint),
            NextAttempt::Never | NextAttempt::Fatal => self.stop(),
        }
    }

    /// Starts no attempt before the hint, and the next one then.
    fn hold_off(&mut self, hint: Duration) {
        let asked = clock::later(clock::moment(), hint);
        let held = self.hold.as_ref().map(|hold| hold.deadline());
        let until = held.map_or(asked, |held| held.max(asked));
        let is_over = hint > self.origin.handle().state().max_retry_after()
            || self.deadline().is_some_and(|deadline| until >= deadline);
        if is_over {
            return self.stop();
        }
        self.hold = Some(Box::pin(sleep_until(until)));
        if self.running.iter().all(Resend::is_sent) {
            self.start(until);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.snapshot {
            Some(snapshot) => self.protocol.deadline(snapshot).map(Deadline::moment),
            None => self.deadline,
        }
    }

    /// Starts another attempt, to be sent at `at` or later, if one is left and the budget pays for
    /// it. Otherwise the call gets no more hedges.
    fn start(&mut self, at: Instant) {
        let state = &self.origin.handle().state();
        self.deadline = self.deadline();
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        let in_time = self.deadline.is_none_or(|deadline| at < deadline);
        // The hedge may have been switched off since the call began.
        let may_hedge = in_time && state.is_enabled();
        let token = may_hedge
            .then(|| state.withdraw(self.purse.own()))
            .flatten();
        let (Some(token), Some(mut request)) = (token, self.protocol.replay(snapshot)) else {
            self.snapshot = None;
            return;
        };
        self.started += 1;
        let most = self.most.unwrap_or_else(|| state.config().max_hedges);
        let is_last = self.started >= most;
        let number = u32::try_from(self.started + 1).unwrap_or(u32::MAX);
        let changing = self.protocol.changing(&mut request, number);
        if changing.is_none() {
            self.protocol.number(&mut request, number);
        }
        let service = self.origin.service();
        self.timer = None;
        if is_last {
            self.snapshot = None;
        }
        let resend = Resend::new(service, request, token).before(self.deadline);
        self.running.push(resend.after(changing, number));
    }

    /// Starts the next hedge once its delay is over.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // While a hint is honored, the next hedge waits for that.
        if self.snapshot.is_none() || self.hold.is_some() {
            return Poll::Pending;
        }
        let Some(delay) = self.origin.handle().state().delay() else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| {
            let now = clock::moment();
            CallTimer::new(None, clock::later(now, delay))
        });
        ready!(timer.poll(cx));
        let is_first = self.started == 0 && self.last.is_none();
        if is_first {
            self.was_due = true;
            if !self.origin.handle().state().due(true) {
                self.snapshot = None;
                return Poll::Pending;
            }
        }
        self.start(clock::moment());
        Poll::Ready(())
    }

    /// Polls the hedges. Returns the verdict on the first of them that has a result.
    pub(super) fn poll_running(
        &mut self,
        cx: &mut Context<'_>,
        counting: &Counting,
        first_runs: bool,
    ) -> Poll<Verdict<AttemptResult<S, P, Req>>> {
        let hold = self.hold.as_mut();
        if hold.is_some_and(|hold| hold.as_mut().poll(cx).is_ready()) {
            self.hold = None;
        }
        let mut number = 0;
        while number < self.running.len() {
            let (state, running) = (&self.origin.handle().state(), &mut self.running[number]);
            let is_held = self.hold.is_some() && !running.is_sent();
            let mut is_new = false;
            let polled = match is_held {
                true => Poll::Pending,
                false => running.poll(
                    cx,
                    |request, to, number| {
                        self.protocol.change(request, to);
                        self.protocol.number(request, number);
                    },
                    |request| {
                        self.protocol.tell_remaining(request);
                        is_new = true;
                    },
                ),
            };
            if is_new {
                state.hedged();
                self.hedged = true;
            }
            let Poll::Ready(result) = polled else {
                match running.is_too_late(cx) {
                    true => drop(self.running.remove(number)),
                    false => number += 1,
                }
                continue;
            };
            let mut over = self.running.remove(number);
            match result {
                Ok(result) => {
                    let of = Of {
                        winner: Winner::Hedge,
                        first_runs,
                        counted: counting.take_counted(),
                    };
                    let verdict = self.judge(result, of);
                    if matches!(verdict, Verdict::Failed(NextAttempt::AsPlanned)) {
                        // The hedge never reached the upstream.
                        over.give_back();
                    }
                    return Poll::Ready(verdict);
                }
                // Never sent: no reason to send the next one, and the answer only if there is no
                // other.
                Err(error) => {
                    let error = self.protocol.not_ready(error);
                    self.last.get_or_insert(Err(error));
                }
            }
        }
        Poll::Pending
    }
}
