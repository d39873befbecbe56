//! Waiting in `poll_ready` for what a gate decides, not the inner service.

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
    sync::Held,
};

/// What is known of an inner service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It was not asked, or has been called since.
    Unasked,
    /// It is not asked before the next call, since the last one was rejected.
    Spared,
    /// It was asked, and is not ready yet: it may hold a place in a queue.
    Asked,
    /// It is ready for one call.
    Ready,
}

/// What a service waits for, beside its inner service. Boxed, because it is rare.
#[derive(Default)]
pub(super) struct Wait(Option<Box<Waits>>);

#[derive(Default)]
struct Waits {
    /// For the end of backpressure.
    admitting: Option<WaitForAccess>,
    /// For the gates to close while the inner service is not ready.
    changed: Option<ClosedWatch>,
}

/// Whether the gates reject all calls once they hold them back no longer.
type WaitForAccess = Pin<Box<dyn Future<Output = bool> + Send + Sync>>;

impl Wait {
    /// Returns whether the gates reject all calls now; under backpressure, ready once they do not.
    #[inline(always)]
    pub(super) fn poll_closed<G>(&mut self, gate: &Held<G>, cx: &mut Context<'_>) -> Poll<bool>
    where
        G: Gate + Send + Sync + 'static,
    {
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

    /// The inner service is not ready. Ready when the gates have changed, so that they may reject
    /// what waits for it: a caller before a dead upstream is to fail fast with the others.
    #[cold]
    pub(super) fn poll_change<G: Gate>(&mut self, gate: &G, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.0.get_or_insert_default();
        if waits.changed.is_none() {
            waits.changed = changed(gate);
            // It may have changed before that.
            if access(gate, &Now::unread()) != Access::Open {
                return Poll::Ready(());
            }
        }
        ready!(poll_changed(&mut waits.changed, cx));
        waits.changed = None;
        Poll::Ready(())
    }

    /// Nothing is waited for any more.
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

/// No wake-up is lost: the wait is registered first, and the gates are looked at then. What changes
/// before the look is seen by it; what changes after it wakes all that are registered.
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
            // Everybody may be waiting, so that no call would notice that the time is over.
            expire(&*gate, &Now::unread());
        }
    }
}
