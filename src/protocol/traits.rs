//! What a protocol provides, and what it is told and asked.

use std::{any::Any, error::Error, time::Duration};

#[cfg(feature = "http")]
use crate::protocol::WouldReject;
use crate::{
    Classify, Deadline, Outcome, Rejected, RejectedKind,
    call::CutShort,
    protocol::{Changing, Hint, PrimaryError, Quota, SpillReport},
};

/// How results are read and rejections travel.
///
/// An implementation owes one thing beyond its types: a result that is a rejection of a layer
/// further in (`Rejected::find(..).is_some_and(|rejected| rejected.kind.is_local())`) says nothing
/// about the upstream, so it is settled as [`Outcome::Ignore`] and, when asked, advised on as
/// [`Advice::Rejected`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand before a service that answers `Result<{Res}, {Err}>`",
    note = "`Unset` is no protocol: choose one with `.protocol(..)`",
    note = "`Plain` needs an error that is `Into<BoxError>`; `http::Client` and `http::Server` need an `http::Response`",
    note = "`http::Server` answers rejections itself, with a body that must be `Default`: `.map_response(..)` to one that is"
)]
pub trait Protocol<Res, Err>: Classify<Res, Err> + Clone {
    /// The service's response: the inner one, or one that carries a permit `T` until its body ends.
    type Response<T: Settle>;
    /// The service's error.
    type Error;

    /// Passes a result on, and tells the permit what the result meant.
    ///
    /// # Errors
    /// The inner error, as this protocol's.
    fn settle<T: Settle>(
        &self,
        result: Result<Res, Err>,
        permit: T,
    ) -> Result<Self::Response<T>, Self::Error>;

    /// Answers in place of the inner service. The rejection comes in a box, so that a protocol
    /// whose rejections are errors has nothing left to allocate.
    ///
    /// # Errors
    /// The rejection, where it travels as an error.
    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Self::Response<T>, Self::Error>;

    /// Passes on what the inner service's `poll_ready` failed with.
    fn not_ready(&self, error: Err) -> Self::Error;

    /// Tells the caller of a limit that its call was counted under, admitted or not. Limits ask it
    /// that [advertise](crate::rate_limit::RateLimitBuilder::advertise), once for each of their
    /// parts. By default nothing is told.
    fn advertise<T: Settle>(
        &self,
        response: Self::Response<T>,
        quota: &Quota,
    ) -> Self::Response<T> {
        let _ = quota;
        response
    }

    /// What a retry may do after a result that [`classify`](Classify::classify) called `outcome`.
    /// Only the retry layer asks.
    fn advise(
        &self,
        outcome: Outcome,
        result: Result<&Self::Response<()>, &Self::Error>,
    ) -> Advice {
        let _ = (outcome, result);
        Advice::Stop
    }

    /// Whether a result, of which [`advise`](Self::advise) says `advice`, proves that the upstream
    /// has not acted on the request. By default the advice tells.
    fn proof(&self, advice: Advice, result: Result<&Self::Response<()>, &Self::Error>) -> Proof {
        let _ = result;
        advice.into()
    }

    /// By when the caller of a request wants the answer. Asked by layers of gates, whose requests
    /// may be of any type, of one that has to wait. By default nothing is known.
    fn deadline_of(&self, request: &dyn Any) -> Option<Deadline> {
        let _ = request;
        None
    }

    /// Tells a request that has waited what remains until its deadline, which
    /// [`deadline_of`](Self::deadline_of) said when it came. It is about to be sent.
    fn tell_deadline(&self, request: &mut dyn Any, deadline: Deadline) {
        let _ = (request, deadline);
    }

    /// The outcome of a result that has been passed on, where [`classify`](Classify::classify) said
    /// `classified` of it before.
    ///
    /// Layers that learn from a result and hold no permit ask: retry, hedge, fallback and timeout.
    /// A protocol that boxes errors can read in the box what it could not in the service's own
    /// type. By default that is nothing.
    fn judge(
        &self,
        classified: Outcome,
        result: Result<&Self::Response<()>, &Self::Error>,
    ) -> Outcome {
        let _ = result;
        classified
    }

    /// What is kept of an attempt's error while its retry is under way, to be the answer if a layer
    /// further in rejects that retry. Only the retry layer asks. By default nothing is kept, and
    /// the rejection is the answer.
    fn keep(&self, error: Self::Error) -> Option<Self::Error> {
        let _ = error;
        None
    }

    /// The status of a response, for those that are [told of
    /// retries](crate::retry::RetryBuilder::on_retry). By default responses have none.
    fn status(&self, response: &Self::Response<()>) -> Option<u16> {
        let _ = response;
        None
    }

