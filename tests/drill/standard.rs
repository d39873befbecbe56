//! Both stacks pass the standard drill. `DRILL_SEEDS` sets how many seeds: `.ci/run` takes 200, and
//! `scripts/drill` 10 000.

use tower::Layer;
use tower_keep::{
    drill::{Drill, Measure, Reached, ms, secs},
    stack,
};

use crate::seeds;

#[test]
fn the_client_stack_passes_the_standard_drill() {
    let stack = |upstream| Ok(stack::client().http().build()?.layer(upstream));
    let report = Drill::http(stack).standard().seeds(0..seeds()).run();
    report.each(Measure::AnsweredWhileWell).at_least(0.99);
    report.each(Measure::Recovery).at_most(secs(2));
    report.each(Measure::Sent).at_most(1.0);
    let without = report.each(Measure::Answered).of("no stack").mean().value();
    report.each(Measure::Answered).mean().at_least(without);
    report.reached([
        Reached::CircuitOpened,
        Reached::CircuitClosed,
        Reached::RetryRecovered,
        Reached::BudgetDenied,
    ]);
}

#[test]
fn the_server_stack_passes_the_standard_drill() {
    let stack = |handler| {
        let stack = stack::server().http().max_in_flight(40).timeout(secs(1));
        Ok(stack.build()?.layer(handler))
    };
    let report = Drill::http_server(stack).standard().seeds(0..seeds()).run();
    report.each(Measure::AnsweredWhileWell).at_least(0.999);
    report.each(Measure::Recovery).at_most(ms(500));
    report.reached([Reached::BulkheadFull]);
}
