//! Injected faults between a client's stack and its upstream: how the stack handles errors, slow
//! answers and refused connections, and that it recovers when they end.
//!
//! `cargo run --features fault --example fault_injection`

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client as Hyper, rt::TokioExecutor};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_keep::{
    fault::{Delay, Fault, FaultLayer},
    protocol::http::Client,
    stack,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // An upstream that is well.
    let app = Router::new().route("/orders/{id}", get(async || "three apples"));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let upstream = listener.local_addr()?;
    tokio::spawn(async { axum::serve(listener, app).await });

    // Off, until they are started.
    let faults = FaultLayer::builder("an example of a game day")
        .protocol(Client::new())
        .fault(Fault::delay(Delay::median(ms(5)).p99(ms(40))).share(0.5))
        .fault(Fault::refused().share(0.05))
        .fault(Fault::status(503).share(0.1))
        .max_active(50)
        .seed(7)
        .build()?;
    let handle = faults.handle();

    let hyper = Hyper::builder(TokioExecutor::new());
    let alone = faults.layer(hyper.build_http());
    let stack = ServiceBuilder::new()
        .layer(stack::client().http().attempt_timeout(ms(250)).build()?)
        .layer(faults)
        .service(hyper.build_http());

    let before = answered(&stack, upstream).await?;
    handle.start_for(Duration::from_secs(60));
    let without_stack = answered(&alone, upstream).await?;
    let with_stack = answered(&stack, upstream).await?;
    let injected = handle.snapshot().injected;
    handle.stop();
    let after = answered(&stack, upstream).await?;

    println!("injected: {injected:?}");
    println!("answered of {CALLS}: {before} before, {after} after");
    println!("with faults: {with_stack} with a stack, {without_stack} without");
    assert_eq!((before, after), (CALLS, CALLS));
    assert!(without_stack < CALLS * 95 / 100);
    assert!(with_stack >= CALLS * 97 / 100);
    assert!(injected.values().all(|count| *count > 0));
    Ok(())
}

/// How many of some calls are answered, of ten callers.
async fn answered<S, B>(service: &S, upstream: SocketAddr) -> Result<u32, BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = http::Response<B>> + Clone,
{
    let caller = async |caller: u32| {
        let mut answered = 0;
        for order in (caller..CALLS).step_by(10) {
            let request = Request::get(format!("http://{upstream}/orders/{order}"));
            let request = request.body(Empty::new())?;
            if let Ok(response) = service.clone().oneshot(request).await {
                answered += u32::from(response.status() == StatusCode::OK);
            }
        }
        Ok::<_, BoxError>(answered)
    };
    let answered = try_join_all((0..10).map(caller)).await?;
    Ok(answered.into_iter().sum())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const CALLS: u32 = 200;
