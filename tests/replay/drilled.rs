//! Advice from a log, in a drill that sends what was recorded.

use std::sync::{Arc, Mutex};

use http::Request;
use tower::Layer;
use tower_keep::{
    circuit_breaker::BreakerState,
    drill::{Drill, Lognormal, Recorded, Servers, Trouble, ms, secs},
    observe::{Registry, State},
    replay::{Calls, Log, Question, Report, StackSettings},
    settings::ClientSettings,
    stack,
};

use crate::golden::eight_days;

/// How often the circuit opened at most, in these seeds, with these settings. The traffic is that
/// of a log's first day, at a base rate of 12 %, with an outage in its busy time or without.
fn trips(toml: &str, calls: &Calls, outage: bool, seeds: u64) -> u64 {
    let settings: ClientSettings = toml::from_str(toml).unwrap();
    let registry = Arc::new(Mutex::new(Registry::new()));
    let opened = Arc::new(Mutex::new(0));
    let (own, counted) = (registry.clone(), opened.clone());
    let look = move || {
        let registry = registry.lock().unwrap().clone();
        for instance in registry.snapshot() {
            if let State::CircuitBreaker(circuits) = instance.state {
                let opened = circuits.transitions.iter();
                let opened = opened.filter(|(from, to, ..)| {
                    (*from, *to) == (BreakerState::Closed, BreakerState::Open)
                });
                let trips: u64 = opened.map(|(.., count)| count).sum();
                let mut most = counted.lock().unwrap();
                *most = trips.max(*most);
            }
        }
    };
    let look = Arc::new(look);
    // The requests are by number, since the closure also looks at the circuit.
    let recorded = calls.moments().unwrap().into_iter();
    let first_day = recorded.map(|(at, _)| at).filter(|at| *at < secs(1200));
    let moments = Recorded::at(first_day);
    let mut drill = Drill::http(move |upstream| {
        let fresh = Registry::new();
        *own.lock().unwrap() = fresh.clone();
        fresh.with(|| {
            let stack = settings.apply_to(stack::client().http())?.name("shop");
            Ok(stack.build()?.layer(upstream))
        })
    })
    .patience(secs(5))
    .lasting(secs(1200))
    .traffic(moments, move |_| {
        look();
        Request::get("http://shop/")
    })
    .upstream(
        "shop",
        Servers::new(8)
            .service(Lognormal::median(ms(20)).sigma(0.3))
            .queue(100),
    )
    .trouble(secs(0)..secs(1200), "shop", Trouble::fails(0.12));
    if outage {
        drill = drill.trouble(secs(1000)..secs(1030), "shop", Trouble::fails(0.9));
    }
    let _ = drill.seeds(0..seeds).run();
    *opened.lock().unwrap()
}

#[test]
fn advice_from_a_log_holds_in_a_drill() {
    let calls = eight_days();
    let toml = "retry = { attempts = 1 }\ncircuit_breaker = { min_calls = 5, consecutive_failures = 'off' }";
    let question = Question::new(StackSettings::read_client(toml).unwrap());
    let advised = Report::of(Log::of(eight_days()), question)
        .unwrap()
        .settings;
    assert!(trips(toml, &calls, false, 6) > 0, "by chance");
    assert_eq!(trips(&advised, &calls, false, 2), 0);
    assert!(trips(&advised, &calls, true, 1) > 0, "an outage opens it");
}
