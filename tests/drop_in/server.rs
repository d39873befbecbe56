//! On an axum `Router`: rejections are responses.

use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::header::RETRY_AFTER,
    response::{IntoResponse, Response},
    routing::{MethodRouter, Route, get},
};
use tower::{Layer, Service, ServiceExt};
use tower_keep::{
    algorithm::TokenBucket, bulkhead::BulkheadLayer, circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer, protocol::http::Server, rate_limit::RateLimitLayer, stack,
    timeout::TimeoutLayer,
};

use super::{ONE, SECOND, Trip};

/// A layer's name, routers that it stands on, how to make it reject, and what it answers then.
struct Case(&'static str, [Router; 3], Trip, u16);

fn handlers() -> [(&'static str, MethodRouter); 2] {
    let hang = get(async || std::future::pending::<Infallible>().await.into_response());
    [("/", get(async || "hello")), ("/hang", hang)]
}

fn routes() -> Router {
    let [(hello, greets), (hang, hangs)] = handlers();
    Router::new().route(hello, greets).route(hang, hangs)
}

/// On all routes, on those that match, and on a router that is nested in another.
fn on<L>(layer: &L) -> [Router; 3]
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Response: IntoResponse, Error: Into<Infallible>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let nested = Router::new().nest("/api", routes().layer(layer.clone()));
    [
        routes().layer(layer.clone()),
        routes().route_layer(layer.clone()),
        nested,
    ]
}

fn cases() -> Vec<Case> {
    let protocol = Server::new();
    let limit = || RateLimitLayer::builder(ONE).burst(1).protocol(protocol);
    let key = |_: &Request| Some(());
    let own = |(): &()| TokenBucket::new(ONE, 1);
    let bulkhead = || BulkheadLayer::builder(1).protocol(protocol);
    let breaker = || CircuitBreakerLayer::builder().protocol(protocol);
    let timeout = TimeoutLayer::builder(SECOND).protocol(protocol);
    let circuit = breaker().build().unwrap();
    circuit.handle().force_open();
    let circuits = breaker().keyed_by(key).min_calls(1).build().unwrap();
    let gates = GateLayer::new((
        RateLimitLayer::builder(ONE).burst(1).gate().unwrap(),
        BulkheadLayer::builder(9).gate().unwrap(),
    ));
    let rated = stack::server().http().rate(ONE).burst(1).max_in_flight(9);
    let bounded = || stack::server().http().max_in_flight(1);
    // One state for all three routers would be used up by the first: each has a layer of its own.
    let each = |make: &dyn Fn() -> [Router; 3]| {
        let [[first, _, _], [_, second, _], [_, _, third]] = [make(), make(), make()];
        [first, second, third]
    };
    let keyed_circuit = on(&circuits);
    let stacks = on(&rated.build().unwrap());
    let gates = on(&gates.protocol(protocol));
    vec![
        Case(
            "rate limit",
            each(&|| on(&limit().build().unwrap())),
            Trip::UsedUp,
            429,
        ),
        Case(
            "keyed rate limit",
            each(&|| on(&limit().keyed_by(key).build().unwrap())),
            Trip::UsedUp,
            429,
        ),
        Case(
            "per-key rate limit",
            each(&|| on(&limit().per_key(key, own).build().unwrap())),
            Trip::UsedUp,
            429,
        ),
        Case(
            "bulkhead",
            each(&|| on(&bulkhead().build().unwrap())),
            Trip::InFlight,
            503,
        ),
        Case(
            "keyed bulkhead",
            each(&|| on(&bulkhead().keyed_by(key).build().unwrap())),
            Trip::InFlight,
            503,
        ),
        Case("circuit breaker", on(&circuit), Trip::Forced, 503),
        Case("timeout", on(&timeout.build().unwrap()), Trip::Hangs, 503),
        Case(
            "stack, in flight",
            each(&|| on(&bounded().build().unwrap())),
            Trip::InFlight,
            503,
        ),
        Case(
            "stack, timeout",
            on(&bounded().timeout(SECOND).build().unwrap()),
            Trip::Hangs,
            503,
        ),
        // Shared by the three routers: the first call uses up what all of them may.
        Case(
            "gates, one limit for three routers",
            gates,
            Trip::UsedUp,
            429,
        ),
        Case(
            "stack, one limit for three routers",
            stacks,
            Trip::UsedUp,
            429,
        ),
        Case(
            "keyed circuit breaker, closed",
            keyed_circuit,
            Trip::Forced,
            200,
        ),
    ]
}

async fn ask(router: &Router, path: &str) -> Response {
    let request = Request::get(path).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_layer_protects_a_router() {
    for Case(layer, routers, trip, expected) in cases() {
        let shares = layer.contains("one limit");
        for (place, router) in routers.into_iter().enumerate() {
            let name = format!("{layer}, router {place}");
            let prefix = if place == 2 { "/api" } else { "" };
            let (hello, hang) = (format!("{prefix}/"), format!("{prefix}/hang"));
            let hello = hello.trim_end_matches('/');
            let hello = if hello.is_empty() { "/" } else { hello };
            let held = match trip {
                Trip::UsedUp if place == 0 || !shares => {
                    assert_eq!(ask(&router, hello).await.status(), 200, "{name}");
                    None
                }
                Trip::InFlight => {
                    let router = router.clone();
                    let path = hang.clone();
                    let held = tokio::spawn(async move { ask(&router, &path).await });
                    tokio::task::yield_now().await;
                    Some(held)
                }
                _ => None,
            };
            let path = if trip == Trip::Hangs { &hang } else { hello };
            let response = ask(&router, path).await;
            assert_eq!(response.status().as_u16(), expected, "{name}");
            // What was forced, is full or hangs does not know when it will do better. A stack
            // names a time all the same, so that clients do not come back at once.
            let hinted = response.headers().contains_key(RETRY_AFTER);
            let guesses = layer.starts_with("stack") && expected == 503;
            assert_eq!(hinted, expected == 429 || guesses, "{name}");
            if let Some(held) = held {
                held.abort();
                let _ = held.await;
                assert_eq!(ask(&router, hello).await.status(), 200, "{name}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_covers_the_fallback_a_route_layer_not() {
    let layer = || {
        let limit = RateLimitLayer::builder(ONE).burst(1);
        limit.protocol(Server::new()).build().unwrap()
    };
    let router = || {
        let router = Router::new().route("/", get(async || "hello"));
        router.fallback(async || "none")
    };
    for (router, covered) in [
        (router().layer(layer()), true),
        (router().route_layer(layer()), false),
    ] {
        assert_eq!(ask(&router, "/").await.status(), 200);
        assert_eq!(ask(&router, "/").await.status(), 429);
        let unknown = ask(&router, "/unknown").await.status();
        assert_eq!(unknown == 429, covered);
    }
}
