//! The trait of a layer's hold on a call.

use std::{any::Any, time::Duration};

use crate::{Outcome, Rejected, call::CutShort, protocol::Hint};

/// A layer's hold on a call, from its admission to its end. If it is dropped unsettled, the call
/// was abandoned.
pub trait Settle {
    /// Ends the call. `retry_after` is the upstream's own hint.
    fn settle(self, outcome: Outcome, retry_after: Option<Duration>);

    /// Ends the call at its caller's own deadline, as reported by the rejection. By default that is
    /// a failure if a good response would have arrived by then. Otherwise it says nothing.
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

    /// Records the upstream's hint before the end of the call. By default it is not honored.
    fn honor(&mut self, retry_after: Duration) {
        let _ = retry_after;
    }

    /// Records the upstream's report of its own limits, from any response. Called before the
    /// response settles the call. By default it is ignored.
    fn told(&mut self, hint: &Hint) {
        let _ = hint;
    }

    /// Records the head of the response. The call continues to the end of the body, and time from
    /// now on depends on the reader as much as on the upstream. By default it is ignored.
    fn answered(&mut self) {}

    /// Continues the call over an upgraded connection, after the head of the response. Returns a
    /// value to keep until that connection closes, and then to drop. By default the call ends.
    fn upgraded(self, outcome: Outcome) -> Option<Box<dyn Any + Send>>
    where
        Self: Sized,
    {
        self.settle(outcome, None);
        None
    }

    /// Returns whether it uses the outcome. If not, a protocol need not classify the result: its
    /// classifier may be user code, and a layer that holds no permit has called it. By default it
    /// does.
    fn reads_outcome(&self) -> bool {
        true
    }

    /// Returns whether it uses the upstream's hints. If not, a protocol need not read them: to look
    /// for fields costs more than the rest of a response. By default it does.
    fn reads_hints(&self) -> bool {
        true
    }
}

/// Settles a permit by a result of `outcome`. `rejected` is the rejection in it, if any.
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

    fn reads_outcome(&self) -> bool {
        false
    }

    fn reads_hints(&self) -> bool {
        false
    }
}
