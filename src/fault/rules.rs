//! The faults of a layer as code: conditions and closures.

use crate::fault::{condition::Condition, effect::Answers, fate::Draw};

/// The code of one fault.
#[derive(Debug, Clone)]
pub struct Rule<E, W> {
    pub(super) effect: E,
    pub(super) condition: W,
}

/// The code of all faults of a layer: `()`, or the faults before and one more.
pub trait Rules<Req, Res, Err> {
    /// The number of faults.
    const COUNT: usize;

    /// Returns whether a fault, by its index and its name, applies to a request.
    fn holds(&self, fault: usize, name: &str, request: &Req, draw: &mut Draw) -> bool;

    /// Returns the answer of a fault with a closure.
    fn answer(&self, fault: usize, request: &Req) -> Option<Result<Res, Err>>;
}

impl<Req, Res, Err> Rules<Req, Res, Err> for () {
    const COUNT: usize = 0;

    fn holds(&self, _: usize, _: &str, _: &Req, _: &mut Draw) -> bool {
        false
    }

    fn answer(&self, _: usize, _: &Req) -> Option<Result<Res, Err>> {
        None
    }
}

impl<Req, Res, Err, L, E, W> Rules<Req, Res, Err> for (L, Rule<E, W>)
where
    L: Rules<Req, Res, Err>,
    E: Answers<Req, Res, Err>,
    W: Condition<Req>,
{
    const COUNT: usize = L::COUNT + 1;

    fn holds(&self, fault: usize, name: &str, request: &Req, draw: &mut Draw) -> bool {
        let (before, rule) = self;
        if fault == L::COUNT {
            rule.condition.holds(name, request, draw)
        } else {
            before.holds(fault, name, request, draw)
        }
    }

    fn answer(&self, fault: usize, request: &Req) -> Option<Result<Res, Err>> {
        let (before, rule) = self;
        if fault == L::COUNT {
            rule.effect.answer(request)
        } else {
            before.answer(fault, request)
        }
    }
}
