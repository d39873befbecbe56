//! Mistakes of settings, planted one by one: the registry's advice names the one at fault.

use std::sync::{Arc, Mutex};

use tower::{Layer, util::Either};
use tower_keep::{
    drill::{Bursts, Drill, Lognormal, Pattern, Poisson, Servers, Trouble, ms, secs},
    observe::{Advice, Evidence, Registry},
    settings::ClientSettings,
    stack,
};

use crate::{shop, to_the_shop};

/// A stack with these settings in half a minute of traffic, and what is said of it at its end.
struct Planted {
    toml: &'static str,
    traffic: Pattern,
    servers: Servers,
    troubles: Vec<(u64, u64, Trouble)>,
    seconds: u64,
    /// If true, the stack hedges in place of retries.
    hedges: bool,
}

fn planted(toml: &'static str) -> Planted {
    Planted {
        toml,
        traffic: Poisson::per_second(50).into(),
        servers: shop(),
        troubles: Vec::new(),
        seconds: 30,
        hedges: false,
    }
}

impl Planted {
    fn advice(self) -> Vec<Advice> {
        let settings: ClientSettings = toml::from_str(self.toml).unwrap();
        let registry = Arc::new(Mutex::new(Registry::new()));
        let said = Arc::new(Mutex::new(Vec::new()));
        let (own, spoken) = (registry.clone(), said.clone());
        let mut drill = Drill::http(move |upstream| {
            let fresh = Registry::new();
            *own.lock().unwrap() = fresh.clone();
            fresh.with(|| {
                let client = stack::client().http();
                Ok(if self.hedges {
                    let stack = settings.apply_to(client.hedge(|hedge| hedge))?;
                    Either::Left(stack.name("shop").build()?.layer(upstream))
                } else {
                    let stack = settings.apply_to(client)?;
                    Either::Right(stack.name("shop").build()?.layer(upstream))
                })
            })
        })
        .patience(secs(20))
        .lasting(secs(self.seconds))
        .traffic(self.traffic, move |number| {
            // In virtual time, and again and again: the last one counts. Without a stack there is
            // nothing to advise on.
            let registry = registry.lock().unwrap().clone();
            if number % 20 == 0 && !registry.snapshot().is_empty() {
                *spoken.lock().unwrap() = registry.advice();
            }
            to_the_shop(number)
        })
        .upstream("shop", self.servers);
        for (from, to, trouble) in self.troubles {
            drill = drill.trouble(secs(from)..secs(to), "shop", trouble);
        }
        let _ = drill.seeds(0..1).run();
        said.lock().unwrap().clone()
    }

