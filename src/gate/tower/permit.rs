//! What a call holds.

use std::{any::Any, fmt, mem, time::Duration};

use crate::{
    Outcome,
    ambient::clock::Now,
    gate::{End, Gate, Read},
    protocol::{Quota, Settle},
    sync::Held,
};

/// What a call holds of its gates, from the moment it is sent until it is settled. Dropped
/// unsettled, it was abandoned.
///
/// Two words for a circuit breaker, one for most others. A word in each half of a pair is stored
/// and loaded by itself: a permit that is moved with wide loads right after it was stored word by
/// word waits for the stores to drain, which costs more than a shared write.
pub struct Permit<G: Gate> {
    /// `None` once settled, and if nothing is owed.
    gate: Option<Held<G>>,
    pass: G::Pass,
}

impl<G: Gate> Permit<G> {
    #[inline(always)]
    pub(super) fn new(gate: &Held<G>, pass: G::Pass) -> Self {
        Self {
            gate: gate.owes(&pass).then(|| gate.clone()),
            pass,
        }
    }

    /// Moves what it holds elsewhere.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Self {
        Self {
            gate: self.gate.take(),
            pass: mem::take(&mut self.pass),
        }
    }

    #[inline(always)]
    pub(super) fn read<Res>(&mut self, response: &Res)
    where
        G: Read<Res>,
    {
        if let Some(gate) = &self.gate {
            gate.read(&mut self.pass, response, &Now::unread());
        }
    }

    #[inline(always)]
    pub(super) fn advertises(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.advertises())
    }

    pub(super) fn quotas(&self) -> Vec<Quota> {
        let mut quotas = Vec::new();
        if let Some(gate) = &self.gate {
            gate.quotas(&self.pass, &Now::unread(), &mut quotas);
        }
        quotas
    }

    #[inline(always)]
    fn end(&mut self, end: End) {
        if let Some(gate) = self.gate.take() {
            gate.end(mem::take(&mut self.pass), end, &Now::unread());
        }
    }

    /// Runs a piece of a call. If it panics, the call has failed.
    ///
    /// A check of `thread::panicking()` in `Drop` would not do: tokio catches a task's panic before
    /// it drops the task, and a call that is dropped while its caller panics has not failed.
    #[inline(always)]
    pub(super) fn guarded<R>(&mut self, run: impl FnOnce() -> R) -> R {
        struct OnUnwind<'a, G: Gate>(&'a mut Permit<G>);

        impl<G: Gate> Drop for OnUnwind<'_, G> {
            fn drop(&mut self) {
                self.0.end(End::Answered(Outcome::Failure, None));
            }
        }

        let guard = OnUnwind(self);
        let output = run();
        mem::forget(guard);
        output
    }
}

impl<G: Gate + Send + Sync + 'static> Settle for Permit<G> {
    #[inline(always)]
    fn settle(mut self, outcome: Outcome, retry_after: Option<Duration>) {
        self.end(End::Answered(outcome, retry_after));
    }

    fn cut_short(mut self, late: bool) {
        self.end(End::CutShort { late });
    }

    fn honor(&self, retry_after: Duration) {
        if let Some(gate) = &self.gate {
            gate.honor(&self.pass, retry_after, &Now::unread());
        }
    }

    fn answered(&mut self) {
        if let Some(gate) = &self.gate {
            gate.answered(&mut self.pass, &Now::unread());
        }
    }

    fn upgraded(mut self, outcome: Outcome) -> Option<Box<dyn Any + Send>> {
        let gate = self.gate.take()?;
        let pass = gate.upgraded(mem::take(&mut self.pass), outcome, &Now::unread());
        let owes = gate.owes(&pass);
        let permit = Self {
            gate: owes.then_some(gate),
            pass,
        };
        owes.then(|| Box::new(Upgraded(permit)) as Box<dyn Any + Send>)
    }
}

/// What an upgraded call still holds. Its connection may close in any way, and the call was a
/// success.
struct Upgraded<G: Gate>(Permit<G>);

impl<G: Gate> Drop for Upgraded<G> {
    fn drop(&mut self) {
        self.0.end(End::Answered(Outcome::Success, None));
    }
}

impl<G: Gate> Drop for Permit<G> {
    #[inline(always)]
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}

impl<G: Gate> fmt::Debug for Permit<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("settled", &self.gate.is_none())
            .finish()
    }
}
