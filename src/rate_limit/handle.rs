//! What the layer, its services and its handles share.

use crate::{
    Rejected, RejectedKind,
    algorithm::{Denied, TokenBucket},
    striped::Striped,
    time::Clock,
};

/// Watches a rate limit from outside. Cheap to clone; it keeps the limit's state alive, not its services.
#[derive(Debug)]
pub struct RateLimitHandle {
    state: Striped<State>,
}

/// A rate limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How many calls would be admitted at once.
    pub available: u32,
    /// The most that ever are.
    pub burst: u32,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) bucket: TokenBucket,
    pub(super) clock: Clock,
    pub(super) enabled: bool,
    pub(super) name: Option<&'static str>,
}

impl RateLimitHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The limit as it is now. Costs a clock read and a load.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let bucket = &self.state.bucket;
        Snapshot { available: bucket.available(self.state.clock.now()), burst: bucket.burst() }
    }
}

impl Clone for RateLimitHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.anchored())
    }
}

impl State {
    #[inline]
    pub(super) fn acquire(&self) -> Result<(), Rejected> {
        if !self.enabled {
            return Ok(());
        }
        self.bucket.acquire(1, self.clock.now()).map_err(|denied| {
            let (kind, retry_after) = match denied {
                Denied::Until { wait } => (RejectedKind::RateLimited, Some(wait)),
                Denied::CostAboveBurst => (RejectedKind::CostTooHigh, None),
            };
            Rejected { kind, layer: "rate_limit", name: self.name, retry_after }
        })
    }
}
