//! What can be drilled: several kinds of clients, gRPC, chains of services, recorded traffic.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    Deadline,
    drill::{
        Body, Bursts, Drill, HttpUpstream, Measure, PlainUpstream, Poisson, Reached, Servers,
        Steady, Trouble, ms, secs,
    },
    protocol::grpc,
    stack,
};

use crate::{bare, complaint, shop, to_the_shop};

#[test]
fn kinds_of_clients_are_told_apart() {
    let stack = |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(300)).build()?;
        Ok(stack.layer(upstream))
    };
    let web = || {
        Drill::http(stack)
            .clients(20)
            .patience(ms(500))
            .lasting(secs(12))
            .traffic(Poisson::per_second(100), to_the_shop)
            .upstream("shop", shop())
            .trouble(secs(4)..secs(6), "shop", Trouble::refused())
            .seeds(0..2)
    };
    // It waits for a minute, and no stack of its own cuts it off.
    let batch = || {
        Drill::http(bare)
            .patience(secs(60))
            .traffic(Bursts::of(50).every(secs(3)), to_the_shop)
    };
    let report = web().beside("batch", batch()).run();
    let answered = |name| {
        let each = report.each(Measure::Answered);
        each.of_clients(name).mean().value()
    };
    // None of its bursts meets the trouble.
    assert!((answered("batch") - 1.0).abs() < 1e-9, "{report}");
    let all = report.each(Measure::Answered).mean().value();
    assert!(answered("main") < all && all < 1.0, "{report}");
    assert!(report.to_string().contains("  1 of batch"), "{report}");
    let text = complaint(|| {
        let each = report.each(Measure::Answered);
        each.of_clients("main").at_least(0.999);
    });
    assert!(text.contains("two runs of this seed are equal"), "{text}");
    let text = complaint(|| {
        let each = report.each(Measure::Answered);
        each.of_clients("none").at_least(0.0);
    });
    assert!(text.contains("no clients `none`"), "{text}");
    // Whoever is beside them, the traffic of the first is the same.
    let alone = web().run().each(Measure::Answered).mean().value();
    assert!((alone - answered("main")).abs() < 0.05, "{alone}");
}

#[test]
fn a_grpc_client_is_drilled() {
    let client = grpc::Client::new().idempotent(["/shop.Shop/Get"]);
    let stack = move |upstream| {
        let stack = stack::client().grpc(client).attempt_timeout(ms(300));
        Ok(stack.build()?.layer(upstream))
    };
    let get =
        |_| Request::post("http://shop/shop.Shop/Get").header("content-type", "application/grpc");
    let report = Drill::grpc(stack)
        .lasting(secs(12))
        .traffic(Poisson::per_second(100), get)
        .upstream("shop", shop())
        .trouble(secs(2)..secs(4), "shop", Trouble::fails(0.05))
        .trouble(secs(6)..secs(8), "shop", Trouble::fails(1.0))
        .seeds(0..2)
        .run();
    report.each(Measure::AnsweredWhileWell).at_least(1.0);
    report.each(Measure::Failed).of("no stack").at_least(0.1);
    report.reached([Reached::RetryRecovered, Reached::CircuitOpened]);
    // An error of the caller's own is not retried, and opens no circuit.
    let report = Drill::grpc(stack)
        .lasting(secs(6))
        .traffic(Poisson::per_second(100), get)
        .upstream("shop", shop())
        .trouble(secs(2)..secs(4), "shop", Trouble::fails(1.0).status(3))
        .seeds(0..1)
        .run();
    report.each(Measure::Failed).at_least(0.2);
    complaint(|| report.reached([Reached::Retried]));
    complaint(|| report.reached([Reached::CircuitOpened]));
}

/// A shop that asks the stock, each with a server's stack before it.
fn shop_tier(
    upstream: HttpUpstream,
    told: &Arc<Mutex<Vec<Duration>>>,
) -> Result<tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>, BoxError> {
    let stock = stack::client().http().attempt_timeout(ms(200)).build()?;
    let stock = stock.layer(upstream);
    let told = Arc::clone(told);
    let shop = service_fn(move |request: Request<Body>| {
        let (stock, told) = (stock.clone(), Arc::clone(&told));
        async move {
            let deadline = request.extensions().get::<Deadline>().copied();
            let mut ask = Request::get("http://stock/").body(Body::default())?;
            if let Some(deadline) = deadline {
                told.lock().unwrap().push(deadline.remaining());
                ask.extensions_mut().insert(deadline);
            }
            let answer = stock.oneshot(ask).await?;
            Ok::<_, BoxError>(answer.map(Body::new))
        }
    });
    let server = stack::server().http().max_in_flight(50).timeout(secs(1));
    let server = server.protocol(|server| server.read_deadline(true));
    let server = server.build()?.layer(shop);
    let server = server.map_response(|response: Response<_>| response.map(Body::new));
    Ok(tower::util::BoxCloneSyncService::new(server))
}

