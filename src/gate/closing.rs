//! The parts of a gate that close to all calls, seen together.

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

/// What a gate lets through. The first part that is not open decides, as it does if each has a
/// layer of its own.
#[inline(always)]
pub(super) fn access<G: Gate>(gate: &G, now: &Now) -> Access {
    let closed = gate.closing(&mut |part| match part.access(now) {
        Access::Open => ControlFlow::Continue(()),
        closed => ControlFlow::Break(closed),
    });
    match closed {
        ControlFlow::Continue(()) => Access::Open,
        ControlFlow::Break(closed) => closed,
    }
}

/// A wait for the next change of any part; `None` if none closes.
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

/// How long until time alone ends backpressure.
pub(super) fn until_change<G: Gate>(gate: &G, now: &Now) -> Option<Duration> {
    let mut first: Option<Duration> = None;
    each(gate, |part| {
        let time = part.until_change(now);
        first = first.into_iter().chain(time).min();
    });
    first
}

/// Ends what time has ended.
pub(super) fn expire<G: Gate>(gate: &G, now: &Now) {
    each(gate, |part| part.expire(now));
}

/// Polls a wait for a change, if there is one; never ready without.
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
