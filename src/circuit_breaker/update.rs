//! Changes of a circuit's settings.

use std::sync::{MutexGuard, PoisonError, atomic::Ordering};

use crate::{
    Changed, ConfigError,
    algorithm::BreakerConfig,
    circuit_breaker::{
        changes::{in_force, since},
        state::State,
    },
    config::Edition,
    observe::trace,
};

impl State {
    pub(super) fn config(&self) -> BreakerConfig {
        self.lock_config().settings
    }

    /// Takes settings for this circuit alone.
    pub(super) fn update(&self, config: BreakerConfig) -> Result<Changed, ConfigError> {
        let changed = self.change(self.lock_config(), config, true)?;
        trace::updated((self.tally.layer, self.settings.name), &changed);
        Ok(changed)
    }

    /// Takes the settings of all circuits, unless it has later ones.
    pub(super) fn take(&self, config: Edition<BreakerConfig>) -> Result<Changed, ConfigError> {
        let mut current = self.lock_config();
        if !config.overtakes(&mut current.number) {
            return Ok(Changed::default());
        }
        self.change(current, config.settings, false)
    }

    fn change(
        &self,
        mut current: MutexGuard<'_, Edition<BreakerConfig>>,
        config: BreakerConfig,
        own: bool,
    ) -> Result<Changed, ConfigError> {
        let updated = self.breaker.update(&in_force(&config));
        let restarted = updated.map_err(|error| self.of(error))?;
        let changed = since(&current.settings, &config);
        current.settings = config;
        self.has_own_config.store(own, Ordering::Relaxed);
        drop(current);
        match restarted {
            Some(_) => self.publish(restarted),
            // More probes may now be allowed in flight than before.
            None => self.wake(),
        }
        Ok(changed)
    }

    /// Returns an error if an update would reject these settings.
    pub(super) fn check(&self, config: &BreakerConfig) -> Result<(), ConfigError> {
        self.breaker.check(config).map_err(|error| self.of(error))
    }

    fn lock_config(&self) -> MutexGuard<'_, Edition<BreakerConfig>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, error: ConfigError) -> ConfigError {
        error.of(self.tally.layer, self.settings.name)
    }
}
