//! Transitions with an explanation: the circuit's key, the threshold that was reached, the open
//! time.

use std::{fmt::Write as _, time::Duration};

use crate::{
    algorithm::{BreakerConfig, BreakerState, Cause, Transition, Verdict, Window},
    keyed::KeyText,
};

/// A transition, as it is reported to people.
#[derive(Debug, Clone)]
pub(super) struct CircuitChange {
    pub(super) key: Option<KeyText>,
    pub(super) transition: Transition,
    /// The setting that was reached, by its name.
    pub(super) threshold: Option<String>,
    /// The time until the first probes.
    pub(super) open_for: Option<Duration>,
    /// The moment, in nanoseconds of the process's clock.
    pub(super) moment: u64,
}

/// The effect of a transition on callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Calls are rejected from now on.
    Opens,
    /// Calls are admitted again.
    Closes,
    /// Probes are admitted.
    Probes,
    /// The probes have not closed the circuit.
    StaysOpen,
    /// Other changes, such as those between states set by hand.
    Other,
}

impl Effect {
    pub(super) fn of(transition: &Transition) -> Self {
        let Transition { from, to, .. } = *transition;
        match (rejects(from), rejects(to)) {
            (false, true) => Self::Opens,
            (true, false) => Self::Closes,
            _ if to == BreakerState::HalfOpen => Self::Probes,
            _ if from == BreakerState::HalfOpen => Self::StaysOpen,
            _ => Self::Other,
        }
    }

    /// The message of its event.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Opens => "circuit opened",
            Self::Closes => "circuit closed",
            Self::Probes => "circuit probes",
            Self::StaysOpen => "circuit stays open",
            Self::Other => "circuit set",
        }
    }
}

pub(super) fn rejects(state: BreakerState) -> bool {
    matches!(
        state,
        BreakerState::Open | BreakerState::HalfOpen | BreakerState::ForcedOpen
    )
}

/// Returns the threshold that caused a transition, with the name of its setter. `None` if it was
/// made by hand, or because a time was over.
pub(super) fn threshold(config: &BreakerConfig, transition: &Transition) -> Option<String> {
    let BreakerConfig {
        min_calls, probes, ..
    } = *config;
    let mut text = String::new();
    let written = match transition.cause {
        Cause::FailureRate => {
            let rate = config.failure_rate?;
            write!(
                text,
                "failure_rate {rate} of at least {} calls",
                least(config)
            )
        }
        Cause::SlowRate => {
            let slow = config.slow_calls?;
            let (rate, after) = (slow.rate, slow.after);
            write!(
                text,
                "slow_calls {rate} of at least {} calls after {after:?}",
                least(config)
            )
        }
        Cause::ConsecutiveFailures => {
            write!(
                text,
                "consecutive_failures {}",
                config.consecutive_failures?
            )
        }
        Cause::NoAnswer => write!(text, "min_calls {min_calls} without an answer"),
        Cause::ProbesFailed => match (config.verdict, config.failure_rate) {
            (Verdict::Rate, Some(rate)) => write!(text, "failure_rate {rate} of {probes} probes"),
            _ => write!(text, "any failure of {probes} probes"),
        },
        Cause::ProbesSlow => {
            let slow = config.slow_calls?;
            let (rate, after) = (slow.rate, slow.after);
            write!(text, "slow_calls {rate} of {probes} probes after {after:?}")
        }
        Cause::LeaseExpired => {
            write!(text, "lease {:?}", config.lease.unwrap_or(config.open_for))
        }
        Cause::OpenElapsed | Cause::ProbesSucceeded | Cause::ByHand | Cause::Updated => {
            return None;
        }
    };
    written.ok().map(|()| text)
}

/// Returns the least number of calls to be judged, which is at most what a window of calls holds.
fn least(config: &BreakerConfig) -> u32 {
    match config.window {
        Window::Calls(calls) => config.min_calls.min(calls),
        Window::Time(_) => config.min_calls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{Counts, SlowCalls};

    fn transition(from: BreakerState, to: BreakerState, cause: Cause) -> Transition {
        Transition {
            from,
            to,
            generation: 1,
            cause,
            counts: Counts::default(),
            at: Duration::ZERO,
            open_for: None,
            rejected: None,
        }
    }

    #[test]
    fn a_threshold_is_told_in_the_words_of_the_settings() {
        let config = BreakerConfig {
            slow_calls: Some(SlowCalls {
                after: Duration::from_secs(4),
                rate: 0.6,
            }),
            consecutive_failures: Some(10),
            window: Window::Calls(8),
            ..BreakerConfig::default()
        };
        let of = |cause| {
            let transition = transition(BreakerState::Closed, BreakerState::Open, cause);
            threshold(&config, &transition)
        };
        for (cause, expected) in [
            (Cause::FailureRate, "failure_rate 0.5 of at least 8 calls"),
            (
                Cause::SlowRate,
                "slow_calls 0.6 of at least 8 calls after 4s",
            ),
            (Cause::ConsecutiveFailures, "consecutive_failures 10"),
            (Cause::NoAnswer, "min_calls 20 without an answer"),
            (Cause::ProbesFailed, "failure_rate 0.5 of 3 probes"),
            (Cause::ProbesSlow, "slow_calls 0.6 of 3 probes after 4s"),
            (Cause::LeaseExpired, "lease 30s"),
        ] {
            assert_eq!(of(cause).as_deref(), Some(expected));
        }
        assert_eq!(of(Cause::ByHand), None);
    }

    #[test]
    fn an_outage_opens_once_and_closes_once() {
        use BreakerState::{Closed, Disabled, ForcedOpen, HalfOpen, Open};
        for (from, to, expected) in [
            (Closed, Open, Effect::Opens),
            (Closed, ForcedOpen, Effect::Opens),
            (Open, HalfOpen, Effect::Probes),
            (HalfOpen, Open, Effect::StaysOpen),
            (Open, ForcedOpen, Effect::Other),
            (HalfOpen, Closed, Effect::Closes),
            (ForcedOpen, Disabled, Effect::Closes),
            (Closed, Disabled, Effect::Other),
        ] {
            let effect = Effect::of(&transition(from, to, Cause::ByHand));
            assert_eq!(effect, expected, "{from:?} {to:?}");
        }
    }
}
