//! The traits of a protocol, and the values that pass between it and a layer.

use std::{any::Any, error::Error, time::Duration};

#[cfg(feature = "http")]
use crate::protocol::WouldReject;
use crate::{
    Classify, Deadline, Outcome, Rejected, RejectedKind,
    protocol::{Changing, PrimaryError, Quota, Settle, SpillReport},
};

/// Classifies results and carries rejections.
///
/// An implementation has one duty beyond its types. A result may be an inner layer's rejection:
/// `Rejected::find(..).is_some_and(|rejected| rejected.kind.is_local())`. It says nothing about the
/// upstream. Settle it as [`Outcome::Ignore`], and [advise](Self::advise) [`Advice::Rejected`].
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

    /// Passes a result on, and settles the permit by its meaning.
    ///
    /// # Errors
    /// The inner error, as this protocol's error.
    fn settle<T: Settle>(
        &self,
        result: Result<Res, Err>,
        permit: T,
    ) -> Result<Self::Response<T>, Self::Error>;

    /// Answers a call that a layer rejects. The rejection is boxed, so that a protocol whose
    /// rejections are errors need not allocate.
    ///
    /// # Errors
    /// The rejection, if it travels as an error.
    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Self::Response<T>, Self::Error>;

    /// Converts the error of the inner service's `poll_ready`.
    fn not_ready(&self, error: Err) -> Self::Error;

    /// Adds a limit of the call to its response, whether the call was admitted or not. Called by
    /// limits that [advertise](crate::rate_limit::RateLimitBuilder::advertise), once for each of
    /// their parts. By default the response is unchanged.
    fn advertise<T: Settle>(
        &self,
        response: Self::Response<T>,
        quota: &Quota,
    ) -> Self::Response<T> {
        let _ = quota;
        response
    }

    /// Returns what a retry may do after a result that [`classify`](Classify::classify) called
    /// `outcome`. Only the retry layer calls it.
    fn advise(
        &self,
        outcome: Outcome,
        result: Result<&Self::Response<()>, &Self::Error>,
    ) -> Advice {
        let _ = (outcome, result);
        Advice::Stop
    }

    /// Returns whether a result, with the `advice` of [`advise`](Self::advise), proves that the
    /// upstream has not acted on the request. By default the advice decides.
    fn proof(&self, advice: Advice, result: Result<&Self::Response<()>, &Self::Error>) -> Proof {
        let _ = result;
        advice.into()
    }

    /// Returns the caller's deadline for a request. Called by layers of gates, whose requests may
    /// be of any type, for a request that has to wait. By default none is known.
    fn deadline_of(&self, request: &dyn Any) -> Option<Deadline> {
        let _ = request;
        None
    }

    /// Writes the remaining time into a request that has waited and is about to be sent. `deadline`
    /// is what [`deadline_of`](Self::deadline_of) returned when the request arrived.
    fn tell_deadline(&self, request: &mut dyn Any, deadline: Deadline) {
        let _ = (request, deadline);
    }

    /// Returns the outcome of a result that has been passed on, and that
    /// [`classify`](Classify::classify) called `classified`.
    ///
    /// Called by layers that learn from a result and hold no permit: retry, hedge, fallback and
    /// timeout. A protocol that boxes errors can read in the box what it could not in the service's
    /// own type. By default the outcome is `classified`.
    fn judge(
        &self,
        classified: Outcome,
        result: Result<&Self::Response<()>, &Self::Error>,
    ) -> Outcome {
        let _ = result;
        classified
    }

    /// Keeps an attempt's error while its retry runs. It becomes the result if an inner layer
    /// rejects that retry. Only the retry layer calls it. By default nothing is kept, and the
    /// rejection is the result.
    fn keep(&self, error: Self::Error) -> Option<Self::Error> {
        let _ = error;
        None
    }

    /// Returns the status of a response, for [observers of
    /// retries](crate::retry::RetryBuilder::on_retry). By default responses have none.
    fn status(&self, response: &Self::Response<()>) -> Option<u16> {
        let _ = response;
        None
    }

    /// Returns an error as a [`dyn Error`](Error), for the same use. By default, `None`.
    fn error<'a>(&self, error: &'a Self::Error) -> Option<&'a (dyn Error + 'static)> {
        let _ = error;
        None
    }

    /// Describes a failed result in words, for the [`PrimaryError`] of a fallback, and for the same
    /// use.
    fn describe(&self, result: Result<&Self::Response<()>, &Self::Error>) -> String {
        let words = match result {
            Ok(_) => "a response that means a failure",
            Err(_) => "an error",
        };
        words.into()
    }

    /// Adds to a response which of several backends made it. By default there is no place for it.
    fn note_spill<T: Settle>(&self, response: &mut Self::Response<T>, report: SpillReport) {
        let _ = (response, report);
    }

    /// Adds to a fallback's response the failure that it replaces. By default there is no place for
    /// it.
    fn note_primary<T: Settle>(&self, response: &mut Self::Response<T>, primary: PrimaryError) {
        let _ = (response, primary);
    }

    /// Adds to a response that audited gates would have rejected its call. By default there is no
    /// place for it.
    #[cfg(feature = "http")]
    fn note_would_reject<T: Settle>(&self, response: &mut Self::Response<T>, mark: WouldReject) {
        let _ = (response, mark);
    }
}

