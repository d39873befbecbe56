//! The thresholds that a replay tries.

use std::time::Duration;

use crate::{
    algorithm::{BreakerConfig, Rate},
    settings::{
        BudgetSettings, ClientSettings, HumanDuration, HumanRate, OrOff, RateLimitSettings,
        ServerSettings,
    },
};

/// The thresholds that a replay tries. `None` is a part that is absent.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Thresholds {
    /// The circuit of each host.
    pub circuit: Option<BreakerConfig>,
    /// The rate limit.
    pub rate: Option<RateThreshold>,
    /// The most calls in flight.
    pub places: Option<usize>,
    /// The longest time of one call.
    pub timeout: Option<Duration>,
    /// The retries.
    pub retry: Option<RetryThreshold>,
}

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateThreshold {
    /// The rate.
    pub rate: Rate,
    /// The units that may arrive at once after a pause.
    pub burst: u32,
    /// If true, each key has its own limit.
    pub per_key: bool,
}

/// Retries, and their budget.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RetryThreshold {
    /// The most attempts, the first included.
    pub attempts: u32,
    /// The tokens of a full budget.
    pub capacity: u32,
    /// The part of a token that each success adds.
    pub ratio: f64,
}

impl Thresholds {
    /// Makes a set without thresholds.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Makes a rate limit alone.
    #[must_use]
    pub fn rate(rate: Rate, burst: u32) -> Self {
        let per_key = false;
        Self {
            rate: Some(RateThreshold {
                rate,
                burst,
                per_key,
            }),
            ..Self::none()
        }
    }

    /// Makes a rate limit for each key alone.
    #[must_use]
    pub fn rate_per_key(rate: Rate, burst: u32) -> Self {
        let per_key = true;
        Self {
            rate: Some(RateThreshold {
                rate,
                burst,
                per_key,
            }),
            ..Self::none()
        }
    }

    /// Makes a circuit alone.
    #[must_use]
    pub fn circuit(config: BreakerConfig) -> Self {
        Self {
            circuit: Some(config),
            ..Self::none()
        }
    }

    /// Makes a bulkhead alone.
    #[must_use]
    pub fn places(limit: usize) -> Self {
        Self {
            places: Some(limit),
            ..Self::none()
        }
    }

    /// Makes a timeout alone.
    #[must_use]
    pub fn timeout(duration: Duration) -> Self {
        Self {
            timeout: Some(duration),
            ..Self::none()
        }
    }

    /// Makes retries alone, with a budget that successes pay for.
    #[must_use]
    pub fn retry(attempts: u32, capacity: u32, ratio: f64) -> Self {
        Self {
            retry: Some(RetryThreshold {
                attempts,
                capacity,
                ratio,
            }),
            ..Self::none()
        }
    }

    /// Returns the thresholds of a client's stack. A budget that calls and time pay for is left
    /// out.
    #[must_use]
    pub fn of_client(settings: &ClientSettings) -> Self {
        let circuit = &settings.circuit_breaker;
        let bulkhead = settings.bulkhead.as_ref().filter(|one| one.enabled);
        Self {
            circuit: circuit.enabled.then(|| circuit.config()),
            rate: limit_of(settings.rate, settings.burst, settings.rate_limit.as_ref()),
            places: bulkhead
                .and_then(|one| one.limit)
                .or(places_of(settings.max_in_flight)),
            timeout: duration_of(settings.attempt_timeout),
            retry: settings.retry.enabled.then_some(()).and_then(|()| {
                let BudgetSettings::Funded(funded) = settings.retry.budget else {
                    return None;
                };
                Some(RetryThreshold {
                    attempts: settings.retry.attempts,
                    capacity: funded.capacity,
                    ratio: funded.ratio.0,
                })
            }),
        }
    }

    /// Returns the thresholds of a server's stack.
    #[must_use]
    pub fn of_server(settings: &ServerSettings) -> Self {
        let bulkhead = settings.bulkhead.as_ref().filter(|one| one.enabled);
        Self {
            rate: limit_of(settings.rate, settings.burst, settings.rate_limit.as_ref()),
            places: bulkhead
                .and_then(|one| one.limit)
                .or(settings.max_in_flight),
            timeout: duration_of(settings.timeout),
            ..Self::none()
        }
    }
}

fn duration_of(value: OrOff<HumanDuration>) -> Option<Duration> {
    match value {
        OrOff::On(HumanDuration(duration)) => Some(duration),
        OrOff::Off => None,
    }
}

fn places_of(value: Option<OrOff<usize>>) -> Option<usize> {
    match value {
        Some(OrOff::On(places)) => Some(places),
        _ => None,
    }
}

fn limit_of(
    rate: Option<HumanRate>,
    burst: Option<u32>,
    whole: Option<&RateLimitSettings>,
) -> Option<RateThreshold> {
    let whole = whole.filter(|whole| whole.enabled);
    let rate = whole.and_then(|whole| whole.rate).or(rate)?.0;
    let burst = whole.and_then(|whole| whole.burst).or(burst);
    Some(RateThreshold {
        rate,
        burst: burst.unwrap_or_else(|| crate::rate_limit::one_second_of(rate)),
        per_key: whole.is_some_and(|whole| whole.max_keys.is_some()),
    })
}
