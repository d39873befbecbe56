//! The costs of a call by quota, and the units that it has used.

use std::fmt;

use tokio::time::Instant;

use crate::gate::DeadlineOf;

/// One unit of each quota, the default cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnitCosts;

/// Costs from a closure `Fn(&Req) -> [u64; N]` of the request.
#[derive(Clone, Copy)]
pub struct CostsOf<F>(pub(super) F);

/// No settlement: the cost of a call is what was taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unsettled;

/// Used units from a closure `Fn(&Res) -> impl Into<Option<[u64; N]>>` of the response.
#[derive(Clone, Copy)]
pub struct UsesOf<F>(pub(super) F);

/// Finds the costs of a request.
#[diagnostic::on_unimplemented(
    message = "these costs are not those of `{N}` dimensions, or not of a request of `{Req}`",
    note = "`.cost(|request: &{Req}| [..])` gives one number for each dimension, in their order"
)]
pub trait Costs<Req, const N: usize> {
    /// Returns the cost for each dimension, in their order.
    fn costs(&self, request: &Req) -> [u64; N];

    /// Returns the deadline of a request, if there is a closure for it.
    #[inline]
    fn deadline(&self, _: &Req) -> Option<Instant> {
        None
    }
}

/// Costs that `.cost(..)` can replace, beside a deadline, so that settings come in any order.
pub trait ReplaceCosts {
    /// The type with these costs.
    type Replaced<F>;

    /// Replaces the costs.
    fn replaced<F>(self, costs: CostsOf<F>) -> Self::Replaced<F>;
}

impl ReplaceCosts for UnitCosts {
    type Replaced<F> = CostsOf<F>;

    fn replaced<F>(self, costs: CostsOf<F>) -> CostsOf<F> {
        costs
    }
}

impl<G> ReplaceCosts for CostsOf<G> {
    type Replaced<F> = CostsOf<F>;

    fn replaced<F>(self, costs: CostsOf<F>) -> CostsOf<F> {
        costs
    }
}

impl<C: ReplaceCosts, D> ReplaceCosts for (C, DeadlineOf<D>) {
    type Replaced<F> = (C::Replaced<F>, DeadlineOf<D>);

    fn replaced<F>(self, costs: CostsOf<F>) -> Self::Replaced<F> {
        (self.0.replaced(costs), self.1)
    }
}

/// Finds the units that a response has used.
#[diagnostic::on_unimplemented(
    message = "these units are not those of `{N}` dimensions, or not of a response of `{Res}`",
    note = "`.settle(|response: &{Res}| [..])` gives one number for each dimension, or an `Option` of them"
)]
pub trait Uses<Res, const N: usize> {
    /// Returns the units used of each dimension, in their order, or `None` to keep what was taken.
    fn uses(&self, response: &Res) -> Option<[u64; N]>;
}

/// Tells at compile time whether responses are read.
pub trait Settles {
    /// If true, responses are read.
    const SETTLES: bool;
}

impl<Req, const N: usize> Costs<Req, N> for UnitCosts {
    fn costs(&self, _: &Req) -> [u64; N] {
        [1; N]
    }
}

impl<F: Fn(&Req) -> [u64; N], Req, const N: usize> Costs<Req, N> for CostsOf<F> {
    #[inline]
    fn costs(&self, request: &Req) -> [u64; N] {
        (self.0)(request)
    }
}

/// Costs beside a deadline.
impl<C, F, Req, const N: usize> Costs<Req, N> for (C, DeadlineOf<F>)
where
    C: Costs<Req, N>,
    F: Fn(&Req) -> Option<Instant>,
{
    #[inline]
    fn costs(&self, request: &Req) -> [u64; N] {
        self.0.costs(request)
    }

    #[inline]
    fn deadline(&self, request: &Req) -> Option<Instant> {
        (self.1.0)(request)
    }
}

impl Settles for Unsettled {
    const SETTLES: bool = false;
}

impl<F> Settles for UsesOf<F> {
    const SETTLES: bool = true;
}

impl<Res, const N: usize> Uses<Res, N> for Unsettled {
    #[inline]
    fn uses(&self, _: &Res) -> Option<[u64; N]> {
        None
    }
}

impl<F, T, Res, const N: usize> Uses<Res, N> for UsesOf<F>
where
    F: Fn(&Res) -> T,
    T: Into<Option<[u64; N]>>,
{
    #[inline]
    fn uses(&self, response: &Res) -> Option<[u64; N]> {
        (self.0)(response).into()
    }
}

impl<F> fmt::Debug for CostsOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CostsOf")
    }
}

impl<F> fmt::Debug for UsesOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsesOf")
    }
}
