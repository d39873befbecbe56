//! Events without which a drill shows nothing, and reasons why they did not happen.

use super::{
    record::{
        ATTEMPT_TIMEOUT, CLOSED, DENIED, FELL_BACK, HEDGE_WON, HEDGED, LayerCounts, OPENED,
        RECOVERED, REOPENED, RETRIED, TOTAL_TIMEOUT,
    },
    scenario::Scenario,
};
use crate::RejectedKind;

/// Something that a layer does in a seed of a drill, for [`Report::reached`].
///
/// [`Report::reached`]: super::Report::reached
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reached {
    /// A circuit opened from closed.
    CircuitOpened,
    /// A circuit opened again after its probes.
    CircuitReopened,
    /// A circuit closed after its probes.
    CircuitClosed,
    /// A retry was sent.
    Retried,
    /// A call was answered by a later attempt.
    RetryRecovered,
    /// A retry was not sent because the budget had no token.
    BudgetDenied,
    /// A bulkhead rejected a call.
    BulkheadFull,
    /// A rate limit rejected a call.
    RateLimited,
    /// A throttle rejected a call.
    Throttled,
    /// A timeout of one attempt cut a call off.
    AttemptTimeout,
    /// A timeout of a whole call cut it off.
    TotalTimeout,
    /// A hedge was sent.
    Hedged,
    /// A hedge was answered first.
    HedgeWon,
    /// A fallback answered.
    FellBack,
}

impl Reached {
    pub(super) const ALL: [Self; 14] = [
        Self::CircuitOpened,
        Self::CircuitReopened,
        Self::CircuitClosed,
        Self::Retried,
        Self::RetryRecovered,
        Self::BudgetDenied,
        Self::BulkheadFull,
        Self::RateLimited,
        Self::Throttled,
        Self::AttemptTimeout,
        Self::TotalTimeout,
        Self::Hedged,
        Self::HedgeWon,
        Self::FellBack,
    ];

    /// Returns how often it happened.
    pub(super) fn count(self, counted: &LayerCounts) -> u64 {
        match self {
            Self::CircuitOpened => counted.of(OPENED),
            Self::CircuitReopened => counted.of(REOPENED),
            Self::CircuitClosed => counted.of(CLOSED),
            Self::Retried => counted.of(RETRIED),
            Self::RetryRecovered => counted.of(RECOVERED),
            Self::BudgetDenied => counted.of(DENIED),
            Self::BulkheadFull => counted.rejections(RejectedKind::BulkheadFull),
            Self::RateLimited => counted.rejections(RejectedKind::RateLimited),
            Self::Throttled => counted.rejections(RejectedKind::Throttled),
            Self::AttemptTimeout => counted.of(ATTEMPT_TIMEOUT),
            Self::TotalTimeout => counted.of(TOTAL_TIMEOUT),
            Self::Hedged => counted.of(HEDGED),
            Self::HedgeWon => counted.of(HEDGE_WON),
            Self::FellBack => counted.of(FELL_BACK),
        }
    }

    /// Returns the layer that would do it.
    fn layer(self) -> &'static str {
        match self {
            Self::CircuitOpened | Self::CircuitReopened | Self::CircuitClosed => "circuit_breaker",
            Self::Retried | Self::RetryRecovered | Self::BudgetDenied => "retry",
            Self::BulkheadFull => "bulkhead",
            Self::RateLimited => "rate_limit",
            Self::Throttled => "throttle",
            Self::AttemptTimeout | Self::TotalTimeout => "timeout",
            Self::Hedged | Self::HedgeWon => "hedge",
            Self::FellBack => "fallback",
        }
    }

    /// Returns that it did not happen, and why, as far as the settings tell.
    pub(super) fn missing(self, counted: &LayerCounts, scenario: &Scenario) -> String {
        let what = match self {
            Self::CircuitOpened => "the circuit never opened",
            Self::CircuitReopened => "no probe ever failed",
            Self::CircuitClosed => "no circuit ever closed again",
            Self::Retried => "nothing was ever retried",
            Self::RetryRecovered => "no retry ever helped",
            Self::BudgetDenied => "the retry budget always paid",
            Self::BulkheadFull => "the bulkhead never filled",
            Self::RateLimited => "the rate limit was never reached",
            Self::Throttled => "the throttle never rejected",
            Self::AttemptTimeout => "no attempt ever timed out",
            Self::TotalTimeout => "no call ever reached its total timeout",
            Self::Hedged => "nothing was ever hedged",
            Self::HedgeWon => "no hedge ever won",
            Self::FellBack => "the fallback never answered",
        };
        match self.reason(counted, scenario) {
            Some(reason) => format!("{what}: {reason}"),
            None => what.to_owned(),
        }
    }

    fn reason(self, counted: &LayerCounts, scenario: &Scenario) -> Option<String> {
        if !counted.layers.contains_key(self.layer()) {
            return Some(format!(
                "no layer `{}` was built in the closure",
                self.layer()
            ));
        }
        let setting = |name| counted.settings.get(&(self.layer(), name)).copied();
        match self {
            Self::CircuitOpened => {
                let (calls, window) = (setting("min_calls")?, setting("window")?);
                let come = scenario.per_second_and_stack() * window;
                (come < calls).then(|| {
                    format!(
                        "{calls:.0} calls in {window:.0} s are never made at this traffic: a client \
                         makes {come:.1}"
                    )
                })
            }
            Self::AttemptTimeout => {
                let (timeout, patience) =
                    (setting("duration")?, scenario.main().patience.as_secs_f64());
                (timeout >= patience).then(|| {
                    format!("callers leave after {patience:.1} s, and it is {timeout:.1} s")
                })
            }
            Self::BulkheadFull => {
                let limit = setting("max_in_flight").or_else(|| setting("limit"))?;
                Some(match limit < UNLIMITED {
                    true => format!("{limit:.0} were never in flight"),
                    false => "it has no limit".into(),
                })
            }
            _ => None,
        }
    }

    /// Returns the events that did not happen, though the stack has their layer.
    pub(super) fn worth_saying(counted: &LayerCounts) -> Vec<Self> {
        let told = [
            Self::CircuitOpened,
            Self::CircuitClosed,
            Self::Retried,
            Self::BudgetDenied,
            Self::BulkheadFull,
            Self::RateLimited,
            Self::Throttled,
            Self::AttemptTimeout,
            Self::Hedged,
            Self::FellBack,
        ];
        let told = told.into_iter();
        told.filter(|one| counted.layers.contains_key(one.layer()) && one.count(counted) == 0)
            .collect()
    }
}

/// A limit that no number of calls reaches.
const UNLIMITED: f64 = 1e15;