    /// An error as one, for the same. By default nothing is known of errors.
    fn error<'a>(&self, error: &'a Self::Error) -> Option<&'a (dyn Error + 'static)> {
        let _ = error;
        None
    }

    /// A failed result in words, for the [`PrimaryError`] of a fallback, and for the same.
    fn describe(&self, result: Result<&Self::Response<()>, &Self::Error>) -> String {
        let words = match result {
            Ok(_) => "a response that means a failure",
            Err(_) => "an error",
        };
        words.into()
    }

    /// Leaves in a response which of several backends has answered. By default there is no room for
    /// it.
    fn note_spill<T: Settle>(&self, response: &mut Self::Response<T>, report: SpillReport) {
        let _ = (response, report);
    }

    /// Leaves in a fallback's response what it stands for. By default there is no room for it.
    fn note_primary<T: Settle>(&self, response: &mut Self::Response<T>, primary: PrimaryError) {
        let _ = (response, primary);
    }

    /// Leaves in a response that gates on trial would have rejected its call. By default there is
    /// no room for it.
    #[cfg(feature = "http")]
    fn note_would_reject<T: Settle>(&self, response: &mut Self::Response<T>, mark: WouldReject) {
        let _ = (response, mark);
    }
}

/// How a request can be sent again. Only the retry layer needs it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot tell which `{Req}` may be sent again",
    note = "for `Plain`, say so: `.protocol(Plain::new().idempotent())`, or `.idempotent_when(|request: &_| ..)`; the request must be `Clone`",
    note = "for an HTTP client, use `.protocol(http::Client::new())`; the body must be `Body<Data = Bytes> + Unpin`; there is no retry on a server"
)]
pub trait Replay<Req> {
    /// What the inner service is called with.
    type Request;
    /// What is kept to make the request again.
    type Snapshot;

    /// Makes a request ready to be sent once; nothing is kept.
    fn once(&self, request: Req) -> Self::Request;

    /// Takes a request apart into what is sent first, and what is kept if it may be sent again.
    fn prepare(&self, request: Req) -> (Self::Request, Option<Kept<Self::Snapshot>>);

    /// Makes the request again, if that is possible by now.
    fn replay(&self, snapshot: &Self::Snapshot) -> Option<Self::Request>;

    /// The head of what is kept, for those that are [told of
    /// retries](crate::retry::RetryBuilder::on_retry). By default nothing is known of it.
    fn head<'a>(&self, snapshot: &'a Self::Snapshot) -> Option<&'a dyn Any> {
        let _ = snapshot;
        None
    }

    /// Tells a request which attempt it is, from 1. By default requests do not know.
    #[inline]
    fn number(&self, request: &mut Self::Request, attempt: u32) {
        let _ = (request, attempt);
    }

    /// Begins to change a request that is made again, before it is sent, where that takes time: the
    /// gates see it only after that. By default nothing is changed.
    #[inline]
    fn changing(&self, request: &mut Self::Request, attempt: u32) -> Option<Changing> {
        let _ = (request, attempt);
        None
    }

    /// Changes a request as [`changing`](Self::changing) has said in the end.
    fn change(&self, request: &mut Self::Request, to: Box<dyn Any + Send>) {
        let _ = (request, to);
    }

    /// Tells a request that is about to be sent what remains of its time. By default requests do
    /// not know.
    #[inline]
    fn tell_remaining(&self, request: &mut Self::Request) {
        let _ = request;
    }

    /// By when the answer is of use, if the request says so. By default none does.
    #[inline]
    fn deadline(&self, snapshot: &Self::Snapshot) -> Option<Deadline> {
        let _ = snapshot;
        None
    }

    /// Whether anything is known to have taken the last attempt's request in order to send it.
    /// Asked after a result that says that it was not sent: if so, that is said of another request,
    /// which the service made of this one, to follow a redirect for example. By default `false`.
    #[inline]
    fn was_taken(&self, snapshot: &Self::Snapshot) -> bool {
        let _ = snapshot;
        false
    }

    /// Whether a result can ever prove that a request was not processed ([`Sent`]). Such a call is
    /// kept even while the budget is empty, since its retry is free. By default no result does.
    #[inline]
    fn can_prove_unsent(&self) -> bool {
        false
    }
}

/// A request kept to be sent again.
#[derive(Debug, Clone)]
pub struct Kept<T> {
    /// The request.
    pub snapshot: T,
    /// Whether sending it twice is the same as sending it once. If not, it is sent again only when
    /// it has certainly not been sent.
    pub idempotent: bool,
    /// The largest number of attempts of this request, the first included, if it says so itself.
    pub attempts: Option<u32>,
}

