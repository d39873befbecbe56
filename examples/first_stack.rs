//! A server and a client, each behind a ready-made stack.

use std::{future::IntoFuture, time::Duration};

use axum::{Router, http::Request, routing::get};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};
use tower_keep::{Rejected, RejectedKind, rate_limit::Rate, stack};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    let server = stack::server()
        .http()
        .rate(Rate::per_second(500))
        .timeout(Duration::from_secs(1))
        .build()?;
    let app = Router::new()
        .route("/", get(async || "hello"))
        .layer(server);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());

    let stack = stack::client()
        .http()
        .total_timeout(Duration::from_secs(1)) // how long callers wait
        .attempt_timeout(Duration::from_millis(200)) // what a good answer takes, and some
        .rate(Rate::per_second(150)) // what the upstream can do
        .max_in_flight(16)
        .build()?;
    let client = stack.layer(Client::builder(TokioExecutor::new()).build_http());

    let request = || Request::get(&url).body(Empty::<Bytes>::new());
    assert_eq!(client.clone().oneshot(request()?).await?.status(), 200);

    // What the stack rejects is an error that says why.
    let error = loop {
        if let Err(error) = client.clone().oneshot(request()?).await {
            break error;
        }
    };
    let rejected = Rejected::find(&*error).expect("a rejection");
    assert_eq!(rejected.kind, RejectedKind::RateLimited);
    Ok(())
}
