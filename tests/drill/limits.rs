//! Limits that learn, on clients and before servers: what the guide says of choosing them.

use std::time::Duration;

use tower::{BoxError, Layer};
use tower_keep::{
    algorithm::{Aimd, Gradient2, Vegas, adaptive::VegasConfig},
    bulkhead::{BulkheadBuilder, BulkheadLayer},
    drill::{
        Drill, Exponential, HttpUpstream, Measure, Poisson, Report, Servers, Trouble, ms, secs,
    },
    protocol::http::Client,
    retry::RetryLayer,
    stack,
    timeout::TimeoutLayer,
};

use crate::{few_seeds, to_the_shop};

/// A limit that learns, with its name.
type Learning = (&'static str, fn(BulkheadBuilder) -> BulkheadBuilder);

const LEARNING: [Learning; 3] = [
    ("AIMD", |bulkhead| bulkhead.adaptive(Aimd::default())),
    ("Vegas", |bulkhead| bulkhead.adaptive(Vegas::default())),
    ("Gradient2", |bulkhead| {
        bulkhead.adaptive(Gradient2::default())
    }),
];

/// A client whose limit learns, up to 2000, over a timeout.
fn client((name, learning): Learning, timeout: Duration) -> Drill {
    let stack = move |upstream| {
        let bulkhead = learning(BulkheadLayer::builder(2000)).protocol(Client::new());
        let timeout = TimeoutLayer::builder(timeout).protocol(Client::new());
        Ok(bulkhead.build()?.layer(timeout.build()?.layer(upstream)))
    };
    Drill::http(stack).named(name).seeds(0..few_seeds())
}

fn value(report: &Report, measure: Measure) -> f64 {
    report.each(measure).value()
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn a_server_that_rejects_quickly_bounds_a_limit() {
    for learning in LEARNING {
        // It does 500 calls a second, and answers 503 at once to all above ten at a time.
        let report = client(learning, secs(1))
            .lasting(secs(30))
            .traffic(Poisson::per_second(2000), to_the_shop)
            .upstream("shop", Servers::new(10).service(ms(20)).queue(0))
            .run();
        // Three quarters of the calls fail without a limit.
        let failed = value(&report, Measure::Failed);
        assert!(failed < value(&report, Measure::Sent) / 2.0, "{report}");
        report.each(Measure::Answered).at_least(0.23);
    }
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn timeouts_bound_a_limit() {
    for learning in LEARNING {
        // It does 167 calls a second, each in over half of the timeout.
        let report = client(learning, ms(100))
            .lasting(secs(30))
            .traffic(Poisson::per_second(1000), to_the_shop)
            .upstream("shop", Servers::new(10).service(ms(60)))
            .run();
        report.each(Measure::Sent).at_most(0.25);
        report.each(Measure::Answered).at_least(0.09);
        report.each(Measure::Answered).of("no stack").at_most(0.08);
    }
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn failures_without_overload_hardly_lower_a_limit() {
    for learning in LEARNING {
        let report = client(learning, ms(500))
            .lasting(secs(40))
            .traffic(Poisson::per_second(1000), to_the_shop)
            .upstream("shop", Servers::new(10_000).service(ms(20)))
            .trouble(secs(1)..secs(40), "shop", Trouble::hangs(0.05))
            .run();
        // A tenth of what is possible.
        report.each(Measure::Answered).at_least(0.9 * 0.95);
    }
}

/// A server of 1000 calls a second at 90 % load, whose callers wait for 100 ms.
fn server(bulkhead: impl Fn() -> BulkheadBuilder + Send + Sync + 'static) -> Drill {
    let stack = move |handler| {
        let stack = stack::server().http().bulkhead(bulkhead());
        Ok(stack.timeout(ms(100)).build()?.layer(handler))
    };
    Drill::http_server(stack)
        .patience(ms(100))
        .lasting(secs(40))
        .traffic(Poisson::per_second(900), to_the_shop)
        .upstream("shop", Servers::new(1).service(Exponential::mean(ms(1))))
        .seeds(0..few_seeds())
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn a_limit_that_learns_needs_room_to_wait() {
    for (_, learning) in &LEARNING[1..] {
        let learns = || learning(BulkheadLayer::builder(500));
        let report = server(learns).run();
        report.each(Measure::AnsweredWhileWell).at_most(0.9);
        assert!(!report.worse_than_none().is_empty(), "{report}");
        let waits = move || learns().max_wait(ms(30)).max_waiting(25);
        recovers(server(waits), 0.97);
    }
    let of_25 = || {
        let mut config = VegasConfig::default();
        (config.min, config.initial) = (25, 25);
        let vegas = Vegas::new(config).expect("it starts at its least");
        BulkheadLayer::builder(500).adaptive(vegas)
    };
    recovers(server(of_25), 0.99);
}

/// All is as well after a trouble as before.
fn recovers(server: Drill, answered: f64) {
    let trouble = Trouble::capacity(0.5);
    let report = server.trouble(secs(10)..secs(20), "shop", trouble).run();
    report.each(Measure::AnsweredWhileWell).at_least(answered);
    report.each(Measure::Recovery).at_most(ms(500));
}

/// Callers that ask three times, before a server whose limit learns, up to a most.
fn callers_that_retry(most: usize, load: f64) -> Report {
    let caller = |upstream: HttpUpstream| -> Result<_, BoxError> {
        let retry = RetryLayer::builder().without_budget();
        let retry = retry.protocol(Client::new()).build()?;
        let timeout = TimeoutLayer::builder(ms(100)).protocol(Client::new());
        Ok(retry.layer(timeout.build()?.layer(upstream)))
    };
    let server = move |handler: HttpUpstream| -> Result<_, BoxError> {
        let bulkhead = BulkheadLayer::builder(most).adaptive(Aimd::default());
        let stack = stack::server().http().bulkhead(bulkhead).without_timeout();
        Ok(stack.build()?.layer(handler))
    };
    let drill = Drill::http(caller).clients(50).patience(secs(1));
    drill
        .lasting(secs(40))
        .traffic(Poisson::per_second(1000.0 * load), to_the_shop)
        .upstream("shop", Servers::new(1).service(Exponential::mean(ms(1))))
        .tier("shop", server)
        .trouble(secs(10)..secs(20), "shop", Trouble::capacity(0.5))
        .seeds(0..few_seeds())
        .run()
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn a_limit_needs_a_most_before_callers_that_retry() {
    for load in [0.7, 0.9] {
        // All of the rate within the timeout five times, and half of it.
        let report = callers_that_retry(500, load);
        report.each(Measure::Recovery).at_least(secs(18));
        let report = callers_that_retry(50, load);
        report.each(Measure::Recovery).at_most(ms(500));
        report.each(Measure::AnsweredWhileWell).at_least(0.98);
    }
}
