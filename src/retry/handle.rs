//! The handle of a retry.

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

/// A handle to watch and change a retry. Cheap to clone. It keeps the retry's state alive, not its
/// services.
#[derive(Debug, Clone)]
pub struct RetryHandle {
    state: Arc<State>,
    /// The config of a call that has no layer. If `None`, the state's config applies.
    own: Option<RetryConfig>,
}

impl RetryHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, own: None }
    }

    /// Makes the handle of one call without a layer: it has its own config and no budget. All such
    /// calls share their counts, which nothing reads.
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

    /// Returns the config of a call through the layer.
    pub(super) fn config_of_call(&self) -> RetryConfig {
        self.own.unwrap_or_else(|| self.state.config())
    }

    /// Returns the retry's numbers now. Costs a load for each of them.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// Returns how often, and after how long, calls are sent again.
    #[must_use]
    pub fn config(&self) -> RetryConfig {
        self.state.config()
    }

    /// Changes the config for attempts that fail from now on: start from [`config`](Self::config).
    /// A call that began under a config of one attempt is not retried. A retry that was built as
    /// not enabled stays so.
    ///
    /// # Errors
    /// `attempts` is 0.
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
