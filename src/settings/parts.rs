//! What the settings of both stacks have in common.

use crate::{
    ConfigError,
    rate_limit::Rate,
    settings::{
        BulkheadSettings, HumanRate, OrOff, RateLimitSettings, fixed::same, rate_limit::burst,
    },
};

/// The rate of a stack, by itself or with all its settings.
pub(super) type RateOf<'a> = (
    Option<HumanRate>,
    Option<u32>,
    &'a Option<RateLimitSettings>,
);

/// Rate and burst, if they are others than before.
pub(super) fn rate_from(
    before: RateOf<'_>,
    after: RateOf<'_>,
) -> Result<Option<(Rate, u32)>, ConfigError> {
    match (before, after) {
        (before, after) if before == after => Ok(None),
        ((Some(_), _, None), (Some(HumanRate(rate)), set, None)) => {
            Ok(Some((rate, burst(rate, set))))
        }
        ((None, None, Some(before)), (None, None, Some(after))) => after.quota_from(before),
        (before, after) => {
            same("stack", "rate", &before.0, &after.0)?;
            same("stack", "burst", &before.1, &after.1)?;
            same("stack", "rate_limit", before.2, after.2).map(|()| None)
        }
    }
}

/// What bounds a stack's calls in flight, by itself or with all its settings.
pub(super) type CallsOf<'a> = (OrOff<usize>, &'a Option<BulkheadSettings>);

/// The bound, if it is another than before.
pub(super) fn calls_from(
    before: CallsOf<'_>,
    after: CallsOf<'_>,
) -> Result<Option<usize>, ConfigError> {
    match (before, after) {
        (before, after) if before == after => Ok(None),
        ((OrOff::On(_), None), (OrOff::On(calls), None)) => Ok(Some(calls)),
        ((_, Some(before)), (_, Some(after))) => after.limit_from(before),
        (before, after) => {
            same("stack", "max_in_flight", &before.0, &after.0)?;
            same("stack", "bulkhead", before.1, after.1).map(|()| None)
        }
    }
}
