//! A client that is never rejected: it reads the server's limit from its answers, and waits.
//!
//! With each answer the server sends how many requests are left (`RateLimit: "default";r=0;t=1`).
//! At zero a client with the layer stops until the server has some again, and its calls wait for
//! that. A client without the layer gets 429s.
//!
//! `cargo run --example polite_client`

use std::{future::IntoFuture, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_keep::{
    protocol::http::{Client as HttpClient, Server},
    rate_limit::{Rate, RateLimitLayer},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let limit = RateLimitLayer::builder(Rate::per_second(10))
        .advertise(true)
        .protocol(Server::new())
        .build()?;
    let app = Router::new().route("/", get(async || "hello")).layer(limit);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let honor = RateLimitLayer::builder(Rate::per_second(1000))
        .honor_retry_after(Duration::from_secs(60))
        .max_wait(Duration::from_secs(10))
        .protocol(HttpClient::new())
        .build()?;
    let polite = ServiceBuilder::new().layer(honor).service(client.clone());

    let polite = turned_away(polite, &url).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rude = turned_away(client, &url).await?;
    println!("turned away of 25 requests: the polite client {polite} times, the rude one {rude}");
    assert_eq!(polite, 0);
    assert!(rude > 10);
    Ok(())
}

/// How many of 25 requests, one after the other, are answered with 429.
async fn turned_away<S, B>(mut client: S, url: &str) -> Result<usize, BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
{
    let mut turned_away = 0;
    for _ in 0..25 {
        let request = Request::get(url).body(Empty::new())?;
        let response = client
            .ready()
            .await
            .map_err(Into::into)?
            .call(request)
            .await
            .map_err(Into::into)?;
        turned_away += usize::from(response.status() == 429);
    }
    Ok(turned_away)
}
