//! Defaults that did harm, each as a drill shows it.

use tower::Layer;
use tower_keep::{
    drill::{Drill, Exponential, Measure, Poisson, Servers, Trouble, ms, secs},
    rate_limit::Rate,
    stack,
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