/// What a retry may do after a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The result stands.
    Stop,
    /// The result stands, because the upstream wants no further attempt. Unlike with
    /// [`Stop`](Self::Stop), attempts that are under way beside this one may do better.
    DoNotRetry,
    /// The result stands, and is not the upstream's: a layer further in rejected the attempt before
    /// it was sent. Made from the [`Rejected`] that the result holds.
    Rejected {
        /// Why.
        kind: RejectedKind,
        /// When the same attempt could be admitted, where that is known.
        after: Option<Duration>,
    },
    /// Another attempt may do better.
    Retry {
        /// Whether this attempt reached the upstream.
        sent: Sent,
        /// The earliest moment at which the upstream wants to hear of this again.
        after: Option<Duration>,
    },
    /// Another attempt may do better, after exactly as long as the upstream says.
    RetryExactly {
        /// Whether this attempt reached the upstream.
        sent: Sent,
        /// The moment at which the upstream wants to hear of this again, without jitter.
        after: Duration,
    },
}

impl Proof {
    /// Whether it holds, given whether something has taken the request ([`Replay::was_taken`]).
    #[must_use]
    pub fn holds(self, was_taken: impl FnOnce() -> bool) -> bool {
        match self {
            Self::None => false,
            Self::NotSent => !was_taken(),
            Self::Unprocessed => true,
        }
    }
}

impl From<Advice> for Proof {
    /// A result that says that the request was not sent, or is a rejection of a layer further in,
    /// is a proof if nothing has taken the request.
    fn from(advice: Advice) -> Self {
        match advice {
            Advice::Rejected { .. } => Self::NotSent,
            Advice::Retry { sent, .. } | Advice::RetryExactly { sent, .. } => match sent {
                Sent::No => Self::NotSent,
                Sent::Maybe => Self::None,
            },
            Advice::Stop | Advice::DoNotRetry => Self::None,
        }
    }
}

impl From<&Rejected> for Advice {
    fn from(rejected: &Rejected) -> Self {
        Self::Rejected {
            kind: rejected.kind,
            after: rejected.retry_after,
        }
    }
}

/// Whether a result proves that the upstream has not acted on the request, so that any may be sent
/// again, or to another upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It does not.
    None,
    /// It says that a request was not sent. It is this one, unless something has taken this one and
    /// sent another after it ([`Replay::was_taken`]).
    NotSent,
    /// The upstream has got it, and says that it did not process it.
    Unprocessed,
}

/// Whether a failed attempt can have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The upstream has not seen it: any request may be sent again.
    No,
    /// The upstream may have acted on it: only idempotent requests may be sent again.
    Maybe,
}

/// What a layer holds for a call from its admission to its end. Dropped unsettled, the call was
/// abandoned.
pub trait Settle {
    /// The call has ended. `retry_after` is the upstream's own word on when to come back.
    fn settle(self, outcome: Outcome, retry_after: Option<Duration>);

    /// The caller's own deadline has ended the call, and the rejection tells so. By default it has
    /// failed if good answers would have been there by then, else it says nothing.
    fn cut_short(self, late: bool)
    where
        Self: Sized,
    {
        let outcome = match late {
            true => Outcome::Failure,
            false => Outcome::Ignore,
        };
        self.settle(outcome, None);
    }

    /// The call goes on, but the upstream has said already when to come back with the next one. By
    /// default that is not honored.
    fn honor(&mut self, retry_after: Duration) {
        let _ = retry_after;
    }

    /// The upstream has told of its own limits, in any answer: called before that settles the call.
    /// By default nothing follows from it.
    fn told(&mut self, hint: &Hint) {
        let _ = hint;
    }

    /// The head of the response is here, and the call goes on to the end of the body. What takes
    /// time from now on is the reader as much as the upstream. By default nothing follows from it.
    fn answered(&mut self) {}

    /// The head of the response is here, and the call goes on over an upgraded connection. Returns
    /// what must be kept until that closes, and then dropped. By default the call has ended.
    fn upgraded(self, outcome: Outcome) -> Option<Box<dyn Any + Send>>
    where
        Self: Sized,
    {
        self.settle(outcome, None);
        None
    }
}

/// Settles by a result of `outcome`; `rejected` is the rejection that it holds, if any.
#[inline]
pub(crate) fn settle<T: Settle>(
    permit: T,
    rejected: Option<&Rejected>,
    (outcome, retry_after): (Outcome, Option<Duration>),
) {
    match rejected.and_then(Rejected::cut_short) {
        Some(cut_short) => permit.cut_short(cut_short == CutShort::Late),
        None => permit.settle(outcome, retry_after),
    }
}

impl Settle for () {
    fn settle(self, _: Outcome, _: Option<Duration>) {}
}