    /// There is certain advice on this setting of this layer, and this alert reports the same.
    fn names(self, layer: &str, setting: &str, alert: Option<&str>) -> Advice {
        let toml = self.toml;
        let said = self.advice();
        let words: Vec<_> = said.iter().map(ToString::to_string).collect();
        let found = said
            .iter()
            .find(|one| (one.layer, one.setting) == (layer, setting));
        let found = found.unwrap_or_else(|| panic!("{toml}: {words:#?}"));
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
fn a_window_of_few_calls() {
    let advice = Planted {
        troubles: vec![(0, 30, Trouble::fails(0.12))],
        traffic: Poisson::per_second(0.8).into(),
        seconds: 600,
        ..planted(
            "retry = { attempts = 1 }\ncircuit_breaker = { min_calls = 2, consecutive_failures = 'off' }",
        )
    };
    let advice = Planted {
        troubles: vec![(0, 600, Trouble::fails(0.12))],
        ..advice
    }
    .names("circuit_breaker", "min_calls", Some("CircuitOpensByChance"));
    assert!(better(&advice) >= 20.0, "{advice}");
}

#[test]
fn a_window_that_never_holds_enough() {
    let advice = Planted {
        troubles: vec![(5, 30, Trouble::fails(0.9))],
        ..planted(
            "retry = { attempts = 1 }\ncircuit_breaker = { min_calls = 5000, consecutive_failures = 'off' }",
        )
    }
    .names("circuit_breaker", "min_calls", Some("CircuitNearThreshold"));
    assert!((100.0..400.0).contains(&better(&advice)), "{advice}");
}

#[test]
fn a_window_that_is_too_long() {
    let advice = planted("circuit_breaker = { window = '10m' }").names(
        "circuit_breaker",
        "window",
        Some("CircuitWindowTooLong"),
    );
    assert!((10.0..120.0).contains(&better(&advice)), "{advice}");
}

#[test]
fn slow_calls_that_are_usual() {
    let advice = planted("circuit_breaker = { slow_calls = { after = '25ms', rate = '20%' } }")
        .names(
            "circuit_breaker",
            "slow_rate",
            Some("CircuitSlowNearThreshold"),
        );
    assert!(better(&advice) > 0.3, "{advice}");
}

#[test]
fn a_bulkhead_that_is_too_small() {
    let advice = planted("max_in_flight = 1\nretry = { attempts = 1 }").names(
        "bulkhead",
        "limit",
        Some("BulkheadNearlyFull"),
    );
    assert_eq!(better(&advice), 2.0);
}

#[test]
fn a_bulkhead_full_of_calls_that_hang() {
    let advice = Planted {
        troubles: vec![(5, 30, Trouble::hangs(1.0))],
        ..planted("max_in_flight = 4\nretry = { attempts = 1 }\ncircuit_breaker = 'off'")
    }
    .names("bulkhead", "limit", Some("BulkheadNearlyFull"));
    assert_eq!(advice.better, None, "{advice}");
}

#[test]
fn a_bulkhead_that_lets_the_upstream_queue() {
    let advice = Planted {
        // One worker of some 44 calls a second, and bursts.
        servers: Servers::new(1)
            .service(Lognormal::median(ms(20)).sigma(0.1))
            .queue(1000),
        traffic: Bursts::of(30).into(),
        ..planted("max_in_flight = 1000\nretry = { attempts = 1 }")
    }
    .names("bulkhead", "limit", Some("BulkheadLetsQueue"));
    assert!(better(&advice) <= 100.0, "{advice}");
}

#[test]
fn calls_that_wait_for_a_place() {
    let advice = Planted {
        traffic: Poisson::per_second(100).into(),
        ..planted("bulkhead = { limit = 3, max_wait = '5s', always_in_order = true }\nretry = { attempts = 1 }")
    }
    .names("bulkhead", "limit", Some("CallsWaitForPermits"));
    assert_eq!(better(&advice), 5.0);
}

#[test]
fn hopeless_calls_that_empty_the_budget() {
    Planted {
        troubles: vec![(0, 30, Trouble::fails(0.3))],
        ..planted("retry = { attempts = 6 }\ncircuit_breaker = 'off'")
    }
    .names("retry", "attempts", Some("RetryBudgetEmpty"));
}

#[test]
fn retries_that_are_load() {
    Planted {
        troubles: vec![(0, 30, Trouble::fails(0.3))],
        ..planted("retry = { attempts = 6, budget = 'off' }\ncircuit_breaker = 'off'")
    }
    .names("retry", "attempts", Some("RetryStorm"));
}

#[test]
fn a_burst_that_is_too_small() {
    let advice = Planted {
        traffic: Bursts::of(20).into(),
        ..planted("rate = '100/s'\nburst = 5\nmax_in_flight = 1000\nretry = { attempts = 1 }")
    }
    .names("rate_limit", "burst", Some("RateLimitRejects"));
    assert!(better(&advice) >= 20.0, "{advice}");
}

#[test]
fn an_attempt_that_is_cut_too_soon() {
    let advice = Planted {
        servers: Servers::new(100)
            .service(Lognormal::median(ms(60)).sigma(0.4))
            .queue(100),
        ..planted("attempt_timeout = '100ms'\nretry = { attempts = 1 }\ncircuit_breaker = 'off'")
    }
    .names("timeout", "duration", Some("AttemptTimeoutCutsGoodCalls"));
    assert!(better(&advice) >= 0.25, "{advice}");
}

#[test]
fn no_time_for_a_second_attempt() {
    let advice = Planted {
        troubles: vec![(5, 20, Trouble::hangs(0.3))],
        ..planted("total_timeout = '1s'\nattempt_timeout = '900ms'\ncircuit_breaker = 'off'")
    }
    .names("timeout", "total_duration", Some("NoTimeForRetry"));
    assert!(better(&advice) > 1.8, "{advice}");
}

#[test]
fn a_hedge_that_is_sent_for_usual_calls() {
    let advice = Planted {
        // Nearly all take 20 ms, so a second attempt after 10 ms comes too late to win.
        servers: Servers::new(100)
            .service(Lognormal::median(ms(20)).sigma(0.1))
            .queue(100),
        hedges: true,
        ..planted("hedge = { delay = '10ms', budget = 'off' }")
    }
    .names("hedge", "delay", Some("HedgesUsualCalls"));
    assert_eq!(better(&advice), 0.02);
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
fn a_throttle_that_rejects_too_soon() {
    let advice = Planted {
        // Three of four calls succeed, as on any day.
        troubles: vec![(0, 30, Trouble::fails(0.25))],
        ..planted(
            "throttle = { multiplier = 1.1 }\nretry = { attempts = 1 }\ncircuit_breaker = 'off'",
        )
    }
    .names("throttle", "multiplier", Some("ThrottleRejectsGoodCalls"));
    assert!((1.9..2.3).contains(&better(&advice)), "{advice}");
}

#[test]
fn a_rate_below_what_comes() {
    let advice = planted("rate = '20/s'\nmax_in_flight = 1000\nretry = { attempts = 1 }").names(
        "rate_limit",
        "rate",
        Some("RateLimitRejects"),
    );
    assert_eq!(
        advice.better, None,
        "only its operator knows what it protects"
    );
}

#[test]
fn an_upstream_that_hangs() {
    let advice = Planted {
        troubles: vec![(5, 30, Trouble::hangs(1.0))],
        ..planted(
            "total_timeout = '500ms'\nattempt_timeout = 'off'\nretry = { attempts = 1 }\n\
             circuit_breaker = { slow_calls = 'off' }",
        )
    }
    .names(
        "circuit_breaker",
        "open_on_no_answer",
        Some("CircuitOpensUnanswered"),
    );
    assert_eq!(advice.better, None);
}
