//! Parts that are right by themselves, and do harm where they stand: what the guide says of them.

use std::time::Duration;

use tower::{BoxError, Layer};
use tower_keep::{
    algorithm::RetryBudget,
    drill::{Drill, Exponential, HttpUpstream, Measure, Poisson, Servers, Trouble, ms, secs},
    protocol::http::Client,
    stack::{self, ClientBuilder, ClientService},
};

use crate::{few_seeds, to_the_shop};

/// A server of 1000 calls a second that goes on working for callers that have left. It is half as
/// fast for ten seconds.
fn halved(drill: Drill, clients: usize, load: f64) -> Drill {
    drill
        .clients(clients)
        .patience(secs(1))
        .lasting(secs(80))
        .traffic(Poisson::per_second(1000.0 * load), to_the_shop)
        .upstream("shop", Servers::new(1).service(Exponential::mean(ms(1))))
        .trouble(secs(20)..secs(30), "shop", Trouble::capacity(0.5))
        .seeds(0..few_seeds())
}

/// A client's stack with attempts of 100 ms, and something changed.
fn with(
    change: impl Fn(ClientBuilder<Client>) -> ClientBuilder<Client> + Send + Sync + 'static,
) -> impl Fn(HttpUpstream) -> Result<ClientService<HttpUpstream, Client>, BoxError> {
    move |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(100));
        Ok(change(stack).build()?.layer(upstream))
    }
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn a_throttle_in_place_of_a_circuit_recovers_late() {
    // Its own timeouts count, since it stands above them. So it throttles, and goes on to.
    let throttled = |stack: ClientBuilder<Client>| {
        let stack = stack.throttle(|throttle| throttle.window(secs(30)));
        stack.without_circuit_breaker()
    };
    let timeout_alone = |stack: ClientBuilder<Client>| {
        let stack = stack.retry(|retry| retry.enabled(false));
        stack.without_circuit_breaker()
    };
    let beside = |stack: ClientBuilder<Client>| stack.throttle(|throttle| throttle);
    for (load, throttle, alone) in [(0.7, 20.0, 8.0), (0.8, 36.0, 18.0), (0.9, 45.0, 45.0)] {
        let drill = Drill::http(with(throttled))
            .against(with(timeout_alone))
            .named("timeout alone")
            .against(with(|stack| stack))
            .named("circuit")
            .against(with(beside))
            .named("both");
        let report = halved(drill, 50, load).run();
        let recovery = |name| report.each(Measure::Recovery).of(name);
        recovery("stack").at_least(throttle);
        recovery("timeout alone").mean().at_most(alone);
        recovery("circuit").at_most(secs(2));
        recovery("both").at_most(secs(2));
    }
}

/// Calls become ten times as slow, and all are still answered.
fn slow_without_errors(drill: Drill) -> Drill {
    drill
        .patience(secs(2))
        .lasting(secs(40))
        .traffic(Poisson::per_second(200), to_the_shop)
        .upstream(
            "shop",
            Servers::new(1000).service(Exponential::mean(ms(10))),
        )
        .trouble(secs(10)..secs(30), "shop", Trouble::slow(10.0))
        .seeds(0..few_seeds())
}

#[test]
fn slow_calls_in_a_brown_out_do_harm() {
    let slow = |after: Duration| {
        let stack = move |stack: ClientBuilder<Client>| {
            let stack = stack.attempt_timeout(secs(1));
            stack.circuit_breaker(|breaker| breaker.slow_calls(after, 0.5))
        };
        with(stack)
    };
    // Five times what is usual, which callers would have waited for.
    let report = slow_without_errors(Drill::http(slow(ms(50)))).run();
    report.each(Measure::Answered).at_most(0.75);
    assert!(!report.worse_than_none().is_empty(), "{report}");
    // About what a caller waits for: such an answer is as bad as none.
    let report = slow_without_errors(Drill::http(slow(ms(900)))).run();
    report.each(Measure::Answered).at_least(0.999);
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn a_hedge_with_its_defaults_does_no_harm() {
    let hedged = |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(100));
        Ok(stack.hedge(|hedge| hedge).build()?.layer(upstream))
    };
    let ten_tokens = |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(100));
        let budget = RetryBudget::new(10, 0.1)?;
        let stack = stack.hedge(|hedge| hedge.budget(budget));
        Ok(stack.build()?.layer(upstream))
    };
    let (soon, later) = (secs(2), secs(9));
    for (clients, load, recovery) in [(50, 0.7, soon), (50, 0.9, soon), (1000, 0.7, later)] {
        let drill = Drill::http(hedged).against(ten_tokens).named("ten tokens");
        let report = halved(drill, clients, load).run();
        report.each(Measure::AnsweredWhileWell).at_least(0.98);
        report.each(Measure::Recovery).at_most(recovery);
        let answered = |name| report.each(Measure::Answered).of(name).mean().value();
        assert!(answered("stack") > answered("ten tokens"), "{report}");
    }
}
