//! The handle of one limit.

use std::{sync::Arc, time::Duration};

#[cfg(any(feature = "http", feature = "serde"))]
use crate::rate_limit::Manners;
use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    keyed::partitions::Hold,
    rate_limit::{FleetHandle, LimitGate, Snapshot, state::State},
};

/// Watches and changes a rate limit from outside. Cheap to clone; it keeps the limit's state alive,
/// not its services.
#[derive(Debug, Clone)]
pub struct RateLimitHandle {
    state: Arc<State>,
    /// `None` if it came with a list of all keys.
    _hold: Option<Hold>,
}

impl LimitGate {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle::new(self.state.clone())
    }
}

impl RateLimitHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        let hold = Some(state.hold.clone());
        Self { state, _hold: hold }
    }

    /// One that does not keep the key's place.
    pub(super) fn watching(state: Arc<State>) -> Self {
        Self { state, _hold: None }
    }

    /// The limit as it is now. Costs a clock read and a few loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.bucket().snapshot()
    }

    /// Returns the handle of the part that asks a store, if the limit is shared by a
    /// [fleet](crate::rate_limit::RateLimitBuilder::fleet).
    #[must_use]
    pub fn fleet(&self) -> Option<FleetHandle> {
        self.state.fleet()
    }

    /// The rate and the burst in force.
    #[cfg(feature = "http")]
    pub(crate) fn rate(&self) -> (Rate, u32) {
        self.state.rate()
    }

    /// Changes rate and burst in one step, and tells the waiters. What was used stays used: of a
    /// token bucket and a leaky bucket as the *time* that it takes to pay off, so a limit of one a
    /// day that is used up is used up until tomorrow, whatever its new rate. To start anew,
    /// [`reset`](Self::reset) it too.
    ///
    /// # Errors
    /// What `build` would reject, and what this kind of limit cannot change: see its `update`.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<Changed, ConfigError> {
        self.state.update(rate, burst)
    }

    /// Switches the limit on or off. Off, it lets all calls through, counts none of them, and is
    /// told to no caller. Calls that wait for it go at once. What was used before is paid off
    /// meanwhile, as always: to start anew, [`reset`](Self::reset) it too.
    ///
    /// ```
    /// use tower_keep::rate_limit::{Rate, RateLimitLayer};
    ///
    /// let handle = RateLimitLayer::builder(Rate::per_second(10)).build()?.handle();
    /// let changed = handle.set_enabled(false);
    /// assert_eq!(changed.to_string(), "rate_limit: `enabled` from true to false");
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    pub fn set_enabled(&self, enabled: bool) -> Changed {
        self.state.set_enabled(enabled)
    }

    /// Returns whether the limit is on: as it was built, or as it was
    /// [switched](Self::set_enabled) since.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.state.is_enabled()
    }

    /// What calls wait by now, and what is told of the limit and honored.
    #[cfg(feature = "http")]
    pub(crate) fn manners(&self) -> Manners {
        self.state.switch.manners()
    }

    /// Switches it on or off, with another rate and other manners if these are given.
    #[cfg(any(feature = "http", feature = "serde"))]
    pub(crate) fn change(
        &self,
        quota: Option<(Rate, u32)>,
        manners: Option<Manners>,
        on: bool,
    ) -> Result<Changed, ConfigError> {
        self.state.change(quota, manners, on)
    }

    /// Forgets what was used, what is owed and until when the limit is closed, whatever its kind.
    /// Of a limit made of several, all of them.
    pub fn reset(&self) {
        self.state.bucket().reset();
    }

    /// Corrects what a call has taken to what it turns out to have used: at the end of a body, say.
    pub fn settle(&self, taken: u32, used: u32) {
        self.state.bucket().settle(taken, used);
    }

    /// Admits nothing for so long: the upstream has said so by other means than a response.
    pub fn close_for(&self, duration: Duration) {
        self.state.bucket().close_for(duration);
    }

    /// Takes units that were used past the layer: by a batch, or by another process.
    pub fn charge(&self, units: u32) {
        self.state.bucket().charge(units);
    }

    /// Gives back units that were taken and not used.
    pub fn refund(&self, units: u32) {
        self.state.bucket().refund(units);
    }
}
