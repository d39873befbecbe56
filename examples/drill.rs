//! A drill of a client's stack before it goes to production: its behaviour in two minutes of
//! troubles, beside a stack without a budget, and beside none.
//!
//! `cargo run --release --features drill --example drill`

use std::time::Duration;

use http::Request;
use tower::{BoxError, Layer, Service};
use tower_keep::{
    drill::{
        Drill, HttpUpstream, Lognormal, Measure, Poisson, Reached, Servers, Trouble, ms, secs,
    },
    stack::{self, ClientBuilder},
};

fn main() {
    let report = Drill::http(|upstream| client(|stack| stack, upstream))
        .against(|upstream| {
            client(
                |stack| stack.retry(|retry| retry.without_budget()),
                upstream,
            )
        })
        .named("no budget")
        .clients(50)
        .patience(PATIENCE)
        .lasting(secs(60))
        .traffic(Poisson::per_second(RATE), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .upstream("shop", shop())
        .trouble(secs(10)..secs(20), "shop", Trouble::fails(0.5))
        .trouble(secs(30)..secs(40), "shop", Trouble::capacity(0.4))
        .seeds(0..20)
        .run();
    println!("{report}");

    // All is checked in each of the seeds.
    report.each(Measure::AnsweredWhileWell).at_least(0.99);
    report.each(Measure::Recovery).at_most(secs(2));
    report.each(Measure::Sent).at_most(1.1);
    report.reached([
        Reached::CircuitOpened,
        Reached::CircuitClosed,
        Reached::BudgetDenied,
    ]);

    // How much is left: the severest failure of a fifth of a minute that callers hardly see.
    let margin = Drill::http(|upstream| client(|stack| stack, upstream))
        .clients(50)
        .patience(PATIENCE)
        .lasting(secs(36))
        .traffic(Poisson::per_second(RATE), |n| {
            Request::get(format!("http://shop/{n}"))
        })
        .upstream("shop", shop())
        .seeds(0..5)
        .breaking_point(Trouble::fails);
    println!("the stack {margin}");
    assert!(margin.survived > Some(0.02), "{margin}");
}

/// What the program builds for its calls to the shop. A drill runs this very function.
fn client(
    change: impl FnOnce(ClientBuilder<Http>) -> ClientBuilder<Http>,
    upstream: HttpUpstream,
) -> Result<impl HttpService, BoxError> {
    let stack = stack::client()
        .http()
        .attempt_timeout(ms(200))
        .total_timeout(PATIENCE);
    Ok(change(stack).build()?.layer(upstream))
}

/// Eight workers of 20 ms: 57 % are busy.
fn shop() -> Servers {
    Servers::new(8)
        .service(Lognormal::median(ms(20)).sigma(0.5))
        .queue(100)
}

type Http = tower_keep::protocol::http::Client;

/// A client over HTTP, by whatever its layers make of it.
trait HttpService:
    Service<
        Request<tower_keep::drill::Body>,
        Response = http::Response<tower_keep::drill::Body>,
        Error = BoxError,
    > + Clone
    + 'static
{
}

impl<S> HttpService for S where
    S: Service<
            Request<tower_keep::drill::Body>,
            Response = http::Response<tower_keep::drill::Body>,
            Error = BoxError,
        > + Clone
        + 'static
{
}

const RATE: f64 = 200.0;
const PATIENCE: Duration = ms(500);
