//! Waiting in `poll_ready` for what a gate decides, not the inner service.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::timeout;

use crate::{
    ambient::clock::Now,
    gate::{Changed, Gate, traits::poll_changed},
    sync::Held,
};

/// What is known of an inner service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It was not asked, or has been called since.
    Unasked,
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
    /// For the gates to admit again, under backpressure.
    admitting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    /// For the gates to close while the inner service is not ready.
    changed: Option<Changed>,
}

impl Wait {
    /// Whether the gates reject all calls now; under backpressure, ready once they do not.
    #[inline(always)]
    pub(super) fn poll_closed<G>(&mut self, gate: &Held<G>, cx: &mut Context<'_>) -> Poll<bool>
    where
        G: Gate + Send + Sync + 'static,
    {
        if !gate.is_closed_to_all(&Now::unread()) {
            return Poll::Ready(false);
        }
        if !gate.backpressure() {
            return Poll::Ready(true);
        }
        self.poll_admitting(gate, cx)
    }

    #[cold]
    fn poll_admitting<G>(&mut self, gate: &Held<G>, cx: &mut Context<'_>) -> Poll<bool>
    where
        G: Gate + Send + Sync + 'static,
    {
        let waits = self.0.get_or_insert_default();
        let wait = || -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
            Box::pin(until_admitting(gate.clone()))
        };
        ready!(waits.admitting.get_or_insert_with(wait).as_mut().poll(cx));
        waits.admitting = None;
        Poll::Ready(false)
    }

    /// The inner service is not ready. Ready when the gates have changed, so that they may reject
    /// what waits for it: a caller before a dead upstream is to fail fast with the others.
    #[cold]
    pub(super) fn poll_change<G: Gate>(&mut self, gate: &G, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.0.get_or_insert_default();
        if waits.changed.is_none() {
            waits.changed = gate.changed();
            // It may have changed before that.
            if gate.is_closed_to_all(&Now::unread()) {
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
async fn until_admitting<G: Gate>(gate: Held<G>) {
    loop {
        let changed = gate.changed();
        if !gate.is_closed_to_all(&Now::unread()) {
            return;
        }
        let Some(changed) = changed else { return };
        let Some(wait) = gate.until_change(&Now::unread()) else {
            changed.await;
            continue;
        };
        if timeout(wait, changed).await.is_err() {
            // Everybody may be waiting, so that no call would notice that the time is over.
            gate.expire(&Now::unread());
        }
    }
}
