//! Drills as users write them over what they have.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use http::{Request, StatusCode};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::{follow_redirect::FollowRedirectLayer, trace::TraceLayer};
use tower_keep::{
    circuit_breaker::CircuitBreakerLayer,
    drill::{
        Body, Drill, HttpUpstream, Measure, PlainUpstream, Poisson, Reached, Servers, Steady,
        Trouble, ms, secs,
    },
    protocol::{Plain, grpc},
    stack,
};

use crate::{bare, complaint, shop, to_the_shop};

#[test]
fn a_router_that_calls_others_is_drilled_as_a_server() {
    async fn item(
        State(stock): State<HttpUpstream>,
        Path(item): Path<u64>,
    ) -> Result<String, StatusCode> {
        let ask = Request::get(format!("http://stock/{item}")).body(Body::default());
        let answer = stock.oneshot(ask.unwrap()).await;
        let answer = answer.map_err(|_| StatusCode::BAD_GATEWAY)?;
        match answer.status() {
            StatusCode::OK => Ok(format!("item {item}")),
            status => Err(status),
        }
    }
    let report = Drill::http_server(|upstream| {
        let stack = stack::server().http().max_in_flight(10).timeout(ms(300));
        let router = Router::new().route("/items/{item}", get(item));
        Ok(router.with_state(upstream).layer(stack.build()?))
    })
    .patience(ms(500))
    .lasting(secs(10))
    .traffic(Poisson::per_second(100), |n| {
        Request::get(format!("/items/{n}"))
    })
    .upstream("stock", Servers::new(4).service(ms(20)))
    .trouble(secs(3)..secs(5), "stock", Trouble::capacity(0.25))
    .trouble(secs(7)..secs(8), "stock", Trouble::hang())
    .seeds(0..2)
    .run();
    report.each(Measure::AnsweredWhileWell).at_least(1.0);
    report.each(Measure::Recovery).at_most(ms(500));
    report.reached([Reached::BulkheadFull, Reached::AttemptTimeout]);
}

#[test]
fn bodies_reach_the_handler_and_come_back() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let router = move || {
        let seen = Arc::clone(&counted);
        let echo = async move |body: String| {
            seen.fetch_add(body.len(), Ordering::Relaxed);
            body
        };
        Router::new().route("/echo", post(echo))
    };
    let report = Drill::http(|upstream| Ok(stack::client().http().build()?.layer(upstream)))
        .lasting(secs(2))
        .traffic(Steady::per_second(50), |_| {
            Request::post("http://shop/echo").body("hello").unwrap()
        })
        .upstream("shop", Servers::new(8))
        .handler("shop", router)
        .seeds(0..1)
        .run();
    report.each(Measure::Answered).at_least(1.0);
    // Twice: with the stack and without.
    assert_eq!(seen.load(Ordering::Relaxed), 2 * 5 * 99);
}

#[test]
fn a_tonic_service_makes_the_responses() {
    let check = grpc::Client::new().idempotent(["/grpc.health.v1.Health/Check"]);
    let report = Drill::grpc(move |upstream| {
        let stack = stack::client().grpc(check).attempt_timeout(ms(300));
        Ok(stack.build()?.layer(upstream))
    })
    .lasting(secs(6))
    .traffic(Steady::per_second(50), |_| {
        // A message of no bytes: the health of all.
        let request = Request::post("http://shop/grpc.health.v1.Health/Check");
        let request = request.header("content-type", "application/grpc");
        request.header("te", "trailers").body(vec![0; 5]).unwrap()
    })
    .upstream("shop", Servers::new(8))
    .handler("shop", || {
        let (_reporter, health) = tonic_health::server::health_reporter();
        health
    })
    .trouble(secs(2)..secs(3), "shop", Trouble::fails(0.2))
    .seeds(0..2)
    .run();
    report.each(Measure::AnsweredWhileWell).at_least(1.0);
    report.reached([Reached::RetryRecovered]);
    // Nobody serves another method.
    let report = Drill::grpc(|upstream: HttpUpstream| Ok(upstream))
        .lasting(secs(2))
        .traffic(Steady::per_second(10), |_| {
            let request = Request::post("http://shop/shop.Shop/Get");
            request.header("content-type", "application/grpc")
        })
        .upstream("shop", Servers::new(8))
        .handler("shop", || tonic_health::server::health_reporter().1)
        .seeds(0..1)
        .run();
    report.each(Measure::Failed).at_least(1.0);
}

