//! What a call costs, how long it may wait, and what it turns out to have cost.

use std::{fmt, hash::RandomState};

use tokio::time::Instant;

use crate::{
    Classify, Outcome, Rejected,
    protocol::{Advice, Protocol, Quota, Settle},
    rate_limit::keyed::Key,
};

/// A protocol, and how calls are metered: what a [`RateLimitLayer`](super::RateLimitLayer) is
/// generic over. The builder's [`protocol`](super::RateLimitBuilder::protocol),
/// [`cost`](super::RateLimitBuilder::cost), [`settle`](super::RateLimitBuilder::settle),
/// [`deadline`](super::RateLimitBuilder::deadline) and
/// [`keyed_by`](super::RateLimitBuilder::keyed_by) set its parts.
///
/// One parameter holds them all, so that the layer's type stays as short as that of the others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metered<P, C = One, A = AsEstimated, D = Patient, K = Unkeyed> {
    pub(super) protocol: P,
    pub(super) cost: C,
    pub(super) actual: A,
    pub(super) deadline: D,
    pub(super) key: K,
}

/// Each call costs 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct One;

/// Each call costs what was taken for it, whatever its response.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsEstimated;

/// No call has a deadline of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patient;

/// All calls share one limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unkeyed;

/// What a closure says of a request.
#[derive(Clone, Copy)]
pub struct ByRequest<F>(pub(super) F);

/// What a closure says of a response.
#[derive(Clone, Copy)]
pub struct ByResponse<F>(pub(super) F);

/// What a request costs before it is sent.
pub trait Cost<Req>: Clone {
    /// The units to take. 0 is free.
    fn cost(&self, request: &Req) -> u32;
}

/// What a call has cost, once there is a response.
pub trait Actual<Res>: Clone {
    /// The units used, or `None` if the estimate stands.
    fn actual(&self, response: &Res) -> Option<u32>;

    /// Whether there is anything to ask, which makes a call keep the limit's state until its end.
    fn asks(&self) -> bool {
        true
    }
}

/// By when a request must have had its turn.
pub trait Deadline<Req>: Clone {
    /// That moment, if it has one.
    fn deadline(&self, request: &Req) -> Option<Instant>;
}

impl<Req> Cost<Req> for One {
    fn cost(&self, _: &Req) -> u32 {
        1
    }
}

impl<F, Req> Cost<Req> for ByRequest<F>
where
    F: Fn(&Req) -> u32 + Clone,
{
    fn cost(&self, request: &Req) -> u32 {
        (self.0)(request)
    }
}

impl<Res> Actual<Res> for AsEstimated {
    fn actual(&self, _: &Res) -> Option<u32> {
        None
    }

    fn asks(&self) -> bool {
        false
    }
}

impl<F, T, Res> Actual<Res> for ByResponse<F>
where
    F: Fn(&Res) -> T + Clone,
    T: Into<Option<u32>>,
{
    fn actual(&self, response: &Res) -> Option<u32> {
        (self.0)(response).into()
    }
}

impl<Req> Deadline<Req> for Patient {
    fn deadline(&self, _: &Req) -> Option<Instant> {
        None
    }
}

impl<F, Req> Deadline<Req> for ByRequest<F>
where
    F: Fn(&Req) -> Option<Instant> + Clone,
{
    fn deadline(&self, request: &Req) -> Option<Instant> {
        (self.0)(request)
    }
}

impl<Req> Key<Req> for Unkeyed {
    fn hash(&self, _: &Req, _: &RandomState) -> Option<u64> {
        None
    }
}

/// All that a rate limit asks of a request.
pub trait Meter<Req>: Clone {
    /// What is kept of it until the call ends: how its response is read.
    type Bill: Clone;

    /// That.
    fn bill(&self) -> Self::Bill;

    /// See [`Cost`].
    fn cost(&self, request: &Req) -> u32;

    /// See [`Deadline`].
    fn deadline(&self, request: &Req) -> Option<Instant>;

    /// What finds the request's key.
    fn key(&self) -> &impl Key<Req>;
}

impl<P, C, A, D, K, Req> Meter<Req> for Metered<P, C, A, D, K>
where
    P: Clone,
    C: Cost<Req>,
    A: Clone,
    D: Deadline<Req>,
    K: Key<Req>,
{
    // Without what is asked of requests: a closure may own an `Arc`, whose count all threads would
    // write with each call.
    type Bill = Metered<P, One, A>;

    fn bill(&self) -> Self::Bill {
        Metered {
            protocol: self.protocol.clone(),
            cost: One,
            actual: self.actual.clone(),
            deadline: Patient,
            key: Unkeyed,
        }
    }

    fn cost(&self, request: &Req) -> u32 {
        self.cost.cost(request)
    }

    fn deadline(&self, request: &Req) -> Option<Instant> {
        self.deadline.deadline(request)
    }

    fn key(&self) -> &impl Key<Req> {
        &self.key
    }
}

impl<P, A, Res> Actual<Res> for Metered<P, One, A>
where
    P: Clone,
    A: Actual<Res>,
{
    fn actual(&self, response: &Res) -> Option<u32> {
        self.actual.actual(response)
    }

    fn asks(&self) -> bool {
        self.actual.asks()
    }
}

impl<P, A, Res, Err> Classify<Res, Err> for Metered<P, One, A>
where
    P: Classify<Res, Err>,
{
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        self.protocol.classify(result)
    }
}

impl<P, A, Res, Err> Protocol<Res, Err> for Metered<P, One, A>
where
    P: Protocol<Res, Err>,
    A: Clone,
{
    type Response<T: Settle> = P::Response<T>;
    type Error = P::Error;

    fn settle<T: Settle>(
        &self,
        result: Result<Res, Err>,
        permit: T,
    ) -> Result<P::Response<T>, P::Error> {
        self.protocol.settle(result, permit)
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<P::Response<T>, P::Error> {
        self.protocol.reject(rejected)
    }

    fn not_ready(&self, error: Err) -> P::Error {
        self.protocol.not_ready(error)
    }

    fn advertise<T: Settle>(&self, response: P::Response<T>, quota: &Quota) -> P::Response<T> {
        self.protocol.advertise(response, quota)
    }

    fn advise(&self, outcome: Outcome, result: Result<&P::Response<()>, &P::Error>) -> Advice {
        self.protocol.advise(outcome, result)
    }
}

impl<F> fmt::Debug for ByRequest<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRequest")
    }
}

impl<F> fmt::Debug for ByResponse<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByResponse")
    }
}
