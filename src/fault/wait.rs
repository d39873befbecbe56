//! Waits that end with the run at the latest.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::{
    ambient::clock,
    fault::state::{CurrentRun, State},
    sync::Held,
};

/// A wait of a call, or of a body.
pub(super) struct Wait(Pin<Box<dyn Future<Output = Waited> + Send + Sync>>);

/// The end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The time is over.
    Over,
    /// The run ended first.
    Released,
}

impl Wait {
    /// Waits for a time.
    pub(super) fn lasting(state: Held<State>, run: CurrentRun, delay: Duration) -> Self {
        let until = clock::later(clock::moment(), delay);
        Self(Box::pin(wait(state, run, Some(until))))
    }

    /// Waits until the run ends.
    pub(super) fn for_end(state: Held<State>, run: CurrentRun) -> Self {
        Self(Box::pin(wait(state, run, None)))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Waited> {
        self.0.as_mut().poll(cx)
    }
}

async fn wait(state: Held<State>, run: CurrentRun, until: Option<Instant>) -> Waited {
    let own = until.filter(|until| *until < run.ends);
    let mut timer = pin!(sleep_until(own.unwrap_or(run.ends)));
    loop {
        let mut ended = pin!(state.ended());
        // From here on the end of the run wakes it.
        ended.as_mut().enable();
        if !state.is_on(run) {
            return Waited::Released;
        }
        let waited = poll_fn(|cx| {
            if ended.as_mut().poll(cx).is_ready() {
                // The notification may be of the end of an earlier run.
                return Poll::Ready(None);
            }
            timer.as_mut().poll(cx).map(|()| {
                Some(match own {
                    Some(_) => Waited::Over,
                    None => Waited::Released,
                })
            })
        });
        if let Some(waited) = waited.await {
            return waited;
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
    }
}
