//! Changes of the rate of all keys.

use crate::{
    Changed, ConfigError,
    observe::trace,
    rate_limit::{RateLimitConfig, changed::changed, keyed::Table, queued_limit::QueuedLimit},
};

impl Table {
    /// Returns the settings of each key's limit.
    pub(super) fn config(&self) -> RateLimitConfig {
        RateLimitConfig::new(self.rate(), self.settings.manners())
    }

    pub(super) fn update(&self, config: RateLimitConfig) -> Result<Changed, ConfigError> {
        let (before, RateLimitConfig { rate, burst, .. }) = (self.rate(), config);
        let of = |error: ConfigError| error.of("rate_limit", self.settings.name);
        config.only_rate(&self.config()).map_err(of)?;
        let updated = self.buckets.update(rate, burst);
        updated.map_err(of)?;
        let changed = changed(before, (rate, burst));
        trace::updated((self.tally.layer, self.tally.name), &changed);
        for (hash, queue) in self.queues.all() {
            queue.notify(&QueuedLimit::of(&self.of(hash)), || self.clock.now());
        }
        Ok(changed)
    }
}
