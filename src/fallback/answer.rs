//! The answers in place of a call that has failed.

use std::{
    fmt,
    future::{Future, Ready, ready},
};

use crate::protocol::Proof;

/// A trait for what is kept of a request, so that another answer can replace its own.
pub trait Keep<Req, P> {
    /// The inner service's request.
    type Request;
    /// The part of a request that is kept.
    type Kept;

    /// Passes a request on and keeps nothing of it.
    fn pass(&self, protocol: &P, request: Req) -> Self::Request;

    /// Passes a request on and keeps of it what the answer needs.
    fn keep(&self, protocol: &P, request: Req) -> (Self::Request, Self::Kept);
}

/// The inner service's request.
pub(super) type Passed<F, Req, P> = <F as Keep<Req, P>>::Request;

/// A trait for an answer in place of a call that has failed.
///
/// Implemented by the two closures of [`FallbackLayer::builder`](super::FallbackLayer::builder), a
/// [value](super::FallbackLayer::value) and a [backup](super::FallbackLayer::service).
#[diagnostic::on_unimplemented(
    message = "`{Self}` gives no answer of type `Result<{Res}, {Err}>` to a request of type `{Req}`",
    note = "the answers of a fallback have the types of the service's: its response, and the error that its protocol makes of its error"
)]
pub trait Answer<Req, P, Res, Err>: Keep<Req, P> {
    /// The future of the answer.
    type Future: Future<Output = Result<Res, Err>>;

    /// Returns whether there can be an answer in place of this failure. If not, the failure is the
    /// result. `proof` tells whether the failure proves that the upstream has not acted on the
    /// request.
    fn accepts(
        &self,
        protocol: &P,
        kept: &Self::Kept,
        proof: Proof,
        failure: Result<&Res, &Err>,
    ) -> bool {
        let _ = (protocol, kept, proof, failure);
        true
    }

    /// Answers, or passes the failure on.
    fn answer(&self, protocol: &P, kept: Self::Kept, failure: Result<Res, Err>) -> Self::Future;
}

/// A pair of closures: the first keeps, the second answers.
#[derive(Clone, Copy)]
pub struct With<K, A> {
    pub(super) keep: K,
    pub(super) answer: A,
}

/// A fixed response.
#[derive(Debug, Clone, Copy)]
pub struct Value<V>(pub(super) V);

/// An answer for failures that a predicate accepts.
#[derive(Clone, Copy)]
pub struct OnlyWhen<F, W> {
    pub(super) fallback: F,
    pub(super) when: W,
}

impl<Req, P, K, A, T> Keep<Req, P> for With<K, A>
where
    K: Fn(&Req) -> T,
{
    type Request = Req;
    type Kept = T;

    fn pass(&self, _: &P, request: Req) -> Req {
        request
    }

    fn keep(&self, _: &P, request: Req) -> (Req, T) {
        let kept = (self.keep)(&request);
        (request, kept)
    }
}

impl<Req, P, Res, Err, K, A, T, F> Answer<Req, P, Res, Err> for With<K, A>
where
    K: Fn(&Req) -> T,
    A: Fn(T, Result<Res, Err>) -> F,
    F: Future<Output = Result<Res, Err>>,
{
    type Future = F;

    fn answer(&self, _: &P, kept: T, failure: Result<Res, Err>) -> F {
        (self.answer)(kept, failure)
    }
}

impl<Req, P, V> Keep<Req, P> for Value<V> {
    type Request = Req;
    type Kept = ();

    fn pass(&self, _: &P, request: Req) -> Req {
        request
    }

    fn keep(&self, _: &P, request: Req) -> (Req, ()) {
        (request, ())
    }
}

impl<Req, P, V: Clone, Err> Answer<Req, P, V, Err> for Value<V> {
    type Future = Ready<Result<V, Err>>;

    fn answer(&self, _: &P, (): (), _: Result<V, Err>) -> Self::Future {
        ready(Ok(self.0.clone()))
    }
}

impl<Req, P, F: Keep<Req, P>, W> Keep<Req, P> for OnlyWhen<F, W> {
    type Request = F::Request;
    type Kept = F::Kept;

    fn pass(&self, protocol: &P, request: Req) -> F::Request {
        self.fallback.pass(protocol, request)
    }

    fn keep(&self, protocol: &P, request: Req) -> (F::Request, F::Kept) {
        self.fallback.keep(protocol, request)
    }
}

impl<Req, P, Res, Err, F, W> Answer<Req, P, Res, Err> for OnlyWhen<F, W>
where
    F: Answer<Req, P, Res, Err>,
    W: Fn(Result<&Res, &Err>) -> bool,
{
    type Future = F::Future;

    fn accepts(
        &self,
        protocol: &P,
        kept: &Self::Kept,
        proof: Proof,
        failure: Result<&Res, &Err>,
    ) -> bool {
        (self.when)(failure) && self.fallback.accepts(protocol, kept, proof, failure)
    }

    fn answer(&self, protocol: &P, kept: Self::Kept, failure: Result<Res, Err>) -> F::Future {
        self.fallback.answer(protocol, kept, failure)
    }
}

impl<K, A> fmt::Debug for With<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("With").finish_non_exhaustive()
    }
}

impl<F: fmt::Debug, W> fmt::Debug for OnlyWhen<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnlyWhen")
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}
