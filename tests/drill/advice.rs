//! Mistakes of settings: the registry's advice names the one at fault.

use tower_keep::observe::{Advice, Evidence};

use crate::planted::{self, Planted, planted};

impl Planted {
    /// The one advice, a certain one, is on this setting of this layer, and this alert reports the
    /// same.
    fn names(self, layer: &str, setting: &str, alert: Option<&str>) -> Advice {
        let toml = self.toml;
        let said = self.advice();
        let words: Vec<_> = said.iter().map(ToString::to_string).collect();
        let [found] = &said[..] else {
            panic!("{toml}: {words:#?}");
        };
        let at_fault = (found.layer, found.setting);
        assert_eq!(at_fault, (layer, setting), "{toml}: {words:#?}");
        assert_eq!(found.name, "shop");
        assert_eq!(found.alert, alert, "{toml}: {words:#?}");
        assert!(!found.reason.is_empty() && found.evidence == Evidence::Enough);
        found.clone()
    }
}

fn better(advice: &Advice) -> f64 {
    let text = advice
        .better
        .as_deref()
        .unwrap_or_else(|| panic!("{advice}"));
    text.trim_end_matches('s')
        .parse()
        .unwrap_or_else(|_| panic!("{advice}"))
}

#[test]
fn settings_that_fit_get_no_advice() {
    let said = planted("").advice();
    assert_eq!(said, []);
}

#[test]
fn a_hedge_that_fits_gets_no_advice() {
    let said = Planted {
        hedges: true,
        ..planted("hedge = { delay = '100ms' }")
    }
    .advice();
    assert_eq!(said, []);
}

#[test]
fn a_window_of_few_calls() {
    let mistake = planted::a_window_of_few_calls();
    let advice = mistake.names("circuit_breaker", "min_calls", Some("CircuitOpensByChance"));
    assert!(better(&advice) >= 20.0, "{advice}");
}

#[test]
fn a_window_that_never_holds_enough() {
    let mistake = planted::a_window_that_never_holds_enough();
    let advice = mistake.names("circuit_breaker", "min_calls", Some("CircuitNearThreshold"));
    assert!((100.0..400.0).contains(&better(&advice)), "{advice}");
}

#[test]
fn a_window_that_is_too_long() {
    let mistake = planted::a_window_that_is_too_long();
    let advice = mistake.names("circuit_breaker", "window", Some("CircuitWindowTooLong"));
    assert!((10.0..120.0).contains(&better(&advice)), "{advice}");
}

#[test]
fn slow_calls_that_are_usual() {
    let mistake = planted::slow_calls_that_are_usual();
    let advice = mistake.names(
        "circuit_breaker",
        "slow_rate",
        Some("CircuitSlowNearThreshold"),
    );
    assert!(better(&advice) > 0.3, "{advice}");
}

#[test]
fn a_bulkhead_that_is_too_small() {
    let mistake = planted::a_bulkhead_that_is_too_small();
    let advice = mistake.names("bulkhead", "limit", Some("BulkheadNearlyFull"));
    assert_eq!(better(&advice), 2.0);
}

#[test]
fn a_bulkhead_full_of_calls_that_hang() {
    let mistake = planted::a_bulkhead_full_of_calls_that_hang();
    let advice = mistake.names("bulkhead", "limit", Some("BulkheadNearlyFull"));
    assert_eq!(advice.better, None, "{advice}");
}

#[test]
fn a_bulkhead_that_lets_the_upstream_queue() {
    let mistake = planted::a_bulkhead_that_lets_the_upstream_queue();
    let advice = mistake.names("bulkhead", "limit", Some("BulkheadLetsQueue"));
    assert!(better(&advice) <= 100.0, "{advice}");
}

#[test]
fn calls_that_wait_for_a_place() {
    let mistake = planted::calls_that_wait_for_a_place();
    let advice = mistake.names("bulkhead", "limit", Some("CallsWaitForPermits"));
    assert_eq!(better(&advice), 5.0);
}

#[test]
fn hopeless_calls_that_empty_the_budget() {
    let mistake = planted::hopeless_calls_that_empty_the_budget();
    mistake.names("retry", "attempts", Some("RetryBudgetEmpty"));
}

#[test]
fn retries_that_are_load() {
    let mistake = planted::retries_that_are_load();
    mistake.names("retry", "attempts", Some("RetryStorm"));
}

#[test]
fn a_burst_that_is_too_small() {
    let mistake = planted::a_burst_that_is_too_small();
    let advice = mistake.names("rate_limit", "burst", Some("RateLimitRejects"));
    assert!(better(&advice) >= 20.0, "{advice}");
}

#[test]
fn a_rate_below_what_comes() {
    let mistake = planted::a_rate_below_what_comes();
    let advice = mistake.names("rate_limit", "rate", Some("RateLimitRejects"));
    assert_eq!(
        advice.better, None,
        "only its operator knows what it protects"
    );
}

#[test]
fn an_attempt_that_is_cut_too_soon() {
    let mistake = planted::an_attempt_that_is_cut_too_soon();
    let advice = mistake.names("timeout", "duration", Some("AttemptTimeoutCutsGoodCalls"));
    assert!(better(&advice) >= 0.25, "{advice}");
}

#[test]
fn no_time_for_a_second_attempt() {
    let mistake = planted::no_time_for_a_second_attempt();
    let advice = mistake.names("timeout", "total_duration", Some("NoTimeForRetry"));
    assert!(better(&advice) > 1.8, "{advice}");
}

#[test]
fn a_hedge_that_is_sent_for_usual_calls() {
    let mistake = planted::a_hedge_that_is_sent_for_usual_calls();
    let advice = mistake.names("hedge", "delay", Some("HedgesUsualCalls"));
    assert_eq!(better(&advice), 0.02);
}

#[test]
fn a_throttle_that_rejects_too_soon() {
    let mistake = planted::a_throttle_that_rejects_too_soon();
    let advice = mistake.names("throttle", "multiplier", Some("ThrottleRejectsGoodCalls"));
    assert!((1.9..2.3).contains(&better(&advice)), "{advice}");
}

#[test]
fn an_upstream_that_hangs() {
    let mistake = planted::an_upstream_that_hangs();
    let advice = mistake.names(
        "circuit_breaker",
        "open_on_no_answer",
        Some("CircuitOpensUnanswered"),
    );
    assert_eq!(advice.better, None);
}
