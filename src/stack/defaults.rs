//! The defaults of stacks: the reasons are told at the setters.

use std::time::Duration;

use crate::algorithm::BreakerConfig;

/// The total timeout of a client's call, with all its attempts.
pub(crate) const TOTAL: Duration = Duration::from_secs(10);
/// The timeout of one attempt.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(3);
/// The timeout of one attempt within such a total timeout, where nobody has set it. Of a total of
/// nothing that one's own error tells.
pub(super) fn attempt_within(total: Duration) -> Duration {
    match total.is_zero() {
        true => ATTEMPT,
        false => ATTEMPT.min(total),
    }
}

/// When those that a busy server rejects are to come back, on average a little later. So short that
/// a blip costs them little, and their coming together again costs the server more than that.
pub(crate) const BUSY: Duration = Duration::from_secs(1);
/// The timeout of a server's call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The circuit breaker of a stack opens for half a second, and for up to one when the probe fails,
/// and needs few calls to judge by. An upstream is mostly back soon, and a circuit that is open for
/// long after that is an outage of its own: `cargo bench --bench simulation` has the table. One
/// probe, because of a thousand clients that call once a second three each are most of the load.
/// Few calls for a judgement, because such clients need ten seconds for ten.
pub(crate) fn circuit_breaker_config() -> BreakerConfig {
    BreakerConfig {
        open_for: Duration::from_millis(500),
        growing: true,
        max_open: Some(Duration::from_secs(1)),
        probes: 1,
        min_calls: 8,
        consecutive_failures: Some(10),
        ..BreakerConfig::default()
    }
}
