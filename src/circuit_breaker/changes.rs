//! The settings in force, and the difference that an update makes.

use crate::{Changed, algorithm::BreakerConfig, ambient::chance};

/// Reports the settings of `after` that differ from `before`.
pub(super) fn since(before: &BreakerConfig, after: &BreakerConfig) -> Changed {
    const LAYER: &str = "circuit_breaker";
    let lengths = (before.window, after.window);
    let rates = (before.failure_rate, after.failure_rate);
    let runs = (before.consecutive_failures, after.consecutive_failures);
    let cancelled = (before.cancelled_as_failure, after.cancelled_as_failure);
    let no_answer = (before.open_on_no_answer, after.open_on_no_answer);
    let slow_after = |config: &BreakerConfig| config.slow_calls.map(|slow| slow.after);
    let after_is_other = after.slow_calls.is_some() && slow_after(before) != slow_after(after);
    let changed = Changed::default()
        .note(LAYER, "window", lengths)
        .note(LAYER, "min_calls", (before.min_calls, after.min_calls))
        .note(LAYER, "failure_rate", rates)
        .note(LAYER, "slow_calls", (before.slow_calls, after.slow_calls))
        .note(LAYER, "consecutive_failures", runs)
        .note(LAYER, "cancelled_as_failure", cancelled)
        .note(LAYER, "open_on_no_answer", no_answer)
        .note(LAYER, "open_for", (before.open_for, after.open_for))
        .note(LAYER, "growing", (before.growing, after.growing))
        .note(LAYER, "jitter", (before.jitter, after.jitter))
        .note(LAYER, "max_open", (before.max_open, after.max_open))
        .note(LAYER, "probes", (before.probes, after.probes))
        .note(LAYER, "verdict", (before.verdict, after.verdict))
        .note(LAYER, "lease", (before.lease, after.lease))
        .note(LAYER, "ramp", (before.ramp, after.ramp))
        .restarting("window");
    if after_is_other {
        changed.restarting("slow_calls")
    } else {
        changed
    }
}

/// Returns the settings that the circuit uses: those that were set, but without jitter in an exact
/// test.
pub(super) fn in_force(config: &BreakerConfig) -> BreakerConfig {
    BreakerConfig {
        jitter: config.jitter && !chance::is_exact(),
        ..*config
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::algorithm::SlowCalls;

    #[test]
    fn another_length_of_slow_calls_restarts_the_window() {
        let slow = |after, rate| {
            let after = Duration::from_secs(after);
            let slow_calls = (after > Duration::ZERO).then_some(SlowCalls { after, rate });
            BreakerConfig {
                slow_calls,
                ..BreakerConfig::default()
            }
        };
        for (before, after, restarts) in [
            (slow(0, 0.5), slow(1, 0.5), true),
            (slow(1, 0.5), slow(2, 0.5), true),
            (slow(1, 0.5), slow(1, 0.6), false),
            (slow(1, 0.5), slow(0, 0.5), false),
        ] {
            let changed = since(&before, &after);
            let changes: Vec<_> = changed.iter().map(|change| change.restarts).collect();
            assert_eq!(changes, [restarts]);
        }
    }
}