#[test]
fn services_call_each_other_with_their_deadlines() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let client = |upstream| {
        let stack = stack::client()
            .http()
            .protocol(|client| client.send_deadline(true));
        let stack = stack.total_timeout(ms(600));
        Ok(stack.attempt_timeout(ms(400)).build()?.layer(upstream))
    };
    let report = Drill::http(client)
        .lasting(secs(10))
        .traffic(Steady::per_second(50), to_the_shop)
        .tier("shop", move |upstream| shop_tier(upstream, &told))
        .upstream("stock", Servers::new(8))
        .trouble(secs(3)..secs(5), "stock", Trouble::hang())
        .seeds(0..2)
        .run();
    report.each(Measure::AnsweredWhileWell).at_least(1.0);
    report.each(Measure::Recovery).at_most(secs(2));
    // The stock's circuit opens in the shop.
    report.reached([Reached::CircuitOpened, Reached::AttemptTimeout]);
    let seen = seen.lock().unwrap();
    // With the client's stack what an attempt of it may take, and without one what the shop may.
    let told = |left| seen.iter().filter(|known| **known == left).count();
    assert!(told(ms(400)) > 500, "{}", told(ms(400)));
    assert_eq!(told(ms(400)) + told(secs(1)), seen.len());
}

#[test]
fn a_server_stands_before_a_modelled_handler() {
    let server = |handler: HttpUpstream| {
        let stack = stack::server().http().max_in_flight(20).timeout(ms(500));
        Ok(stack.build()?.layer(handler))
    };
    let client = |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(600)).build()?;
        Ok(stack.layer(upstream))
    };
    let report = Drill::http(client)
        .clients(10)
        .patience(secs(1))
        .lasting(secs(12))
        .traffic(Poisson::per_second(200), to_the_shop)
        .upstream("shop", shop())
        .tier("shop", server)
        .trouble(secs(4)..secs(6), "shop", Trouble::burst(10.0))
        .seeds(0..2)
        .run();
    report.each(Measure::AnsweredWhileWell).at_least(0.99);
    report.reached([Reached::BulkheadFull]);
}

#[test]
fn recorded_calls_are_asked_at_their_times() {
    // Not in order, and the last is after the end.
    let calls = [(30, 3), (10, 1), (20, 2), (2000, 4)];
    let calls = calls.map(|(at, number)| (ms(at), number));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stack = {
        let seen = Arc::clone(&seen);
        move |upstream: PlainUpstream| {
            let seen = Arc::clone(&seen);
            Ok(service_fn(move |number: u64| {
                seen.lock().unwrap().push(number);
                upstream.clone().oneshot(number)
            }))
        }
    };
    let report = Drill::plain(stack)
        .lasting(secs(1))
        .recorded(calls)
        .upstream("shop", Servers::new(8))
        .seeds(0..1)
        .run();
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
    assert!(report.json().contains("\"asked\":3"), "{report}");
    let requests = (0..100).map(|n| (ms(n * 10), Request::get("http://shop/").body(()).unwrap()));
    let report = Drill::http(bare)
        .lasting(secs(1))
        .recorded(requests)
        .upstream("shop", Servers::new(8))
        .seeds(0..1)
        .run();
    report.each(Measure::Answered).at_least(1.0);
    assert!(report.json().contains("\"asked\":100"), "{report}");
}

#[test]
fn the_report_says_who_pays_for_retries() {
    let report = Drill::http(|upstream| Ok(stack::client().http().build()?.layer(upstream)))
        .lasting(secs(10))
        .traffic(Steady::per_second(50), to_the_shop)
        .upstream("shop", shop())
        .trouble(secs(2)..secs(4), "shop", Trouble::fails(0.1))
        .trouble(secs(6)..secs(8), "shop", Trouble::refuses(0.1))
        .seeds(0..1)
        .run();
    let text = report.to_string();
    assert!(text.contains("of the retries, free: not_sent"), "{text}");
    assert!(
        text.contains("of the retries, paid by the budget: failure"),
        "{text}"
    );
    let json = report.json();
    assert!(json.contains("\"retries\":{\"failure\":"), "{json}");
}