/// Sends a request again. Only the retry layer needs it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot tell which `{Req}` may be sent again",
    note = "for `Plain`, say so: `.protocol(Plain::new().idempotent())`, or `.idempotent_when(|request: &_| ..)`; the request must be `Clone`",
    note = "for an HTTP client, use `.protocol(http::Client::new())`; the body must be `Body<Data = Bytes> + Unpin`; there is no retry on a server"
)]
pub trait Replay<Req> {
    /// The type that the inner service is called with.
    type Request;
    /// The part of a request that is kept to replay it.
    type Snapshot;

    /// Prepares a request to be sent once. Nothing is kept.
    fn once(&self, request: Req) -> Self::Request;

    /// Splits a request into what is sent first, and what is kept if it may be sent again.
    fn prepare(&self, request: Req) -> (Self::Request, Option<Kept<Self::Snapshot>>);

    /// Replays the request, if that is possible by now.
    fn replay(&self, snapshot: &Self::Snapshot) -> Option<Self::Request>;

    /// Returns the head of a kept request, for [observers of
    /// retries](crate::retry::RetryBuilder::on_retry). By default, `None`.
    fn head<'a>(&self, snapshot: &'a Self::Snapshot) -> Option<&'a dyn Any> {
        let _ = snapshot;
        None
    }

    /// Writes the number of the attempt, from 1, into a request. By default nothing is written.
    #[inline]
    fn number(&self, request: &mut Self::Request, attempt: u32) {
        let _ = (request, attempt);
    }

    /// Starts a change of a replayed request that takes time. Gates see the request only after the
    /// change. By default nothing is changed.
    #[inline]
    fn changing(&self, request: &mut Self::Request, attempt: u32) -> Option<Changing> {
        let _ = (request, attempt);
        None
    }

    /// Applies the result of [`changing`](Self::changing) to the request.
    fn change(&self, request: &mut Self::Request, to: Box<dyn Any + Send>) {
        let _ = (request, to);
    }

    /// Returns whether a replayed request may be changed before it is sent, so that its key may be
    /// another one. By default it is not changed.
    #[inline]
    fn may_change(&self) -> bool {
        false
    }

    /// Writes the remaining time into a request that is about to be sent. By default nothing is
    /// written.
    #[inline]
    fn tell_remaining(&self, request: &mut Self::Request) {
        let _ = request;
    }

    /// Returns the deadline of the request, if it has one. By default it has none.
    #[inline]
    fn deadline(&self, snapshot: &Self::Snapshot) -> Option<Deadline> {
        let _ = snapshot;
        None
    }

    /// Returns whether anything is known to have taken the last attempt's request in order to send
    /// it. Called after a result that reports an unsent request. If true, that is another request,
    /// which the service made from this one, for example to follow a redirect. By default `false`.
    #[inline]
    fn was_taken(&self, snapshot: &Self::Snapshot) -> bool {
        let _ = snapshot;
        false
    }

    /// Returns whether a result can ever prove that a request was not processed ([`Sent`]). Such a
    /// call is kept even while the budget is empty, because its retry is free. By default `false`.
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
    /// If true, sending it twice has the effect of sending it once. If false, it is sent again only
    /// when it has certainly not been sent.
    pub idempotent: bool,
    /// The largest number of attempts of this request, the first included, if the request sets one.
    pub attempts: Option<u32>,
}

/// The advice of a protocol to a retry after a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Returns the result.
    Stop,
    /// Returns the result, because the upstream wants no further attempt. Unlike with
    /// [`Stop`](Self::Stop), concurrent attempts may still do better.
    DoNotRetry,
    /// Returns the result, which is not the upstream's: an inner layer rejected the attempt before
    /// it was sent. Made from the [`Rejected`] in the result.
    Rejected {
        /// The reason.
        kind: RejectedKind,
        /// Time until the same attempt could be admitted, if known.
        after: Option<Duration>,
    },
    /// Another attempt may do better.
    Retry {
        /// Tells whether this attempt may have reached the upstream.
        sent: Sent,
        /// The earliest time of the next attempt that the upstream wants.
        after: Option<Duration>,
    },
    /// Another attempt may do better, after exactly the time that the upstream asks for.
    RetryExactly {
        /// Tells whether this attempt may have reached the upstream.
        sent: Sent,
        /// The time of the next attempt that the upstream wants, without jitter.
        after: Duration,
    },
}

impl Proof {
    /// Returns whether the proof holds. `was_taken` tells whether something has taken the request
    /// ([`Replay::was_taken`]).
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
    /// Treats an unsent request, and an inner layer's rejection, as a proof if nothing has taken
    /// the request.
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

/// The proof in a result that the upstream has not acted on the request. With it, any request may
/// be sent again, or to another upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// No proof.
    None,
    /// The result reports an unsent request. That is this request, unless something has taken it
    /// and sent another one instead ([`Replay::was_taken`]).
    NotSent,
    /// The upstream has received the request, and reports that it did not process it.
    Unprocessed,
}

/// The possible effect of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The upstream has not seen the request: any request may be sent again.
    No,
    /// The upstream may have acted on the request: only idempotent requests may be sent again.
    Maybe,
}
