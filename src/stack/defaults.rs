//! The defaults of stacks. The reasons are at the setters.

use std::time::Duration;

use crate::algorithm::BreakerConfig;

/// The total timeout of a client's call, with all its attempts.
pub(crate) const TOTAL: Duration = Duration::from_secs(10);
/// The timeout of one attempt.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(3);
/// Returns the default timeout of one attempt within a total timeout. A total of zero is reported
/// by its own error.
pub(super) fn attempt_within(total: Duration) -> Duration {
    match total.is_zero() {
        true => ATTEMPT,
        false => ATTEMPT.min(total),
    }
}

/// The wait that calls rejected by a busy server are told. Short, so that a blip costs clients
/// little. On average a little longer, because clients that return together would cost the server
/// more than that.
pub(crate) const BUSY: Duration = Duration::from_secs(1);
/// The timeout of a server's call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the config of a stack's circuit breaker. It opens for half a second, and for up to one
/// second when the probe fails, and judges by few calls.
///
/// Most upstreams recover soon, and a circuit that stays open long after that is an outage of its
/// own: see the table of `cargo bench --bench simulation`. One probe: with a thousand clients that
/// call once a second, three probes each would be most of the load. Few calls: such clients need
/// ten seconds for ten calls.
///
/// A probe has [5 s](LEASE), and not just the open time. With less than the time of an answer, an
/// upstream would never close its circuit.
pub(crate) fn circuit_breaker_config() -> BreakerConfig {
    BreakerConfig {
        open_for: Duration::from_millis(500),
        growing: true,
        max_open: Some(Duration::from_secs(1)),
        probes: 1,
        lease: Some(LEASE),
        min_calls: 8,
        consecutive_failures: Some(10),
        ..BreakerConfig::default()
    }
}

/// Lets a probe take as long as an attempt may. A `lease` that was set stays: it is neither the
/// default nor what it was to an attempt of `before`.
pub(super) fn allow_slow_probes(
    config: &mut BreakerConfig,
    [before, attempt]: [Option<Duration>; 2],
) {
    let lease_for = |attempt: Option<Duration>| {
        let attempt = attempt.unwrap_or(LEASE);
        Some(attempt.clamp(LEASE, LONGEST_LEASE))
    };
    if [Some(LEASE), lease_for(before)].contains(&config.lease) {
        config.lease = lease_for(attempt);
    }
}

/// The time of a probe. Half of the window: the longest attempt that the window allows.
const LEASE: Duration = Duration::from_secs(5);
/// The longest that a circuit accepts.
const LONGEST_LEASE: Duration = Duration::from_secs(30 * 24 * 3600);
