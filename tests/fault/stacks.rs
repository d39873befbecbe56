//! Faults beneath both stacks: each does what it is for, and is well again when they end.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tokio::time::{advance, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    circuit_breaker::BreakerState,
    fault::{Fault, FaultLayer},
    keyed,
    protocol::http::{Client, Server},
    stack,
};

use crate::{REASON, ms, now, secs, since};

fn well<B: Send + 'static>()
-> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync {
    service_fn(async |_: Request<B>| Ok(Response::new(Full::from("well"))))
}

fn get(uri: impl AsRef<str>) -> Request<Empty<Bytes>> {
    Request::get(uri.as_ref()).body(Empty::new()).unwrap()
}

/// What a caller got: a status, or the kind of a rejection.
#[derive(Debug, PartialEq)]
enum Got {
    Status(u16),
    Rejected(RejectedKind),
    Error,
}

fn got<B>(result: Result<Response<B>, BoxError>) -> Got {
    match result {
        Ok(response) => Got::Status(response.status().as_u16()),
        Err(error) => match Rejected::find(&*error) {
            Some(rejected) => Got::Rejected(rejected.kind),
            None => Got::Error,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_stack_retries_what_fails_now_and_then() {
    let faults = FaultLayer::builder(REASON)
        .protocol(Client::new())
        .fault(Fault::status(503).share(0.1))
        .seed(1)
        .build()
        .unwrap();
    let stack = stack::client().http().build().unwrap();
    let service = stack.layer(faults.layer(well()));
    let run = async || {
        let mut answered = 0;
        for n in 0..200 {
            let result = service
                .clone()
                .oneshot(get(format!("http://shop/{n}")))
                .await;
            answered += u32::from(got(result) == Got::Status(200));
            sleep(ms(50)).await;
        }
        answered
    };
    assert_eq!(run().await, 200);
    faults.handle().start_for(secs(600));
    let answered = run().await;
    let injected = faults.handle().snapshot().injected["status"];
    assert!((10..40).contains(&injected), "{injected}");
    // All but those whose retry fails too.
    assert!(answered > 195, "{answered}");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_for_a_refused_host_and_closes() {
    let faults = FaultLayer::builder(REASON)
        .protocol(Client::new())
        .fault(Fault::refused().when(|request: &Request<_>| request.uri().host() == Some("shop")))
        .build()
        .unwrap();
    let stack = stack::client().http().build().unwrap();
    let service = stack.layer(faults.layer(well()));
    let ask = async |host: &str| {
        let result = service
            .clone()
            .oneshot(get(format!("http://{host}/")))
            .await;
        got(result)
    };
    faults.handle().start_for(secs(20));
    let mut rejected = 0;
    for _ in 0..40 {
        rejected += u32::from(ask("shop").await == Got::Rejected(RejectedKind::CircuitOpen));
        assert_eq!(ask("stock").await, Got::Status(200));
        sleep(ms(100)).await;
    }
    assert!(rejected > 20, "{rejected}");
    let host = keyed::host()(&get("http://shop/")).unwrap();
    let circuit = stack.handle().circuit_breaker.key(&host).unwrap();
    assert_ne!(circuit.state(), BreakerState::Closed);

    advance(secs(20)).await;
    let start = now();
    while ask("shop").await != Got::Status(200) {
        sleep(ms(10)).await;
    }
    assert!(since(start) <= secs(2), "{:?}", since(start));
}

#[tokio::test(start_paused = true)]
async fn a_client_stack_bounds_what_hangs() {
    let faults = FaultLayer::builder(REASON)
        .protocol(Client::new())
        .fault(Fault::hang())
        .build()
        .unwrap();
    let stack = stack::client().http().attempt_timeout(ms(200));
    let stack = stack.total_timeout(secs(1)).build().unwrap();
    let service = stack.layer(faults.layer(well()));
    faults.handle().start_for(secs(600));
    let start = now();
    let result = service.oneshot(get("http://shop/")).await;
    let result = got(result);
    assert_eq!(result, Got::Rejected(RejectedKind::TimedOut));
    assert!(since(start) <= secs(1));
    assert_eq!(faults.handle().snapshot().active, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_stack_bounds_a_handler_that_hangs() {
    let faults = FaultLayer::builder(REASON)
        .protocol(Server::new())
        .fault(Fault::hang().share(0.5))
        .seed(1)
        .build()
        .unwrap();
    let stack = stack::server().http().max_in_flight(40).timeout(secs(1));
    let stack = stack.build().unwrap();
    let service = stack.layer(faults.layer(well()));
    faults.handle().start_for(secs(600));
    let mut slow = 0;
    for _ in 0..40 {
        let start = now();
        let response = service.clone().oneshot(get("/")).await.unwrap();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(since(start), secs(1));
            slow += 1;
        }
    }
    assert!((10..30).contains(&slow), "{slow}");
    faults.handle().stop();
    let response = service.oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
