//! Stacks with a known flaw are caught.

use std::time::Duration;

use tower::Layer;
use tower_keep::{
    algorithm::RetryBudget,
    drill::{
        Drill, Exponential, HttpUpstream, Measure, Poisson, Reached, Servers, Trouble, ms, secs,
    },
    hedge::HedgeLayer,
    protocol::http,
    stack,
};

use crate::{complaint, shop, to_the_shop};

/// Half a minute with a brown-out.
fn brown_out(drill: Drill) -> Drill {
    drill
        .clients(20)
        .patience(ms(500))
        .lasting(secs(30))
        .traffic(Poisson::per_second(200), to_the_shop)
        .upstream("shop", shop())
        .trouble(secs(5)..secs(12), "shop", Trouble::fails(0.6))
        .seeds(0..2)
}

#[test]
fn retries_without_a_budget_are_caught() {
    let sent = |budget: bool| {
        let stack = move |upstream| {
            let stack = stack::client().http().attempt_timeout(ms(200));
            let stack = stack.without_circuit_breaker();
            let stack = if budget {
                stack
            } else {
                stack.retry(|retry| retry.without_budget())
            };
            Ok(stack.build()?.layer(upstream))
        };
        brown_out(Drill::http(stack)).run()
    };
    sent(true).each(Measure::Sent).at_most(1.1);
    let report = sent(false);
    complaint(|| report.each(Measure::Sent).at_most(1.1));
}

#[test]
fn a_circuit_that_stays_open_for_long_is_caught() {
    let stack = |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(200));
        let stack = stack.circuit_breaker(|breaker| breaker.open_for(secs(30)).max_open(secs(60)));
        Ok(stack.build()?.layer(upstream))
    };
    let report = brown_out(Drill::http(stack)).run();
    complaint(|| report.each(Measure::Recovery).at_most(secs(2)));
    assert!(!report.worse_than_none().is_empty());
}

#[test]
fn a_timeout_above_the_callers_patience_is_caught() {
    let stack = |upstream| Ok(stack::client().http().build()?.layer(upstream));
    let report = brown_out(Drill::http(stack))
        .trouble(secs(18)..secs(20), "shop", Trouble::hang())
        .run();
    let text = complaint(|| report.reached([Reached::AttemptTimeout]));
    assert!(
        text.contains("callers leave after 0.5 s, and it is 3.0 s"),
        "{text}"
    );
}

/// A server of 400 calls a second whose callers wait for 200 ms, through ten times its traffic.
fn server(places: usize) -> Drill {
    let stack = move |handler| {
        let stack = stack::server().http().max_in_flight(places);
        Ok(stack.build()?.layer(handler))
    };
    Drill::http_server(stack)
        .patience(ms(200))
        .lasting(secs(15))
        .traffic(Poisson::per_second(300), to_the_shop)
        .upstream("shop", Servers::new(8).service(ms(20)))
        .trouble(secs(5)..secs(8), "shop", Trouble::burst(4.0))
        .seeds(0..2)
}

#[test]
fn a_bulkhead_of_rate_times_timeout_is_caught() {
    let enough = 0.5;
    server(30).run().each(Measure::Answered).at_least(enough);
    let report = server(90).run();
    complaint(|| report.each(Measure::Answered).at_least(enough));
}

#[test]
fn a_hedge_with_a_store_of_ten_tokens_is_caught() {
    let stack = |upstream: HttpUpstream| {
        // A fixed delay: by a quantile hedging stops once too many calls are late.
        let hedge = HedgeLayer::builder()
            .delay(ms(30))
            .budget(RetryBudget::new(10, 0.1)?)
            .protocol(http::Client::new());
        Ok(hedge.build()?.layer(upstream))
    };
    let report = Drill::http(stack)
        .clients(50)
        .patience(ms(100))
        .lasting(secs(20))
        .traffic(Poisson::per_second(700), to_the_shop)
        .upstream(
            "shop",
            Servers::new(10).service(Exponential::mean(Duration::from_millis(10))),
        )
        .seeds(0..2)
        .run();
    complaint(|| report.each(Measure::AnsweredWhileWell).at_least(0.99));
    assert!(!report.worse_than_none().is_empty());
}
