//! The handle.

use std::sync::{Arc, LazyLock};

use crate::{
    Changed, ConfigError,
    budget::Purses,
    observe::trace,
    retry::{
        RetryConfig,
        event::Hook,
        state::{Fixed, Snapshot, State},
    },
};

/// Watches and changes a retry from outside. Cheap to clone; it keeps the retry's state alive, not
/// its services.
#[derive(Debug, Clone)]
pub struct RetryHandle {
    state: Arc<State>,
    /// That of a call that has no layer; else it is the state's.
    own: Option<RetryConfig>,
}

impl RetryHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, own: None }
    }

    /// For one call without a layer: with a config of its own, and without a budget. All of them
    /// are counted together, and nobody reads that.
    pub(crate) fn of_call(config: RetryConfig) -> Self {
        static STATE: LazyLock<Arc<State>> = LazyLock::new(|| {
            let fixed = Fixed {
                enabled: true,
                retry_rejected: false,
                name: None,
            };
            Arc::new(State::new(
                RetryConfig::default(),
                Purses::unlimited(),
                fixed,
                (None, Hook::default()),
            ))
        });
        Self {
            state: STATE.clone(),
            own: Some(config),
        }
    }

    #[inline]
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The config of a call through the layer.
    pub(super) fn config_of_call(&self) -> RetryConfig {
        self.own.unwrap_or_else(|| self.state.config())
    }

    /// The retry as it is now. Costs a load for each of its numbers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// How often, and after how long, calls are sent again.
    #[must_use]
    pub fn config(&self) -> RetryConfig {
        self.state.config()
    }

    /// Changes that, for attempts that fail from now on: start from [`config`](Self::config). A
    /// call that began under a config of one attempt is not retried. A retry that was built as not
    /// enabled stays so.
    ///
    /// # Errors
    /// No attempts.
    pub fn update(&self, config: RetryConfig) -> Result<Changed, ConfigError> {
        self.check(config)?;
        let changed = config.since(&self.state.set_config(config));
        trace::updated(("retry", self.state.fixed().name), &changed);
        Ok(changed)
    }

    /// Returns whether [`update`](Self::update) would accept it.
    pub(crate) fn check(&self, config: RetryConfig) -> Result<(), ConfigError> {
        config.check(self.state.fixed().name).map(drop)
    }
}
