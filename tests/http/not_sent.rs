//! "Not sent" is said by those who know: not by an error of a second request, which a service
//! beneath made of the first one.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header::LOCATION};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_http::follow_redirect::FollowRedirect;
use tower_keep::{
    Rejected, RejectedKind,
    fallback::FallbackLayer,
    protocol::{
        Replay, grpc,
        http::{self as keep_http, ReplayBody},
    },
    retry::RetryLayer,
    stack,
};

type Sent = Request<ReplayBody<Full<Bytes>>>;
type Body = UnsyncBoxBody<Bytes, Infallible>;
type Upstream = BoxCloneSyncService<Sent, Response<Full<Bytes>>, BoxError>;

/// A server that answers each call so, and how many it got.
async fn serve(status: u16, location: String) -> (Uri, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let location = location.clone();
        async move {
            request.into_body().collect().await.unwrap();
            let answer = Response::builder().status(status);
            let answer = answer.header(LOCATION, location);
            Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
        }
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (uri(address), calls)
}

fn uri(address: SocketAddr) -> Uri {
    format!("http://{address}/").parse().unwrap()
}

/// Where nobody listens.
fn closed() -> Uri {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    uri(listener.local_addr().unwrap())
}

fn client<B>(http2: bool) -> Client<HttpConnector, B>
where
    B: http_body::Body<Data = Bytes> + Send,
{
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

fn post(uri: &Uri, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from(body)).unwrap()
}

/// Reads the answers, as a service does that is more than a client.
fn upstream<S, B>(service: S) -> Upstream
where
    S: Service<Sent, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service_fn(move |request: Sent| {
        let service = service.clone();
        async move {
            let response = service.oneshot(request).await.map_err(Into::into)?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            Ok(Response::from_parts(head, Full::from(body)))
        }
    }))
}

/// Sends the request itself, and after that another, to a place where nobody listens.
fn in_two(http2: bool) -> Upstream {
    upstream(service_fn(move |request: Sent| async move {
        client(http2).request(request).await?;
        let second = Request::get(closed()).body(Full::<Bytes>::default());
        client(false).request(second.unwrap()).await
    }))
}

async fn retries(
    protocol: keep_http::Client,
    upstream: Upstream,
    request: Request<Full<Bytes>>,
) -> u64 {
    let layer = RetryLayer::builder()
        .attempts(2)
        .retry_rejected(true)
        .protocol(protocol)
        .build()
        .unwrap();
    layer.layer(upstream).oneshot(request).await.unwrap_err();
    layer.handle().snapshot().retries
}

const BODIES: [&str; 2] = ["hello", ""];

#[tokio::test]
async fn a_post_whose_redirect_is_refused_is_sent_once() {
    for http2 in [false, true] {
        for body in BODIES {
            for status in [301, 302, 303] {
                let (uri, calls) = serve(status, closed().to_string()).await;
                let redirecting = FollowRedirect::new(client::<Body>(http2));
                let boxed =
                    redirecting.map_request(|request: Sent| request.map(BodyExt::boxed_unsync));
                let protocol = keep_http::Client::new();
                let again = retries(protocol, upstream(boxed), post(&uri, body)).await;
                let calls = calls.load(Ordering::Relaxed);
                assert_eq!((again, calls), (0, 1), "{status} {body}");
            }
        }
    }
}

#[tokio::test]
async fn a_post_whose_second_call_fails_is_sent_once() {
    for http2 in [false, true] {
        for body in BODIES {
            let (uri, calls) = serve(200, String::new()).await;
            let protocol = keep_http::Client::new();
            let again = retries(protocol, in_two(http2), post(&uri, body)).await;
            assert_eq!((again, calls.load(Ordering::Relaxed)), (0, 1), "{body}");
        }
    }
}

#[tokio::test]
async fn a_post_refused_at_its_own_connection_is_resent() {
    for http2 in [false, true] {
        for body in BODIES {
            let protocol = keep_http::Client::new();
            let upstream = upstream(client(http2));
            assert_eq!(retries(protocol, upstream, post(&closed(), body)).await, 1);
        }
    }
}

#[tokio::test]
async fn a_stack_tells_what_was_sent_from_what_was_not() {
    for body in BODIES {
        let (uri, calls) = serve(200, String::new()).await;
        let layer = stack::client().http().build().unwrap();
        let answer = layer.layer(in_two(false)).oneshot(post(&uri, body)).await;
        assert!(answer.is_err(), "{body}");
        assert_eq!(calls.load(Ordering::Relaxed), 1, "{body}");
        assert_eq!(layer.handle().snapshot().retry.retries, 0);
        let unsent = layer.layer(upstream(client(false)));
        unsent.oneshot(post(&closed(), body)).await.unwrap_err();
        assert!(layer.handle().snapshot().retry.retries > 0);
    }
}

