//! Waiting until the circuit lets calls through again, for `.backpressure()`.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::timeout;

use crate::{circuit_breaker::handle::State, striped::Striped};

/// A wait that a readied service goes through. Boxed: it exists only while the circuit refuses.
pub(super) struct Wait(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Wait {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self(Box::pin(until_admitting(state)))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
    }
}

/// No wake-up is lost: the wait is registered first, and the circuit looked at then. What changes
/// before the look is seen by it; what changes after it wakes all that are registered.
async fn until_admitting(state: Striped<State>) {
    loop {
        let changed = state.changed();
        if !state.refuses() {
            return;
        }
        let Some(wait) = state.until_change() else {
            changed.await;
            continue;
        };
        if timeout(wait, changed).await.is_err() {
            // Everybody may be waiting, so that no call would notice that the probes are overdue.
            state.expire();
        }
    }
}