#[test]
fn layers_of_others_stand_in_the_stack() {
    let report = Drill::http(|upstream| {
        let stack = stack::client().http().attempt_timeout(ms(300)).build()?;
        let service = ServiceBuilder::new()
            .layer(TraceLayer::new_for_http())
            .layer(FollowRedirectLayer::new())
            .layer(tower::buffer::BufferLayer::new(64))
            .layer(stack)
            .service(upstream);
        Ok(service)
    })
    .clients(3)
    .lasting(secs(10))
    .traffic(Poisson::per_second(100), to_the_shop)
    .upstream("shop", shop())
    .trouble(secs(3)..secs(5), "shop", Trouble::refused())
    .seeds(0..2)
    .run();
    report.each(Measure::AnsweredWhileWell).at_least(1.0);
    report.reached([Reached::CircuitOpened]);
}

/// A query of a database, and its error.
#[derive(Debug, Clone)]
struct Query(u64);

#[derive(Debug)]
enum Failed {
    Missing,
    Down,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Failed {}

#[test]
fn errors_of_ones_own_are_classified_in_a_drill() {
    let missing = |error: &Failed| matches!(error, Failed::Missing);
    let report = Drill::plain(move |upstream: PlainUpstream| {
        let database = service_fn(move |query: Query| {
            let upstream = upstream.to("database").answering::<Vec<String>>();
            async move {
                let rows = upstream.oneshot(()).await.map_err(|_| Failed::Down)?;
                if query.0 % 2 == 0 {
                    Ok(rows)
                } else {
                    Err(Failed::Missing)
                }
            }
        });
        let protocol = Plain::classify(move |result: Result<&Vec<String>, &Failed>| match result {
            Err(error) if !missing(error) => tower_keep::Outcome::Failure,
            _ => tower_keep::Outcome::Success,
        });
        let breaker = CircuitBreakerLayer::builder().protocol(protocol).build()?;
        Ok(breaker.layer(database))
    })
    .lasting(secs(10))
    .traffic(Steady::per_second(50), Query)
    .upstream("database", Servers::new(8))
    .seeds(0..1)
    .run();
    report.each(Measure::Failed).at_least(0.49);
    complaint(|| report.reached([Reached::CircuitOpened]));
}

#[test]
fn a_panic_names_the_seed() {
    let panics = |upstream: HttpUpstream| -> Result<_, BoxError> {
        let calls = Arc::new(AtomicUsize::new(0));
        Ok(service_fn(move |request: Request<Body>| {
            assert!(
                calls.fetch_add(1, Ordering::Relaxed) < 5,
                "a bug of the user's"
            );
            upstream.clone().oneshot(request)
        }))
    };
    let text = complaint(|| {
        let drill = Drill::http(panics)
            .lasting(secs(2))
            .traffic(Steady::per_second(10), to_the_shop)
            .upstream("shop", shop())
            .seeds(7..9);
        let _ = drill.run();
    });
    assert!(text.contains("TOWER_KEEP_SEED=7"), "{text}");
    assert!(text.contains("a bug of the user's"), "{text}");
}

#[test]
fn a_stack_that_is_never_ready_ends_with_its_callers() {
    #[derive(Clone)]
    struct Never;
    impl tower::Service<Request<Body>> for Never {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Self::Response, Infallible>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Pending
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }
    let report = Drill::http(|_| Ok(Never))
        .patience(ms(100))
        .lasting(secs(2))
        .traffic(Steady::per_second(10), to_the_shop)
        .upstream("shop", shop())
        .seeds(0..1)
        .run();
    report.each(Measure::Left).at_least(1.0);
    report.each(Measure::Answered).of("no stack").at_least(1.0);
}

#[test]
fn hosts_are_known_with_ports_and_in_capitals() {
    let report = Drill::http(bare)
        .lasting(secs(2))
        .traffic(Steady::per_second(10), |n| {
            let host = ["cart:8080", "CART", "cart"][usize::try_from(n % 3).unwrap()];
            Request::get(format!("http://{host}/{n}"))
        })
        .upstream("shop", Servers::new(1))
        .upstream("cart", Servers::new(8))
        .trouble(ms(1)..secs(2), "shop", Trouble::refused())
        .seeds(0..1)
        .run();
    report.each(Measure::Answered).at_least(1.0);
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn mean_waits_are_those_of_queueing_theory() {
    // M/M/8 at nine tenths of what it can do: by Erlang's formula calls wait for 0.877 service
    // times, and are served for one.
    for (mean, lasting) in [(ms(1), 30), (ms(20), 600)] {
        let servers = Servers::new(8).service(tower_keep::drill::Exponential::mean(mean));
        let rate = 0.9 * 8.0 / mean.as_secs_f64();
        let report = Drill::plain(|upstream: PlainUpstream| Ok(upstream))
            .patience(secs(60))
            .lasting(secs(lasting))
            .traffic(Poisson::per_second(rate), |_| ())
            .upstream("shop", servers)
            .seeds(0..20)
            .run();
        let waited = report.each(Measure::WaitMean).mean().value() / mean.as_secs_f64() - 1.0;
        assert!((waited / 0.877 - 1.0).abs() < 0.03, "{mean:?}: {waited}");
        report.each(Measure::Answered).at_least(1.0);
    }
}
