//! Functions over all the parts of a gate that can reject every call.

use std::{
    convert::Infallible,
    future::poll_fn,
    ops::ControlFlow,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    ambient::clock::Now,
    gate::{Access, ClosedWatch, Closes, Gate},
};

/// Returns what a gate lets through. The first part that is not open decides, just as if each part
/// had a layer of its own.
#[inline(always)]
pub(super) fn access<G: Gate>(gate: &G, now: &Now) -> Access {
    if gate.is_open() {
        return Access::Open;
    }
    let closed = gate.closing(&mut |part| match part.access(now) {
        Access::Open => ControlFlow::Continue(()),
        closed => ControlFlow::Break(closed),
    });
    match closed {
        ControlFlow::Continue(()) => Access::Open,
        ControlFlow::Break(closed) => closed,
    }
}

/// Returns a wait for the next change of any part. `None` if no part can reject every call.
pub(super) fn changed<G: Gate>(gate: &G) -> Option<ClosedWatch> {
    let mut watches = Vec::new();
    each(gate, |part| watches.push(part.changed()));
    if watches.len() < 2 {
        return watches.pop();
    }
    Some(Box::pin(poll_fn(move |cx| {
        let mut watches = watches.iter_mut();
        if watches.any(|watch| watch.as_mut().poll(cx).is_ready()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })))
}

/// Returns how long until time alone ends backpressure.
pub(super) fn until_change<G: Gate>(gate: &G, now: &Now) -> Option<Duration> {
    let mut first: Option<Duration> = None;
    each(gate, |part| {
        let time = part.until_change(now);
        first = first.into_iter().chain(time).min();
    });
    first
}

/// Makes the changes that are overdue.
pub(super) fn expire<G: Gate>(gate: &G, now: &Now) {
    each(gate, |part| part.expire(now));
}

/// Polls a wait for a change. Pending if there is none.
pub(super) fn poll_changed(watch: &mut Option<ClosedWatch>, cx: &mut Context<'_>) -> Poll<()> {
    watch
        .as_mut()
        .map_or(Poll::Pending, |watch| watch.as_mut().poll(cx))
}

fn each<G: Gate>(gate: &G, mut visit: impl FnMut(&dyn Closes)) {
    let ControlFlow::<Infallible>::Continue(()) = gate.closing(&mut |part| {
        visit(part);
        ControlFlow::Continue(())
    });
}
