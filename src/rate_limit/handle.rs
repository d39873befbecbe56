//! The handle of one limit.

use std::{sync::Arc, time::Duration};

#[cfg(any(feature = "http", feature = "serde"))]
use crate::rate_limit::Manners;
use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    keyed::partitions::Hold,
    rate_limit::{FleetHandle, LimitGate, RateLimitConfig, Snapshot, state::State},
};

/// Watches and changes a rate limit from outside. Cheap to clone. Keeps the limit's state alive,
/// not its services.
#[derive(Debug, Clone)]
pub struct RateLimitHandle {
    state: Arc<State>,
    /// `None` for a handle from a list of all keys.
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

    /// Creates a handle that does not protect its key from eviction.
    pub(super) fn watching(state: Arc<State>) -> Self {
        Self { state, _hold: None }
    }

    /// Returns the current state of the limit. Costs a clock read and a few loads.
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

    /// Returns the rate and the burst in force.
    #[cfg(feature = "http")]
    pub(crate) fn rate(&self) -> (Rate, u32) {
        self.state.rate()
    }

    /// Returns the settings in force, to change and pass to [`update`](Self::update).
    #[must_use]
    pub fn config(&self) -> RateLimitConfig {
        self.state.config()
    }

    /// Changes the settings, and notifies the waiters. Rate and burst change in one step. Units
    /// already used stay used. A token bucket and a leaky bucket keep them as the *time* that it
    /// takes to pay them off. For example, a limit of one a day that is used up stays used up until
    /// tomorrow, whatever its new rate. To start fresh, call [`reset`](Self::reset) too.
    ///
    /// # Errors
    /// The errors of `build`, and changes that this kind of limit does not support: see its
    /// `update`. Then nothing changes.
    pub fn update(&self, config: RateLimitConfig) -> Result<Changed, ConfigError> {
        self.state.update(config)
    }

    /// Changes rate and burst in one step, and keeps the other settings: see
    /// [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn set_rate(&self, rate: Rate, burst: u32) -> Result<Changed, ConfigError> {
        self.state.set_rate(rate, burst)
    }

    /// Switches the limit on or off. While off, it lets all calls through, counts none of them, and
    /// is not advertised. Its waiters are admitted at once. Earlier use is paid off meanwhile as
    /// usual. To start fresh, call [`reset`](Self::reset) too.
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

    /// Returns whether the limit is on: as built, or as last [switched](Self::set_enabled).
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.state.is_enabled()
    }

    /// Returns the current settings of waits, advertising and hints.
    #[cfg(feature = "http")]
    pub(crate) fn manners(&self) -> Manners {
        self.state.switch.manners()
    }

    /// Switches the limit on or off, and changes its rate and its other settings if these are
    /// given.
    #[cfg(any(feature = "http", feature = "serde"))]
    pub(crate) fn change(
        &self,
        quota: Option<(Rate, u32)>,
        manners: Option<Manners>,
        on: bool,
    ) -> Result<Changed, ConfigError> {
        self.state.change(quota, manners, on)
    }

    /// Forgets used units, debts and penalties, whatever the kind of the limit. For a combined
    /// limit, resets every part.
    pub fn reset(&self) {
        self.state.bucket().reset();
    }

    /// Corrects the units that a call has taken to those that it has used, for example at the end
    /// of a body.
    pub fn settle(&self, taken: u32, used: u32) {
        self.state.bucket().settle(taken, used);
    }

    /// Admits nothing for this duration. Use it if the upstream asks for that by other means than a
    /// response.
    pub fn close_for(&self, duration: Duration) {
        self.state.bucket().close_for(duration);
    }

    /// Takes units that were used outside the layer, for example by a batch or another process.
    pub fn charge(&self, units: u32) {
        self.state.bucket().charge(units);
    }

    /// Gives back units that were taken and not used.
    pub fn refund(&self, units: u32) {
        self.state.bucket().refund(units);
    }
}
