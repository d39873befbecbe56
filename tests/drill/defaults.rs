//! Defaults that did harm, each as a drill shows it.

use std::time::Duration;

use http::Request;
use tower::{BoxError, Layer, limit::ConcurrencyLimitLayer};
use tower_keep::{
    drill::{
        Drill, Exponential, HttpUpstream, Measure, Poisson, Reached, Servers, Trouble, ms, secs,
    },
    protocol::http::Client,
    rate_limit::Rate,
    stack::{self, ClientService},
};

use crate::to_the_shop;

/// A server of 1000 calls a second, and callers that wait for 100 ms.
fn brown_out(drill: Drill, load: f64) -> Drill {
    drill
        .patience(ms(100))
        .lasting(secs(20))
        .traffic(Poisson::per_second(1000.0 * load), to_the_shop)
        .upstream("shop", Servers::new(10).service(Exponential::mean(ms(10))))
        .trouble(secs(5)..secs(15), "shop", Trouble::capacity(0.5))
        .seeds(0..2)
}

#[test]
fn a_servers_default_answers_in_a_brown_out() {
    let server = || {
        let server = stack::server().http().rate(Rate::per_second(1000));
        server.timeout(ms(100))
    };
    for (load, half, default) in [(0.7, 0.7, 0.8), (0.9, 0.65, 0.72)] {
        let stack = move |handler| Ok(server().build()?.layer(handler));
        let of_half = move |handler| Ok(server().max_in_flight(50).build()?.layer(handler));
        let drill = Drill::http_server(stack).against(of_half);
        let report = brown_out(drill, load).run();
        report.each(Measure::AnsweredWhileWell).at_least(0.99);
        report.each(Measure::Recovery).at_most(ms(500));
        report.each(Measure::Answered).at_least(default);
        let answered = report.each(Measure::Answered).of("other");
        answered.at_most(half);
    }
}

/// One client, and an upstream that is never short of workers.
fn busy_client(drill: Drill, per_second: u32, takes: Duration) -> Drill {
    drill
        .patience(secs(1))
        .lasting(secs(6))
        .traffic(Poisson::per_second(per_second), to_the_shop)
        .upstream("shop", Servers::new(10_000).service(takes))
        .seeds(0..1)
}

fn client(upstream: HttpUpstream) -> Result<ClientService<HttpUpstream, Client>, BoxError> {
    Ok(stack::client().http().build()?.layer(upstream))
}

fn with_a_hundred_places(
    upstream: HttpUpstream,
) -> Result<ClientService<HttpUpstream, Client>, BoxError> {
    let stack = stack::client().http().max_in_flight(100);
    Ok(stack.build()?.layer(upstream))
}

#[test]
fn a_client_rejects_no_healthy_call() {
    for (per_second, takes, rejected) in [(1000, 100, 0.05), (500, 300, 0.3), (2000, 100, 0.45)] {
        let drill = Drill::http(client).against(with_a_hundred_places);
        let report = busy_client(drill, per_second, ms(takes)).run();
        report.each(Measure::Answered).at_least(1.0);
        let bounded = report.each(Measure::Rejected).of("other");
        bounded.at_least(rejected);
    }
}

#[test]
fn a_client_derives_its_bound_from_a_rate() {
    // Calls take up to half of what an attempt may, and come in bursts of a second.
    let rated = |upstream| {
        let stack = stack::client().http().rate(Rate::per_second(400));
        Ok(stack.attempt_timeout(secs(1)).build()?.layer(upstream))
    };
    let report = Drill::http(rated)
        .patience(secs(1))
        .lasting(secs(6))
        .traffic(Poisson::per_second(300), to_the_shop)
        .upstream("shop", Servers::new(10_000).service(ms(400)))
        .trouble(secs(2)..secs(4), "shop", Trouble::slow(4.0))
        .seeds(0..2)
        .run();
    report.each(Measure::AnsweredWhileWell).at_least(1.0);
    report.reached([Reached::BulkheadFull]);
}

#[test]
fn a_client_goes_on_in_a_brown_out_without_errors() {
    let drill = Drill::http(client).against(with_a_hundred_places);
    let drill = busy_client(drill, 2000, ms(10));
    let report = drill
        .trouble(secs(2)..secs(5), "shop", Trouble::slow(10.0))
        .run();
    report.each(Measure::Answered).at_least(0.99);
    report.each(Measure::Answered).of("other").at_most(0.8);
}

#[test]
fn a_host_that_hangs_leaves_the_pool_to_the_other() {
    let pooled = |circuit: bool| {
        move |upstream: HttpUpstream| {
            let pool = ConcurrencyLimitLayer::new(64).layer(upstream);
            let stack = stack::client().http().attempt_timeout(secs(1));
            let stack = match circuit {
                true => stack,
                false => stack.without_circuit_breaker(),
            };
            Ok(stack.build()?.layer(pool))
        }
    };
    let report = Drill::http(pooled(true))
        .against(pooled(false))
        .named("no circuit")
        .patience(secs(2))
        .lasting(secs(20))
        .traffic(Poisson::per_second(100), |n| {
            Request::get(format!("http://sick/{n}"))
        })
        .traffic(Poisson::per_second(100), |n| {
            Request::get(format!("http://well/{n}"))
        })
        .upstream("sick", Servers::new(8))
        .upstream("well", Servers::new(8))
        .trouble(secs(4)..secs(16), "sick", Trouble::hang())
        .seeds(0..2)
        .run();
    // The calls to one of two hosts are lost for three fifths of the time. Those to the other wait
    // for none of them.
    report.each(Measure::Answered).at_least(0.67);
    report.each(Measure::WaitMean).at_most(ms(80));
    let without = report.each(Measure::WaitMean).of("no circuit");
    without.at_least(ms(500));
}
