//! A stack over faults in a drill: beside the upstream's own troubles, and in virtual time.

use http::Request;
use tower::Layer;
use tower_keep::{
    drill::{Drill, Lognormal, Measure, Poisson, Reached, Servers, Trouble, ms, secs},
    fault::{Delay, Fault, FaultLayer},
    protocol::http::Client,
    stack,
};

/// Faults from 5 to 10 s. Each client has its own.
macro_rules! faults {
    () => {{
        let faults = FaultLayer::builder("a drill")
            .protocol(Client::new())
            .fault(Fault::delay(Delay::median(ms(30)).p99(ms(150))).during(secs(5)..secs(10)))
            .fault(Fault::refused().share(0.1).during(secs(5)..secs(10)))
            .fault(Fault::status(503).share(0.1).during(secs(5)..secs(10)))
            .fault(Fault::reset().share(0.05).during(secs(5)..secs(10)))
            .build()?;
        faults.handle().start_for(secs(15));
        faults
    }};
}

fn drill(trouble: Trouble) -> tower_keep::drill::Report {
    let with_stack = |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(250)).build()?;
        Ok(stack.layer(faults!().layer(upstream)))
    };
    let without = |upstream| Ok(faults!().layer(upstream));
    Drill::http(with_stack)
        .against(without)
        .named("faults alone")
        .clients(20)
        .patience(ms(800))
        .lasting(secs(20))
        .traffic(Poisson::per_second(100), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .upstream(
            "shop",
            Servers::new(8).service(Lognormal::median(ms(10)).sigma(0.5)),
        )
        .trouble(secs(12)..secs(15), "shop", trouble)
        .seeds(0..3)
        .run()
}

#[test]
fn a_stack_over_faults_answers_more_than_none() {
    let report = drill(Trouble::fails(0.2));
    let answered = report.each(Measure::Answered).value();
    let alone = report.each(Measure::Answered).of("faults alone").value();
    assert!(
        answered > alone + 0.02,
        "{answered} against {alone}\n{report}"
    );
    report.each(Measure::Answered).at_least(0.95);
    report
        .each(Measure::AnsweredWhileWell)
        .of("no stack")
        .at_least(0.99);
    report.each(Measure::Sent).at_most(1.3);
    report.reached([Reached::RetryRecovered]);
}

#[test]
fn a_drill_over_faults_is_the_same_for_a_seed() {
    let run = || {
        let report = drill(Trouble::fails(0.2)).json().to_string();
        let mut report: serde_json::Value = serde_json::from_str(&report).unwrap();
        // Real time.
        report.as_object_mut().unwrap().remove("took").unwrap();
        report
    };
    assert_eq!(run(), run());
}
