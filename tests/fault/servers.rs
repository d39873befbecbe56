//! What a client sees of each fault before an axum router, over a real connection.

use std::net::SocketAddr;

use axum::{Router, body::Body, http::Request, response::Response, routing::get};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client as Hyper, rt::TokioExecutor};
use tokio::{net::TcpListener, time::timeout};
use tower::BoxError;
use tower_keep::{
    fault::{Answers, Condition, Effect, Fault, FaultBody, FaultHandle, FaultLayer},
    protocol::http::Server,
};

use crate::{REASON, ms, now, secs, since};

type Answered = http::Response<Incoming>;

/// Serves letters behind faults that run, over HTTP/1 or HTTP/2.
async fn served<E, W>(fault: Fault<E, W>, http2: bool) -> (Asking, FaultHandle)
where
    E: Effect
        + Answers<Request<Body>, http::Response<FaultBody<Body>>, std::convert::Infallible>
        + Send
        + Sync
        + 'static,
    W: Condition<Request<Body>> + Send + Sync + 'static,
{
    let layer = FaultLayer::builder(REASON)
        .protocol(Server::new())
        .fault(fault)
        .build()
        .unwrap();
    let handle = layer.handle();
    handle.start_for(secs(60));
    let app = Router::new().route("/", get(async || LETTERS)).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    (Asking { address, http2 }, handle)
}

#[derive(Clone, Copy)]
struct Asking {
    address: SocketAddr,
    http2: bool,
}

impl Asking {
    async fn ask(self) -> Result<Answered, BoxError> {
        let client = Hyper::builder(TokioExecutor::new())
            .http2_only(self.http2)
            .build_http::<Empty<Bytes>>();
        let uri = format!("http://{}/", self.address).parse().unwrap();
        Ok(client.get(uri).await?)
    }

    async fn read(self) -> Result<Bytes, BoxError> {
        let body = self.ask().await?.into_body();
        Ok(body.collect().await?.to_bytes())
    }
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

#[tokio::test]
async fn a_client_of_axum_sees_each_fault() {
    for http2 in [false, true] {
        let (asking, _) = served(Fault::status(503).retry_after(secs(2)), http2).await;
        let answer = asking.ask().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "2");

        let made = Fault::response(|request: &Request<_>| {
            let body = FaultBody::from(format!("not {}", request.uri().path()));
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::GONE;
            response
        });
        let (asking, _) = served(made, http2).await;
        let answer = asking.ask().await.unwrap();
        assert_eq!(answer.status(), StatusCode::GONE);
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "not /"
        );

        let start = now();
        let (asking, _) = served(Fault::delay(ms(30)), http2).await;
        assert_eq!(asking.read().await.unwrap(), LETTERS);
        assert!(since(start) >= ms(30));

        for (asking, handle) in [
            served(Fault::hang(), http2).await,
            served(Fault::not_ready(), http2).await,
            served(Fault::stall_body(5), http2).await,
        ] {
            let mut waiting = Box::pin(asking.read());
            timeout(ms(30), &mut waiting).await.map(drop).unwrap_err();
            assert_eq!(handle.snapshot().active, 1);
            handle.stop();
            assert_eq!(waiting.await.unwrap(), LETTERS);
        }

        // hyper closes the connection of a handler that panics, or ends its stream.
        let (asking, _) = served(Fault::panic(), http2).await;
        asking.ask().await.map(drop).unwrap_err();

        // hyper may hold the head back until it has the beginning of the body.
        let (asking, _) = served(Fault::cut_body(5), http2).await;
        asking.read().await.unwrap_err();

        let start = now();
        let (asking, _) = served(Fault::trickle_body(10, ms(10)), http2).await;
        assert_eq!(asking.read().await.unwrap(), LETTERS);
        assert!(since(start) >= ms(30));
    }
}

/// Of a service whose error is not `Infallible`, an error is an answer as well.
#[tokio::test]
async fn a_service_with_errors_of_its_own_may_fail() {
    use std::io;
    use tower::{Layer, ServiceExt, service_fn};

    let layer = FaultLayer::builder(REASON)
        .protocol(Server::new())
        .fault(Fault::error(|_: &Request<Body>| {
            io::Error::from(io::ErrorKind::BrokenPipe)
        }))
        .build()
        .unwrap();
    layer.handle().start_for(secs(60));
    let well =
        service_fn(async |_: Request<Body>| Ok::<_, io::Error>(Response::new(Body::empty())));
    let error: io::Error = layer
        .layer(well)
        .oneshot(Request::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

/// axum applies a layer once for each route, and a client that leaves does not suffer any longer.
#[tokio::test]
async fn a_client_that_leaves_suffers_no_longer() {
    let (asking, handle) = served(Fault::hang(), false).await;
    timeout(ms(30), asking.ask()).await.map(drop).unwrap_err();
    // hyper sees that the connection is closed.
    while handle.snapshot().active > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.snapshot().injected["hang"], 1);
}
