//! A greedy client of a server, and what is left to the others: what the guide says of shares.

use http::Request;
use tower::{BoxError, Layer, util::BoxCloneSyncService};
use tower_keep::{
    Criticality::{self, CriticalPlus, Sheddable},
    bulkhead::BulkheadLayer,
    drill::{Body, Drill, Exponential, HttpUpstream, Measure, Poisson, Servers, ms, secs},
    stack,
};

use crate::{bare, few_seeds};

type Server = BoxCloneSyncService<Request<Body>, http::Response<Body>, BoxError>;

/// The share of the calls of nine clients that are answered. A tenth calls four times as much as
/// the server can do.
fn others(server: fn(HttpUpstream) -> Result<Server, BoxError>) -> f64 {
    let get = |number: u64, client: u64| {
        let request = Request::get(format!("http://shop/{number}"));
        request.header("x-client", client)
    };
    let greedy = Drill::http(bare)
        .patience(ms(100))
        .traffic(Poisson::per_second(4000), move |number| get(number, 9));
    let report = Drill::http(bare)
        .patience(ms(100))
        .lasting(secs(10))
        .traffic(Poisson::per_second(500), move |number| {
            get(number, number % 9)
        })
        .upstream("shop", Servers::new(10).service(Exponential::mean(ms(10))))
        .tier("shop", server)
        .beside("greedy", greedy)
        .seeds(0..few_seeds())
        .run();
    report.each(Measure::Answered).of_clients("main").value()
}

fn client(request: &Request<Body>) -> Option<Vec<u8>> {
    let client = request.headers().get("x-client")?;
    Some(client.as_bytes().to_vec())
}

/// The server knows the greedy client.
fn class(request: &Request<Body>) -> Criticality {
    match client(request).as_deref() {
        Some(b"9") => Sheddable,
        _ => CriticalPlus,
    }
}

/// First come, first served.
fn bulkhead(handler: HttpUpstream) -> Result<Server, BoxError> {
    let stack = stack::server().http().max_in_flight(50);
    Ok(Server::new(stack.build()?.layer(handler)))
}

fn shares(handler: HttpUpstream) -> Result<Server, BoxError> {
    let bulkhead = BulkheadLayer::builder(5).keyed_by(client).within(50);
    let stack = stack::server().http().bulkhead(bulkhead);
    Ok(Server::new(stack.build()?.layer(handler)))
}

fn by_key(handler: HttpUpstream) -> Result<Server, BoxError> {
    let bulkhead = BulkheadLayer::builder(5).keyed_by(client);
    let stack = stack::server().http().bulkhead(bulkhead);
    Ok(Server::new(stack.build()?.layer(handler)))
}

fn by_class(handler: HttpUpstream) -> Result<Server, BoxError> {
    let bulkhead = BulkheadLayer::builder(50).criticality(class);
    let stack = stack::server().http().bulkhead(bulkhead);
    Ok(Server::new(stack.build()?.layer(handler)))
}

fn by_class_with_waits(handler: HttpUpstream) -> Result<Server, BoxError> {
    let bulkhead = BulkheadLayer::builder(10).criticality(class);
    let bulkhead = bulkhead.max_wait(ms(30)).max_waiting(25);
    let stack = stack::server().http().bulkhead(bulkhead);
    Ok(Server::new(stack.build()?.layer(handler)))
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn a_greedy_client_leaves_the_others_their_part() {
    let found = [bulkhead, shares, by_key, by_class, by_class_with_waits].map(others);
    println!("{found:?}");
    let [bulkhead, shares, by_key, by_class, by_class_with_waits] = found;
    assert!(bulkhead < 0.5, "{bulkhead}");
    assert!(shares > 0.97, "{shares}");
    assert!(by_key > 0.998, "{by_key}");
    assert!(by_class > 0.998, "{by_class}");
    assert!(by_class_with_waits > 0.96, "{by_class_with_waits}");
}
