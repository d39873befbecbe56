//! A drill's one reading of time: since its start.
#![allow(
    clippy::disallowed_methods,
    reason = "a program that measures has to look at the clock, once and here"
)]

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// When a drill started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) async fn sleep_until(self, at: Duration) {
        sleep_until(self.0 + at).await;
    }
}
