//! Waits in `poll_ready` for the gates, not for the inner service.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::timeout;

use crate::{
    ambient::clock::Now,
    gate::{
        Access, ClosedWatch, Gate,
        closing::{access, changed, expire, poll_changed, until_change},
    },
    sync::{Held, Striped},
};

/// The known readiness of an inner service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// The service was not polled, or has been called since.
    Unasked,
    /// The service is not polled before the next call, since the last one was rejected.
    Spared,
    /// The service was polled and is not ready yet. It may hold a place in a queue.
    Asked,
    /// The service is ready for one call.
    Ready,
}

/// A service's waits, beside that for its inner service. Boxed, because they are rare.
#[derive(Default)]
pub(super) struct Wait(Option<Box<Waits>>);

#[derive(Default)]
struct Waits {
    /// Waits for the end of backpressure.
    admitting: Option<WaitForAccess>,
    /// Waits for the gates to close while the inner service is not ready.
    changed: Option<ClosedWatch>,
}

/// A wait until backpressure ends. Its output: whether the gates then reject all calls.
type WaitForAccess = Pin<Box<dyn Future<Output = bool> + Send + Sync>>;

impl Wait {
    /// Returns whether the gates reject all calls now. Under backpressure, pending until they
    /// withhold calls no longer.
    #[inline(always)]
    pub(super) fn poll_closed<G>(&mut self, gate: &Striped<G>, cx: &mut Context<'_>) -> Poll<bool>
    where
        G: Gate + Send + Sync + 'static,
    {
        if !G::CLOSES {
            return Poll::Ready(false);
        }
        let gate = gate.here();
        match access(&**gate, &Now::unread()) {
            Access::Open => Poll::Ready(false),
            Access::Rejecting => Poll::Ready(true),
            Access::Withheld => self.poll_withheld(gate, cx),
        }
    }

    #[cold]
    fn poll_withheld<G>(&mut self, gate: &Held<G>, cx: &mut Context<'_>) -> Poll<bool>
    where
        G: Gate + Send + Sync + 'static,
    {
        let waits = self.0.get_or_insert_default();
        let wait = || -> WaitForAccess { Box::pin(while_withheld(gate.clone())) };
        let wait = waits.admitting.get_or_insert_with(wait);
        let rejects = ready!(wait.as_mut().poll(cx));
        waits.admitting = None;
        Poll::Ready(rejects)
    }

    /// Waits for a change of the gates while the inner service is not ready. They may then reject
    /// the calls that wait for it: a caller in front of a dead upstream must fail fast like the
    /// others.
    #[cold]
    pub(super) fn poll_change<G: Gate>(&mut self, gate: &G, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.0.get_or_insert_default();
        if waits.changed.is_none() {
            waits.changed = changed(gate);
            // The gates may have changed before the watch was registered.
            if access(gate, &Now::unread()) != Access::Open {
                return Poll::Ready(());
            }
        }
        ready!(poll_changed(&mut waits.changed, cx));
        waits.changed = None;
        Poll::Ready(())
    }

    /// Ends all waits.
    #[inline(always)]
    pub(super) fn forget(&mut self) {
        if self.0.is_some() {
            self.0 = None;
        }
    }
}

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wait")
    }
}

/// Waits until the gates withhold calls no longer. Returns whether they reject them.
///
/// No wake-up is lost: the watch is registered before the gates are read. A change before the read
/// is seen by it, and a change after it wakes every registered watch.
async fn while_withheld<G: Gate>(gate: Held<G>) -> bool {
    loop {
        let changed = changed(&*gate);
        match access(&*gate, &Now::unread()) {
            Access::Open => return false,
            Access::Rejecting => return true,
            Access::Withheld => {}
        }
        let Some(changed) = changed else { return false };
        let Some(wait) = until_change(&*gate, &Now::unread()) else {
            changed.await;
            continue;
        };
        if timeout(wait, changed).await.is_err() {
            // Perhaps every caller waits, so that no call notices that the time is over.
            expire(&*gate, &Now::unread());
        }
    }
}
