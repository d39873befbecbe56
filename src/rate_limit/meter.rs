//! What a call costs, and what it turns out to have cost.

use std::fmt;

use crate::{
    Classify, Outcome, Rejected,
    protocol::{Advice, Protocol, Quota, Settle},
};

/// A protocol, and how calls are metered: what a [`RateLimitLayer`](super::RateLimitLayer) is generic over. The builder's
/// [`protocol`](super::RateLimitBuilder::protocol), [`cost`](super::RateLimitBuilder::cost) and
/// [`settle`](super::RateLimitBuilder::settle) set its parts.
///
/// One parameter holds all three, so that the layer's type stays as short as that of the others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metered<P, C = One, A = AsEstimated> {
    pub(super) protocol: P,
    pub(super) cost: C,
    pub(super) actual: A,
}

/// Each call costs 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct One;

/// Each call costs what was taken for it, whatever its response.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsEstimated;

/// Each call costs what a closure `Fn(&Req) -> u32` says.
#[derive(Clone, Copy)]
pub struct ByRequest<F>(pub(super) F);

/// Each call has cost what a closure `Fn(&Res) -> u32` says.
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

impl<F, Res> Actual<Res> for ByResponse<F>
where
    F: Fn(&Res) -> u32 + Clone,
{
    fn actual(&self, response: &Res) -> Option<u32> {
        Some((self.0)(response))
    }
}

impl<P, C, A, Req> Cost<Req> for Metered<P, C, A>
where
    P: Clone,
    C: Cost<Req>,
    A: Clone,
{
    fn cost(&self, request: &Req) -> u32 {
        self.cost.cost(request)
    }
}

impl<P, C, A, Res> Actual<Res> for Metered<P, C, A>
where
    P: Clone,
    C: Clone,
    A: Actual<Res>,
{
    fn actual(&self, response: &Res) -> Option<u32> {
        self.actual.actual(response)
    }

    fn asks(&self) -> bool {
        self.actual.asks()
    }
}

impl<P, C, A, Res, Err> Classify<Res, Err> for Metered<P, C, A>
where
    P: Classify<Res, Err>,
{
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        self.protocol.classify(result)
    }
}

impl<P, C, A, Res, Err> Protocol<Res, Err> for Metered<P, C, A>
where
    P: Protocol<Res, Err>,
    C: Clone,
    A: Clone,
{
    type Response<T: Settle> = P::Response<T>;
    type Error = P::Error;

    fn settle<T: Settle>(&self, result: Result<Res, Err>, permit: T) -> Result<P::Response<T>, P::Error> {
        self.protocol.settle(result, permit)
    }

    fn reject<T: Settle>(&self, rejected: Rejected) -> Result<P::Response<T>, P::Error> {
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
