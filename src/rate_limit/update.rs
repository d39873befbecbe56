//! Changes of a limit's settings, and its switch.

use std::sync::atomic::Ordering;

use crate::{
    Changed, ConfigError,
    algorithm::Rate,
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
        Ok(self.tell(changed))
    }

    /// Changes rate and burst, and nothing that another thread may be changing.
    pub(super) fn set_rate(&self, rate: Rate, burst: u32) -> Result<Changed, ConfigError> {
        let before = self.rate();
        let updated = self.limit.get().update(rate, burst);
        updated.map_err(|error| error.of("rate_limit", self.settings.name))?;
        Ok(self.tell(changed(before, (rate, burst))))
    }

    /// Records a change, and lets the waiters check again.
    pub(super) fn tell(&self, changed: Changed) -> Changed {
        self.changed.store(true, Ordering::Relaxed);
        trace::updated((self.tally.layer, self.tally.name), &changed);
        self.bucket().notify();
        changed
    }

    /// Switches the limit on or off, and keeps its rate.
    pub(super) fn set_enabled(&self, on: bool) -> Changed {
        let was_on = self.switch.set(on);
        self.tell(Changed::default().note(self.tally.layer, "enabled", (was_on, on)))
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.switch.is_on()
    }
}
