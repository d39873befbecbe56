//! The bounds of what `cargo bench --features drill --bench simulation` prints of whole stacks.

use tower_keep::drill::{Measure, Report, ms, secs};

use drilled::{Bulkhead, Retries};

use crate::few_seeds;

#[path = "../../benches/simulation/outages.rs"]
mod drilled;

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn the_circuits_of_a_stack_recover_at_once() {
    let circuits = drilled::circuits().map(|(name, circuit)| (name, circuit, Retries::Layer));
    let [none, half_a_minute, .., of_the_stack] = circuits;
    let report = drilled::compare([none, half_a_minute, of_the_stack], 50, 0.8);
    let recovery = |column| report.each(Measure::Recovery).of(column);
    recovery("no circuits").at_least(secs(10));
    // An outage of its own.
    recovery("30 s").at_least(secs(10));
    recovery("as a client's stack").at_most(ms(1500));
}

fn without_circuits<const N: usize>(
    retries: [(&'static str, Retries); N],
    clients: usize,
    load: f64,
) -> Report {
    let stacks = retries.map(|(name, retries)| (name, None, retries));
    drilled::compare(stacks, clients, load)
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn retries_that_failures_pay_for_never_end() {
    let retries = [
        ("unbounded", Retries::Unbounded),
        ("windowed", Retries::Windowed),
    ];
    let report = without_circuits(retries, 50, 0.8);
    for (column, _) in retries {
        let recovery = report.each(Measure::Recovery).of(column);
        recovery.at_least(secs(35));
    }
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn retries_that_successes_pay_for_end() {
    let retries = [
        ("none", Retries::None),
        ("a budget of ten", Retries::Funded),
        ("the layer's own", Retries::Layer),
    ];
    // Seconds to recover: without retries, and with.
    for (load, bare, most) in [(0.7, 8, 10), (0.8, 18, 21)] {
        let report = without_circuits(retries, 50, load);
        for (column, seconds) in retries
            .map(|(name, _)| name)
            .into_iter()
            .zip([bare, most, most])
        {
            let recovery = report.each(Measure::Recovery).of(column);
            recovery.at_most(secs(seconds));
        }
    }
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn a_thousand_clients_that_call_rarely_make_no_storm() {
    let retries = [
        ("a budget of ten", Retries::Funded),
        ("the layer's own", Retries::Layer),
    ];
    let report = without_circuits(retries, 1000, 0.8);
    let sent = |column| report.each(Measure::Sent).of(column).mean().value();
    assert!(sent("the layer's own") < 1.1, "{report}");
    assert!(sent("a budget of ten") > 1.15, "{report}");
    let recovery = report.each(Measure::Recovery).of("the layer's own");
    recovery.at_most(secs(32));
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn half_the_places_recover_at_once_and_more_never() {
    for is_fixed in [false, true] {
        let recovers = |places| {
            let bulkhead = Bulkhead {
                places,
                is_fixed,
                goes_on: true,
            };
            let report = bulkhead.drill(0.9).seeds(0..few_seeds()).run();
            report.each(Measure::Recovery).mean().value()
        };
        assert!(recovers(50) < 1.0, "fixed: {is_fixed}");
        assert!(recovers(120) > 30.0, "fixed: {is_fixed}");
    }
}
