//! Changes of the rate of all keys.

use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    observe::trace,
    rate_limit::{changed::changed, keyed::Table, waited::Waited},
};

impl Table {
    pub(super) fn update(&self, rate: Rate, burst: u32) -> Result<Changed, ConfigError> {
        let before = self.rate();
        let updated = self.buckets.update(rate, burst);
        updated.map_err(|error| error.of("rate_limit", self.settings.name))?;
        let changed = changed(before, (rate, burst));
        trace::updated((self.tally.layer, self.tally.name), &changed);
        for (hash, queue) in self.queues.all() {
            queue.notify(&Waited::of(&self.of(hash)), || self.clock.now());
        }
        Ok(changed)
    }
}
