//! The settings of a breaker, and what follows from them.

use std::time::Duration;

use crate::{
    algorithm::breaker::control::Probes,
    config::{ConfigError, nanos_within, parts_per_million},
};

/// When to open, for how long, and how to close again.
///
/// ```
/// use tower_keep::algorithm::BreakerConfig;
///
/// let mut config = BreakerConfig::default();
/// config.min_calls = 50;
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// The share of failures at which the circuit opens, above 0 and up to 1. Default 0.5: a peer that fails every
    /// other call costs more than it gives.
    pub failure_rate: f64,
    /// How far back calls count. Default 10 s; at least 10 ms, at most a day.
    pub window: Duration,
    /// How many calls the window must hold before their rate means anything. Default 20.
    pub min_calls: u32,
    /// How long the circuit stays open. Default 30 s; at least 1 ms, at most 30 days.
    pub open_for: Duration,
    /// How many calls are let through in half-open. Default 3, at most 8191.
    pub probes: u16,
    /// What the probes must show. Default [`Verdict::AnyFailure`].
    pub verdict: Verdict,
    /// How long probes may stay out, all of them, before the circuit opens again, so that hung probes cannot hold it
    /// half-open for ever. Default (`None`): as long as `open_for`.
    pub lease: Option<Duration>,
}

/// How the probes of half-open are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Verdict {
    /// The first failure opens the circuit again; it closes when all probes have succeeded.
    #[default]
    AnyFailure,
    /// When all probes have ended: opens again if their failure rate reaches `failure_rate`, else closes.
    Rate,
}

/// The settings as the breaker needs them.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) window: u64,
    /// In parts per million.
    pub(super) failure_rate: u32,
    pub(super) min_calls: u64,
    /// Fewer failures than this cannot trip, however few the successes.
    pub(super) least_failures: u64,
    pub(super) open_for: u64,
    pub(super) probes: u64,
    pub(super) verdict: Verdict,
    pub(super) lease: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failure_rate: 0.5,
            window: Duration::from_secs(10),
            min_calls: 20,
            open_for: Duration::from_secs(30),
            probes: 3,
            verdict: Verdict::AnyFailure,
            lease: None,
        }
    }
}

impl Settings {
    pub(super) fn new(config: BreakerConfig) -> Result<Self, ConfigError> {
        let window = nanos_within("window", config.window, TEN_MILLIS..=DAY, "use 10ms to a day; 10s suits most peers")?;
        let failure_rate =
            parts_per_million("failure_rate", config.failure_rate, "use a share above 0 and at most 1, such as 0.5")?;
        if config.min_calls == 0 {
            return Err(ConfigError::new("min_calls", 0, "wait for at least 1 call; 20 keeps chance from tripping"));
        }
        let open_for = nanos_within("open_for", config.open_for, MILLI..=MONTH, "use 1ms to 30 days; 30s suits most peers")?;
        let probes = u64::from(config.probes);
        if probes == 0 || probes > Probes::MOST {
            return Err(ConfigError::new("probes", config.probes, "use 1 to 8191: without a probe the circuit never closes"));
        }
        let lease = config.lease.unwrap_or(config.open_for);
        Ok(Self {
            window,
            failure_rate,
            min_calls: u64::from(config.min_calls),
            least_failures: (u64::from(failure_rate) * u64::from(config.min_calls)).div_ceil(MILLION).max(1),
            open_for,
            probes,
            verdict: config.verdict,
            lease: nanos_within("lease", lease, MILLI..=MONTH, "use 1ms to 30 days, or leave it unset")?,
        })
    }

    pub(super) fn is_too_many(&self, failures: u64, total: u64) -> bool {
        failures.saturating_mul(MILLION) >= total.saturating_mul(u64::from(self.failure_rate))
    }

    /// Whether the probes show a peer that works, once that is settled.
    pub(super) fn verdict_on(&self, probes: Probes) -> Option<bool> {
        let judged = probes.succeeded + probes.failed;
        match self.verdict {
            Verdict::AnyFailure if probes.failed > 0 => Some(false),
            _ if judged < self.probes => None,
            Verdict::AnyFailure => Some(true),
            Verdict::Rate => Some(!self.is_too_many(probes.failed, judged)),
        }
    }
}

const MILLION: u64 = 1_000_000;
const MILLI: Duration = Duration::from_millis(1);
const TEN_MILLIS: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
