//! Settings that both stacks have.

use std::{borrow::Cow, fmt::Debug};

use crate::{
    Changed, ConfigError,
    hedge::HedgeConfig,
    settings::{
        BulkheadSettings, HedgeSettings, HumanRate, OrOff, RateLimitSettings,
        fixed::{same, same_part},
        rate_limit::LimitMove,
    },
};

/// The rate of a stack, alone or with all its settings.
pub(super) type RateOf<'a> = (
    Option<HumanRate>,
    Option<u32>,
    &'a Option<RateLimitSettings>,
);

/// Returns the new rate, if it differs from before.
///
/// # Errors
/// A setting that `build` would reject, or that a running limit cannot change.
pub(super) fn rate_from(before: RateOf<'_>, after: RateOf<'_>) -> Result<LimitMove, ConfigError> {
    if before == after {
        return Ok(LimitMove::default());
    }
    match (whole(before)?, whole(after)?) {
        (Some(before), Some(after)) => after.moved_from(&before),
        (None, Some(after)) => after.added(),
        (_, None) => Ok(LimitMove {
            on: Some(false),
            ..LimitMove::default()
        }),
    }
}

/// Returns a rate with all its settings, however it was written.
fn whole(
    (rate, burst, limit): RateOf<'_>,
) -> Result<Option<Cow<'_, RateLimitSettings>>, ConfigError> {
    let rejected =
        |field, value: &dyn Debug, fix| Err(ConfigError::new(field, value, fix).of("stack", None));
    match (rate, burst, limit) {
        (None, None, limit) => Ok(limit.as_ref().map(Cow::Borrowed)),
        (Some(_), burst, None) => Ok(Some(Cow::Owned(RateLimitSettings::bucket(rate, burst)))),
        (None, Some(burst), None) => rejected("burst", &burst, "set a `rate` too"),
        (Some(rate), _, Some(_)) => rejected("rate", &rate, OWN_RATE),
        (None, Some(burst), Some(_)) => rejected("burst", &burst, OWN_RATE),
    }
}

/// The limit on a stack's calls in flight, alone or with all its settings.
pub(super) type CallsOf<'a> = (Option<OrOff<usize>>, &'a Option<BulkheadSettings>);

/// Checks that only one of the two is set.
///
/// # Errors
/// Both are set: one would be dropped silently.
pub(super) fn checked_calls(calls: CallsOf<'_>) -> Result<CallsOf<'_>, ConfigError> {
    match calls {
        (Some(set), Some(_)) => {
            let fix = "leave it: `bulkhead` has a limit of its own";
            Err(ConfigError::new("max_in_flight", set, fix).of("stack", None))
        }
        calls => Ok(calls),
    }
}

/// Names the limit as the file does: by the field of the bulkhead if that is written.
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

/// Returns whether a part that may leave fields out contains this path.
pub(super) fn partial_in(parts: &[(&str, bool)], path: &str) -> bool {
    let mut partial = parts.iter().filter(|(_, partial)| *partial);
    partial.any(|(part, _)| path.starts_with(part))
}

/// Returns the limit, if it differs from before. `unset` is its value if none is written, if that
/// is known.
pub(super) fn calls_from(
    before: CallsOf<'_>,
    after: CallsOf<'_>,
    unset: Option<usize>,
) -> Result<Option<usize>, ConfigError> {
    match (before, after) {
        (before, after) if before == after => Ok(None),
        ((_, None), (Some(OrOff::On(calls)), None)) => Ok(Some(calls)),
        ((_, None), (Some(OrOff::Off), None)) => Ok(Some(usize::MAX)),
        ((_, None), (None, None)) if unset.is_some() => Ok(unset),
        ((_, Some(before)), (_, Some(after))) => after.limit_from(before),
        (before, after) => {
            same("stack", "max_in_flight", &before.0, &after.0)?;
            same_part("stack", "bulkhead", before.1, after.1).map(|()| None)
        }
    }
}

/// Returns the new hedge, or none, if it differs from before.
pub(super) fn hedge_from(
    (before, after): (&Option<HedgeSettings>, &Option<HedgeSettings>),
    now: Option<HedgeConfig>,
) -> Result<Option<Option<HedgeConfig>>, ConfigError> {
    if before == after {
        return Ok(None);
    }
    let Some(after) = after else {
        let fix = "write its settings, or `hedge = \"off\"`: the code's own are not known here";
        return Err(ConfigError::new("hedge", after, fix).of("stack", None));
    };
    if !after.enabled {
        return Ok(Some(None));
    }
    // Without settings in the file the code's hedge applied, presumably with its defaults.
    let own = HedgeSettings::default();
    let before = before.as_ref().unwrap_or(&own);
    let now = now.unwrap_or_else(|| before.config());
    after
        .config_from(before, now)
        .map(|config| Some(Some(config)))
}

const OWN_RATE: &str = "leave it: `rate_limit` has a rate of its own";
