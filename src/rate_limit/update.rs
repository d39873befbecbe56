//! Changes of a limit's settings, and its switch.

use std::sync::atomic::Ordering;

use crate::{
    Changed, ConfigError,
    observe::trace,
    rate_limit::{RateLimitConfig, changed::changed, state::State},
};

impl State {
    /// Returns the settings in force.
    pub(super) fn config(&self) -> RateLimitConfig {
        RateLimitConfig::new(self.rate(), self.switch.manners())
    }

    pub(super) fn update(&self, config: RateLimitConfig) -> Result<Changed, ConfigError> {
        let of = |error: ConfigError| error.of("rate_limit", self.settings.name);
        let (before, quota) = (self.config(), (config.rate, config.burst));
        let manners = config.manners();
        manners.check(self.settings.deadlines).map_err(of)?;
        // Not every kind of limit can change its rate.
        if quota != (before.rate, before.burst) {
            self.limit
                .get()
                .update(config.rate, config.burst)
                .map_err(of)?;
        }
        let changed = changed((before.rate, before.burst), quota).and(self.switch.behave(manners));
        self.changed.store(true, Ordering::Relaxed);
        trace::updated((self.tally.layer, self.tally.name), &changed);
        self.bucket().notify();
        Ok(changed)
    }

    /// Switches the limit on or off, and keeps its rate.
    pub(super) fn set_enabled(&self, on: bool) -> Changed {
        let was_on = self.switch.set(on);
        self.changed.store(true, Ordering::Relaxed);
        let changed = Changed::default().note(self.tally.layer, "enabled", (was_on, on));
        trace::updated((self.tally.layer, self.tally.name), &changed);
        self.bucket().notify();
        changed
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.switch.is_on()
    }
}
