//! A call's hold on its gates.

use std::{any::Any, fmt, mem, time::Duration};

use crate::{
    Outcome,
    ambient::clock::Now,
    gate::{Admit, CallEvent, Completion, Gate, LimitedCall, Read},
    protocol::{Hint, Quota, Settle},
    sync::Held,
};

/// A call's hold on its gates, from the moment it is sent until it is settled. If it is dropped
/// unsettled, the call was abandoned.
///
/// A permit is two words for a circuit breaker, one for most others. Each half of a pair is one
/// word that is stored and loaded by itself. Storing a permit word by word and then moving it with
/// wide loads has to wait until the stores drain, and that costs more than a shared write.
pub struct Permit<G: Gate> {
    /// `None` once settled, or if nothing is owed.
    gate: Option<Held<G>>,
    pass: G::Pass,
}

impl<G: Gate> Permit<G> {
    #[inline(always)]
    pub(super) fn sent(gate: &Held<G>, mut pass: G::Pass, now: &Now) -> Self {
        gate.event(&mut pass, CallEvent::Sent, now);
        Self {
            gate: gate.owes(&pass).then(|| gate.clone()),
            pass,
        }
    }

    /// Moves the contents to a new permit.
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

    /// Returns the advertised limits that count the call.
    #[inline(always)]
    pub(super) fn quotas<Req>(&self) -> Vec<Quota>
    where
        G: Admit<Req>,
    {
        let Some(gate) = &self.gate else {
            return Vec::new();
        };
        quotas(&**gate, LimitedCall::Sent(&self.pass), &Now::unread())
    }

    #[inline(always)]
    fn event(&mut self, event: CallEvent) {
        if let Some(gate) = &self.gate {
            gate.event(&mut self.pass, event, &Now::unread());
        }
    }

    #[inline(always)]
    fn end(&mut self, how: Completion) {
        if let Some(gate) = self.gate.take() {
            gate.end(mem::take(&mut self.pass), how, &Now::unread());
        }
    }

    /// Ends a call that is dropped. Most permits are dropped settled, and that is inlined.
    #[inline(never)]
    fn abandon(&mut self) {
        self.end(Completion::Dropped);
    }

    /// Runs a part of a call. If it panics, the call has failed.
    ///
    /// A check of `thread::panicking()` in `Drop` would be wrong twice. Tokio catches a task's
    /// panic before it drops the task, and a call that is dropped while its caller panics has not
    /// failed.
    #[inline(always)]
    pub(super) fn guarded<R>(&mut self, run: impl FnOnce() -> R) -> R {
        struct OnUnwind<'a, G: Gate>(&'a mut Permit<G>);

        impl<G: Gate> Drop for OnUnwind<'_, G> {
            fn drop(&mut self) {
                self.0.end(Completion::Answered(Outcome::Failure, None));
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
        let (gate, pass) = (self.gate.take(), mem::take(&mut self.pass));
        // Nothing is left to drop, and that is not checked once more.
        mem::forget(self);
        if let Some(gate) = gate {
            let end = Completion::Answered(outcome, retry_after);
            gate.end(pass, end, &Now::unread());
        }
    }

    fn cut_short(mut self, late: bool) {
        self.end(Completion::CutShort { late });
    }

    fn honor(&mut self, retry_after: Duration) {
        self.event(CallEvent::Hint(retry_after));
    }

    fn told(&mut self, hint: &Hint) {
        if let Some(gate) = &self.gate {
            gate.told(&self.pass, hint, &Now::unread());
        }
    }

    fn answered(&mut self) {
        self.event(CallEvent::Head);
    }

    fn upgraded(mut self, outcome: Outcome) -> Option<Box<dyn Any + Send>> {
        self.event(CallEvent::Upgraded(outcome));
        let gate = self.gate.take_if(|gate| gate.owes(&self.pass))?;
        let permit = Self {
            gate: Some(gate),
            pass: mem::take(&mut self.pass),
        };
        Some(Box::new(Upgraded(permit)))
    }
}

/// Returns the advertised limits that count the call. Allocates nothing if there are none.
#[inline(always)]
pub(super) fn quotas<Req, G: Admit<Req>>(
    gate: &G,
    call: LimitedCall<'_, Req, G::Pass, G::Asked>,
    now: &Now,
) -> Vec<Quota> {
    let mut quotas = Vec::new();
    gate.limits(call, &mut |limit| limit.quotas(now, &mut quotas));
    quotas
}

/// A permit held by an upgraded connection. The call was a success, however its connection closes.
struct Upgraded<G: Gate>(Permit<G>);

impl<G: Gate> Drop for Upgraded<G> {
    fn drop(&mut self) {
        self.0.end(Completion::Answered(Outcome::Success, None));
    }
}

impl<G: Gate> Drop for Permit<G> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.gate.is_some() {
            self.abandon();
        }
    }
}

impl<G: Gate> fmt::Debug for Permit<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("settled", &self.gate.is_none())
            .finish()
    }
}
