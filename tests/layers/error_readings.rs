//! One error has one reading, whatever it travels in: itself, in a box, within another.

use std::{
    error::Error,
    fmt,
    future::{Ready, ready},
    io,
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Classify, Outcome, Rejected, RejectedKind,
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    fallback::FallbackLayer,
    protocol::{Plain, Protocol, grpc, http as keep_http},
    retry::RetryLayer,
};

type Body = Full<Bytes>;

/// An error with a cause, as clients of one's own wrap them.
#[derive(Debug)]
struct Wrapped<E>(E);

impl<E> fmt::Display for Wrapped<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}

impl<E: Error + 'static> Error for Wrapped<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Forwards all that it is asked, as thiserror's `#[error(transparent)]` does.
#[derive(Debug)]
struct Transparent<E>(E);

impl<E: fmt::Display> fmt::Display for Transparent<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Error> Error for Transparent<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Its own cause.
#[derive(Debug)]
struct Endless;

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("again")
    }
}

impl Error for Endless {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self)
    }
}

/// What a layer over a service that fails makes of the error.
#[derive(Debug, PartialEq)]
struct Reading {
    open: bool,
    answered: bool,
    counted_as_rejected: bool,
    retries: u64,
    found: Option<RejectedKind>,
}

/// A service that fails, and whose error is of just this type.
fn failing<E, F>(
    error: F,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = E, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static
where
    E: Send + 'static,
    F: Fn() -> E + Clone + Send + Sync + 'static,
{
    service_fn(move |_| -> Ready<Result<Response<Body>, E>> { ready(Err(error())) })
}

fn get() -> Request<Body> {
    Request::get("http://upstream.example/")
        .body(Body::default())
        .unwrap()
}

/// The state of a circuit after three such errors.
async fn circuit<P, E>(protocol: P, error: impl Fn() -> E + Clone + Send + Sync + 'static) -> bool
where
    P: Protocol<Response<Body>, E> + Send + Sync + 'static,
    E: Send + 'static,
{
    let builder = CircuitBreakerLayer::builder()
        .min_calls(1)
        .protocol(protocol);
    let layer = builder.build().unwrap();
    for _ in 0..3 {
        let _ = layer.layer(failing(error.clone())).oneshot(get()).await;
    }
    layer.handle().state() == BreakerState::Open
}

async fn over_http<E>(error: impl Fn() -> E + Clone + Send + Sync + 'static) -> Reading
where
    E: Into<BoxError> + Send + 'static,
{
    let client = keep_http::Client::new();
    let fallback = FallbackLayer::value(Response::new(Body::default()))
        .on_rejection(false)
        .protocol(client)
        .build()
        .unwrap();
    let answer = fallback.layer(failing(error.clone())).oneshot(get()).await;
    let retry = RetryLayer::builder().attempts(2).protocol(client).build();
    let retry = retry.unwrap();
    let inner = failing(error.clone());
    let inner = tower::util::MapRequest::new(inner, |request: Request<_>| {
        request.map(|_| Body::default())
    });
    let failed = retry.layer(inner).oneshot(get()).await.unwrap_err();
    let snapshot = retry.handle().snapshot();
    Reading {
        open: circuit(client, error.clone()).await,
        answered: answer.is_ok(),
        counted_as_rejected: snapshot.rejected == 1,
        retries: snapshot.retries,
        found: Rejected::find(&*failed).map(|rejected| rejected.kind),
    }
}

async fn over_grpc<E>(error: impl Fn() -> E + Clone + Send + Sync + 'static) -> Reading
where
    E: Into<BoxError> + Send + 'static,
{
    let client = grpc::Client::new().idempotent_when(|_| true);
    let retry = RetryLayer::builder().attempts(2).protocol(client).build();
    let retry = retry.unwrap();
    let inner = failing(error.clone());
    let inner = tower::util::MapRequest::new(inner, |request: Request<_>| {
        request.map(|_| Body::default())
    });
    let failed = retry.layer(inner).oneshot(get()).await.err().unwrap();
    let snapshot = retry.handle().snapshot();
    Reading {
        open: circuit(client, error.clone()).await,
        answered: false,
        counted_as_rejected: snapshot.rejected == 1,
        retries: snapshot.retries,
        found: Rejected::find(&*failed).map(|rejected| rejected.kind),
    }
}

async fn plain<E>(error: impl Fn() -> E + Clone + Send + Sync + 'static) -> Reading
where
    E: Into<BoxError> + Send + 'static,
{
    let protocol = Plain::new().idempotent();
    let fallback = FallbackLayer::builder(
        |_: &_| (),
        async |(), failure: Result<Response<Body>, BoxError>| match failure {
            Ok(_) => unreachable!("it fails"),
            Err(_) => Ok(Response::new(Body::default())),
        },
    )
    .on_rejection(false)
    .protocol(protocol)
    .build()
    .unwrap();
    let answer = fallback.layer(failing(error.clone())).oneshot(get()).await;
    let retry = RetryLayer::builder().attempts(2).protocol(protocol);
    let retry = retry.build().unwrap();
    let failed = retry.layer(failing(error.clone())).oneshot(get()).await;
    let snapshot = retry.handle().snapshot();
    Reading {
        open: circuit(protocol, error.clone()).await,
        answered: answer.is_ok(),
        counted_as_rejected: snapshot.rejected == 1,
        retries: snapshot.retries,
        found: Rejected::find(&*failed.unwrap_err()).map(|rejected| rejected.kind),
    }
}

async fn read_alike<E>(form: &str, hold: impl Fn(Rejected) -> E + Clone + Send + Sync + 'static)
where
    E: Into<BoxError> + Send + 'static,
{
    for (kind, local) in [
        (RejectedKind::BulkheadFull, true),
        (RejectedKind::CircuitOpen, true),
        (RejectedKind::RateLimited, true),
        (RejectedKind::DeadlineExceeded, true),
        (RejectedKind::TimedOut, false),
    ] {
        let hold = hold.clone();
        let error = move || hold(Rejected::new(kind, "inner"));
        let expected = |falls_back: bool| Reading {
            open: !local,
            answered: !local && falls_back,
            counted_as_rejected: local,
            retries: u64::from(!local),
            found: Some(kind),
        };
        assert_eq!(
            plain(error.clone()).await,
            expected(true),
            "{form}: {kind:?}"
        );
        let http = over_http(error.clone()).await;
        assert_eq!(http, expected(true), "http, {form}: {kind:?}");
        let grpc = over_grpc(error).await;
        assert_eq!(grpc, expected(false), "gRPC, {form}: {kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_has_one_reading_in_all_forms() {
    read_alike("itself", |rejected| rejected).await;
    read_alike("in a box", BoxError::from).await;
    read_alike("in a box of its own", Box::new).await;
    read_alike("in another", Wrapped).await;
    read_alike("in an I/O error", io::Error::other).await;
    read_alike("in two", |it| io::Error::other(Wrapped(it))).await;
    read_alike("in one that forwards", Transparent).await;
    read_alike("in two that forward", |it| Transparent(Transparent(it))).await;
    read_alike("in a box within", |it| Transparent(Wrapped(Box::new(it)))).await;
    read_alike("shared", |it| Wrapped(Arc::new(it))).await;
    read_alike("in a status", |it| tonic::Status::from_error(it.into())).await;
    read_alike("in a status within", |it| {
        Wrapped(tonic::Status::from_error(Wrapped(it).into()))
    })
    .await;
}

/// What a service of ours answers with is not boxed: its type stays.
#[tokio::test(start_paused = true)]
async fn a_server_reads_the_errors_that_it_knows() {
    async fn case<E: Send + 'static>(hold: fn(Rejected) -> E) {
        for (kind, fails) in [
            (RejectedKind::BulkheadFull, false),
            (RejectedKind::TimedOut, true),
        ] {
            let error = move || hold(Rejected::new(kind, "inner"));
            assert_eq!(circuit(keep_http::Server::new(), error).await, fails);
            assert_eq!(circuit(grpc::Server::new(), error).await, fails);
        }
    }
    case(|it| it).await;
    case(BoxError::from).await;
    case(Box::new).await;
    case(io::Error::other).await;
    case(|it| tonic::Status::from_error(it.into())).await;
    case::<Arc<dyn Error + Send + Sync>>(|it| Arc::new(Wrapped(it))).await;
}

#[test]
fn each_known_error_is_read_in_a_box_and_without() {
    fn case<E: Into<BoxError> + 'static>(make: impl Fn() -> E) -> Outcome {
        let (bare, boxed) = (make(), make().into());
        let client = keep_http::Client::new();
        let read = Classify::<Response<Body>, _>::classify(&client, Err(&bare));
        assert_eq!(
            Classify::<Response<Body>, _>::classify(&client, Err(&boxed)),
            read,
            "{boxed:?}"
        );
        let client = grpc::Client::new();
        assert_eq!(
            Classify::<Response<Body>, _>::classify(&client, Err(&bare)),
            Classify::<Response<Body>, _>::classify(&client, Err(&boxed)),
            "{boxed:?}"
        );
        read
    }
    let full = || Rejected::new(RejectedKind::BulkheadFull, "inner");
    assert_eq!(case(full), Outcome::Ignore);
    assert_eq!(case(|| io::Error::other(full())), Outcome::Ignore);
    let status = || tonic::Status::from_error(full().into());
    assert_eq!(case(status), Outcome::Ignore);
    assert_eq!(case(|| tonic::Status::not_found("")), Outcome::Failure);
    let unfit = || http::Request::get("http://[").body(()).unwrap_err();
    assert_eq!(case(unfit), Outcome::Ignore);
    assert_eq!(case(|| tonic::TimeoutExpired(())), Outcome::Failure);
    assert_eq!(
        case(|| tonic::ConnectError(io::Error::other("").into())),
        Outcome::Failure
    );
}

#[test]
fn an_error_that_is_its_own_source_hangs_nobody() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            for reading in [
                plain(|| Endless).await,
                over_http(|| Endless).await,
                over_http(|| io::Error::other(Endless)).await,
                over_grpc(|| Endless).await,
                over_grpc(|| Wrapped(Endless)).await,
            ] {
                assert_eq!((reading.open, reading.retries), (true, 1));
                assert_eq!(reading.found, None);
            }
        });
        let _ = done.send(());
    });
    let minute = std::time::Duration::from_secs(60);
    ended.recv_timeout(minute).expect("it hangs, or panics");
}
