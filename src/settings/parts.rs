//! Settings that both stacks have.

use crate::{
    Changed, ConfigError,
    rate_limit::Rate,
    settings::{
        BulkheadSettings, HumanRate, OrOff, RateLimitSettings,
        fixed::{same, same_part},
        rate_limit::burst,
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
            same_part("stack", "rate_limit", before.2, after.2).map(|()| None)
        }
    }
}

/// The bound on a stack's calls in flight, by itself or with all its settings.
pub(super) type CallsOf<'a> = (Option<OrOff<usize>>, &'a Option<BulkheadSettings>);

/// # Errors
/// Both of them: one would be dropped in silence.
pub(super) fn checked_calls(calls: CallsOf<'_>) -> Result<CallsOf<'_>, ConfigError> {
    match calls {
        (Some(set), Some(_)) => {
            let fix = "leave it: `bulkhead` has a limit of its own";
            Err(ConfigError::new("max_in_flight", set, fix).of("stack", None))
        }
        calls => Ok(calls),
    }
}

/// Names the limit as the file does: where it has a whole bulkhead, by that one's field.
pub(super) fn in_own_words(
    updated: Result<Changed, ConfigError>,
    bulkhead: &Option<BulkheadSettings>,
) -> Result<Changed, ConfigError> {
    let words = ("max_in_flight", "limit");
    if bulkhead.is_none() {
        return updated;
    }
    match updated {
        Ok(changed) => Ok(changed.renamed(words.0, words.1)),
        Err(error) => Err(error.renamed(words.0, words.1)),
    }
}

/// Returns whether one of the parts that may leave fields out has this one.
pub(super) fn partial_in(parts: &[(&str, bool)], path: &str) -> bool {
    let mut partial = parts.iter().filter(|(_, partial)| *partial);
    partial.any(|(part, _)| path.starts_with(part))
}

/// The bound, if it is another than before.
pub(super) fn calls_from(
    before: CallsOf<'_>,
    after: CallsOf<'_>,
) -> Result<Option<usize>, ConfigError> {
    match (before, after) {
        (before, after) if before == after => Ok(None),
        ((None | Some(OrOff::On(_)), None), (Some(OrOff::On(calls)), None)) => Ok(Some(calls)),
        ((_, Some(before)), (_, Some(after))) => after.limit_from(before),
        (before, after) => {
            same("stack", "max_in_flight", &before.0, &after.0)?;
            same_part("stack", "bulkhead", before.1, after.1).map(|()| None)
        }
    }
}
