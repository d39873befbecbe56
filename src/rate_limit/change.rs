//! Changes of a limit by a stack or a file, which also switch it on or off.

use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    rate_limit::{changed::OrOff, config::Manners, state::State},
};

impl State {
    /// Changes what is given, and switches the limit on or off. The waiters of a limit that is
    /// switched off are admitted.
    pub(super) fn change(
        &self,
        quota: Option<(Rate, u32)>,
        manners: Option<Manners>,
        on: bool,
    ) -> Result<Changed, ConfigError> {
        let of = |error: ConfigError| error.of("rate_limit", self.settings.name);
        let limit = self.limit.get();
        let before = (limit.rate(), limit.burst());
        let checked = manners.map_or(Ok(()), |manners| manners.check(self.settings.deadlines));
        checked.map_err(of)?;
        if let Some((rate, burst)) = quota {
            limit.update(rate, burst).map_err(of)?;
        }
        let behaved = manners.map(|manners| self.switch.behave(manners));
        let was_on = self.switch.set(on);
        let after = on.then(|| quota.unwrap_or_else(|| (limit.rate(), limit.burst())));
        let changed = switched(was_on.then_some(before), after);
        Ok(self.tell(changed.and(behaved.filter(|_| on).unwrap_or_default())))
    }
}

/// Reports the changes of an update to a limit that is off before or after it.
fn switched(before: Option<(Rate, u32)>, after: Option<(Rate, u32)>) -> Changed {
    let parts = |quota: Option<(Rate, u32)>| {
        let (rate, burst) = (quota.map(|quota| quota.0), quota.map(|quota| quota.1));
        (OrOff(rate), OrOff(burst))
    };
    let (before, after) = (parts(before), parts(after));
    Changed::default()
        .note("rate_limit", "rate", (before.0, after.0))
        .note("rate_limit", "burst", (before.1, after.1))
}