/// What a service says of several calls is in an error of its own.
#[tokio::test]
async fn no_connection_within_another_error_is_no_proof() {
    #[derive(Debug)]
    struct NoToken(hyper_util::client::legacy::Error);

    impl fmt::Display for NoToken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no token")
        }
    }

    impl Error for NoToken {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    let service = upstream(client(false).map_err(NoToken));
    let protocol = keep_http::Client::new();
    assert_eq!(
        retries(protocol, service.clone(), post(&closed(), "")).await,
        0
    );
    let get = Request::get(closed()).body(Full::default()).unwrap();
    assert_eq!(retries(protocol, service, get).await, 1, "it is idempotent");
}

/// A copy of a request says nothing of the request.
#[tokio::test]
async fn of_a_composite_service_no_error_is_a_proof() {
    let copies = |uri: Uri| {
        upstream(service_fn(move |_: Sent| {
            let first = post(&uri, "");
            async move {
                client(false).request(first).await?;
                client(false).request(post(&closed(), "")).await
            }
        }))
    };
    let (uri, calls) = serve(200, String::new()).await;
    let protocol = keep_http::Client::new().composite(true);
    assert_eq!(
        retries(protocol, copies(uri.clone()), post(&uri, "")).await,
        0
    );
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let direct = upstream(client(false));
    assert_eq!(
        retries(protocol, direct.clone(), post(&closed(), "")).await,
        0
    );
    let get = Request::get(closed()).body(Full::default()).unwrap();
    assert_eq!(retries(protocol, direct, get).await, 1);
    assert!(!Replay::<Request<Full<Bytes>>>::can_prove_unsent(&protocol));
}

#[tokio::test]
async fn a_rejection_after_something_was_sent_is_no_proof() {
    let rejected = || BoxError::from(Rejected::new(RejectedKind::CircuitOpen, "inner"));
    let protocol = keep_http::Client::new();
    let (uri, calls) = serve(200, String::new()).await;
    for body in BODIES {
        let at_once = BoxCloneSyncService::new(service_fn(move |_: Sent| {
            std::future::ready(Err(rejected()))
        }));
        assert_eq!(retries(protocol, at_once, post(&uri, body)).await, 1);
        let later = BoxCloneSyncService::new(service_fn(move |request: Sent| async move {
            client(false).request(request).await?;
            Err(rejected())
        }));
        assert_eq!(retries(protocol, later, post(&uri, body)).await, 0);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_backup_gets_no_post_that_was_sent() {
    for body in BODIES {
        let (uri, calls) = serve(200, String::new()).await;
        let backup = service_fn(|_: Sent| async {
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
        });
        let layer = FallbackLayer::service(backup).protocol(keep_http::Client::new());
        let layer = layer.build().unwrap();
        let answer = layer.layer(in_two(false)).oneshot(post(&uri, body)).await;
        assert!(answer.is_err(), "{body}");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let unsent = layer.layer(upstream(client(false)));
        let answer = unsent.oneshot(post(&closed(), body)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

/// A gRPC call always has a body, and the channel's error is in one of its own.
#[tokio::test]
async fn a_grpc_call_that_was_sent_first_is_sent_once() {
    #[derive(Debug)]
    struct Nested(BoxError);

    impl fmt::Display for Nested {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("nested")
        }
    }

    impl Error for Nested {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }

    let refused = || tonic::ConnectError(std::io::Error::other("refused").into());
    let calls = |read: bool, depth: usize, composite: bool| async move {
        let service = service_fn(move |request: Request<tonic::body::Body>| async move {
            if read {
                request.into_body().collect().await.unwrap();
            }
            let error = (0..depth).fold(BoxError::from(refused()), |error, _| Nested(error).into());
            Err::<Response<Full<Bytes>>, _>(error)
        });
        let protocol = grpc::Client::new().composite(composite);
        let layer = RetryLayer::builder().attempts(2).protocol(protocol);
        let layer = layer.build().unwrap();
        let request = post(&Uri::from_static("http://upstream.example/a/b"), "hello");
        layer.layer(service).oneshot(request).await.err().unwrap();
        layer.handle().snapshot().retries
    };
    assert_eq!(calls(false, 0, false).await, 1);
    assert_eq!(calls(false, 1, false).await, 1, "as in a channel's error");
    assert_eq!(calls(false, 2, false).await, 0, "in that of a service");
    assert_eq!(calls(true, 0, false).await, 0, "it was sent before");
    assert_eq!(calls(false, 0, true).await, 0);
}
