//! What gRPC answers mean: by the head, and at the end of the body.

use std::{cell::Cell, convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tonic::{Code, Status, body::Body};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Classify, Outcome, Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::{
        Advice, Protocol, Sent, Settle,
        grpc::{Client, Server, outcome_of},
    },
};

/// A permit that records how it ends.
struct Recorder<'a>(&'a Cell<Option<Fate>>, bool);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The head was good, and the body is still to come.
    Answered,
    Settled(Outcome, Option<Duration>),
    /// Dropped before it was settled.
    Abandoned,
}

impl Settle for Recorder<'_> {
    fn settle(mut self, outcome: Outcome, retry_after: Option<Duration>) {
        self.1 = true;
        self.0.set(Some(Fate::Settled(outcome, retry_after)));
    }

    fn answered(&mut self) {
        self.0.set(Some(Fate::Answered));
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.set(Some(Fate::Abandoned));
        }
    }
}

type Streamed = UnsyncBoxBody<Bytes, Status>;

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|&(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect()
}

/// An answer with this head and these frames.
fn answer(
    head: &[(&'static str, &str)],
    frames: Vec<Result<Frame<Bytes>, Status>>,
) -> Response<Streamed> {
    let body = StreamBody::new(stream::iter(frames));
    let body = if head.iter().any(|(name, _)| *name == "grpc-status") {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    } else {
        body.boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.headers_mut() = fields(head);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn trailers(trailers: &[(&'static str, &str)]) -> Result<Frame<Bytes>, Status> {
    Ok(Frame::trailers(fields(trailers)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, Status> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// What the head and the end of an answer each tell the permit.
fn fates<P>(protocol: &P, response: Response<Streamed>) -> [Option<Fate>; 2]
where
    P: Protocol<Response<Streamed>, Infallible>,
    for<'a> P::Response<Recorder<'a>>: Read,
    P::Error: std::fmt::Debug,
{
    let fate = Cell::new(None);
    let settled = protocol
        .settle(Ok(response), Recorder(&fate, false))
        .unwrap();
    let head = fate.get();
    settled.read();
    [head, fate.get()]
}

/// Reads a body to its end.
trait Read {
    fn read(self);
}

impl<B: http_body::Body> Read for Response<B> {
    fn read(self) {
        let mut body = std::pin::pin!(self.into_body());
        while let Some(Some(Ok(_))) = futures::FutureExt::now_or_never(body.as_mut().frame()) {}
    }
}

fn settled(outcome: Outcome) -> Option<Fate> {
    Some(Fate::Settled(outcome, None))
}

fn outcome_in_the_table(code: i32) -> Outcome {
    match code {
        2 | 4 | 13 | 14 | 15 => Outcome::Failure,
        8 => Outcome::Overload,
        1 => Outcome::Ignore,
        _ => Outcome::Success,
    }
}

#[test]
fn a_status_in_the_head_settles_at_once() {
    for code in 0..=16 {
        let expected = settled(outcome_in_the_table(code));
        let head = || answer(&[("grpc-status", &code.to_string())], vec![]);
        assert_eq!(fates(&Client::new(), head()), [expected; 2], "{code}");
        assert_eq!(fates(&Server::new(), head()), [expected; 2], "{code}");
    }
}

#[test]
fn a_status_in_trailers_settles_at_the_end() {
    for code in 0..=16 {
        let expected = [Some(Fate::Answered), settled(outcome_in_the_table(code))];
        let stream = || {
            let end = trailers(&[("grpc-status", &code.to_string())]);
            answer(&[], vec![data("a"), data("b"), end])
        };
        assert_eq!(fates(&Client::new(), stream()), expected, "{code}");
        assert_eq!(fates(&Server::new(), stream()), expected, "{code}");
    }
}

#[test]
fn an_end_without_a_status_is_a_failure() {
    let ends: [fn() -> Vec<_>; 4] = [
        || vec![data("a")],
        || vec![data("a"), trailers(&[("other", "0")])],
        || vec![trailers(&[("grpc-status", "")])],
        || vec![data("a"), Err(Status::internal("reset"))],
    ];
    for frames in ends {
        let expected = [Some(Fate::Answered), settled(Outcome::Failure)];
        assert_eq!(fates(&Client::new(), answer(&[], frames())), expected);
        assert_eq!(fates(&Server::new(), answer(&[], frames())), expected);
    }
}

#[test]
fn a_garbage_status_is_a_failure() {
    for garbage in ["", "-1", "17", "00", "0 ", "ok", "99999999999"] {
        let head = answer(&[("grpc-status", garbage)], vec![]);
        assert_eq!(fates(&Client::new(), head), [settled(Outcome::Failure); 2]);
    }
}

#[test]
fn an_empty_answer_without_a_status_is_a_failure() {
    let mut response = answer(&[("grpc-status", "0")], vec![]);
    response.headers_mut().remove("grpc-status");
    assert_eq!(
        fates(&Client::new(), response),
        [settled(Outcome::Failure); 2]
    );
}

#[test]
fn an_http_status_counts_where_there_is_no_other() {
    for (status, outcome) in [
        (400, Outcome::Failure),
        (401, Outcome::Success),
        (403, Outcome::Success),
        (404, Outcome::Success),
        (429, Outcome::Failure),
        (500, Outcome::Failure),
        (502, Outcome::Failure),
        (503, Outcome::Failure),
        (504, Outcome::Failure),
        (302, Outcome::Failure),
    ] {
        let mut response = answer(&[], vec![data("<html>")]);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        assert_eq!(
            fates(&Client::new(), response),
            [settled(outcome); 2],
            "{status}"
        );
    }
    let mut response = answer(&[("grpc-status", "5")], vec![]);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(
        fates(&Client::new(), response),
        [settled(Outcome::Success); 2]
    );
}

#[test]
fn what_is_not_grpc_is_read_as_http_on_a_server() {
    for (status, outcome) in [(500, Outcome::Failure), (429, Outcome::Overload)] {
        let mut response = answer(&[], vec![data("page")]);
        response.headers_mut().remove(CONTENT_TYPE);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        assert_eq!(fates(&Server::new(), response), [settled(outcome); 2]);
    }
    for content_type in [
        "text/html",
        "application/grpc-web+proto",
        "application/grpcx",
    ] {
        let mut response = answer(&[], vec![data("page")]);
        let value = HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, value);
        let expected = [Some(Fate::Answered), settled(Outcome::Success)];
        assert_eq!(fates(&Server::new(), response), expected, "{content_type}");
    }
    // A reader of a known length does not poll for the end, so the call ends with the head.
    let mut response = answer(&[("content-length", "4")], vec![data("page")]);
    let value = HeaderValue::from_static("text/html");
    response.headers_mut().insert(CONTENT_TYPE, value);
    let expected = [settled(Outcome::Success); 2];
    assert_eq!(fates(&Server::new(), response), expected);
    let mut response = Response::new(
        Full::from("page")
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    assert_eq!(fates(&Server::new(), response), expected);

    let mut response = answer(&[], vec![data("cut short")]);
    let value = HeaderValue::from_static("application/grpc+proto");
    response.headers_mut().insert(CONTENT_TYPE, value);
    let expected = [Some(Fate::Answered), settled(Outcome::Failure)];
    assert_eq!(fates(&Server::new(), response), expected);
}

#[test]
fn a_stream_dropped_before_its_end_is_abandoned() {
    let fate = Cell::new(None);
    let response = answer(&[], vec![data("a"), trailers(&[("grpc-status", "0")])]);
    let result: Result<_, Infallible> = Ok(response);
    drop(Client::new().settle(result, Recorder(&fate, false)));
    assert_eq!(fate.get(), Some(Fate::Abandoned));
}

#[test]
fn pushback_is_a_hint_wherever_the_status_is() {
    let pushback = ("grpc-retry-pushback-ms", "1500");
    let hint = Some(Duration::from_millis(1500));
    let head = answer(&[("grpc-status", "14"), pushback], vec![]);
    let expected = Some(Fate::Settled(Outcome::Failure, hint));
    assert_eq!(fates(&Client::new(), head), [expected; 2]);
    let end = trailers(&[("grpc-status", "8"), pushback]);
    let expected = Some(Fate::Settled(Outcome::Overload, hint));
    assert_eq!(
        fates(&Client::new(), answer(&[], vec![data("a"), end]))[1],
        expected
    );
    for never in ["-1", "soon"] {
        let head = answer(
            &[("grpc-status", "14"), ("grpc-retry-pushback-ms", never)],
            vec![],
        );
        assert_eq!(fates(&Client::new(), head), [settled(Outcome::Failure); 2]);
    }
}

#[test]
fn a_closure_changes_what_codes_mean() {
    let aborted = |code| match code {
        Code::Aborted => Outcome::Failure,
        code => outcome_of(code),
    };
    let head = || answer(&[("grpc-status", "10")], vec![]);
    let expected = [settled(Outcome::Failure); 2];
    assert_eq!(
        fates(&Client::new().classify_code(aborted), head()),
        expected
    );
    assert_eq!(
        fates(&Server::new().classify_code(aborted), head()),
        expected
    );
}

#[test]
fn an_answer_of_a_layer_further_in_says_nothing() {
    for (kind, outcome) in [
        (RejectedKind::BulkheadFull, Outcome::Ignore),
        (RejectedKind::CircuitOpen, Outcome::Ignore),
        (RejectedKind::Throttled, Outcome::Ignore),
        (RejectedKind::TimedOut, Outcome::Failure),
    ] {
        let rejected = Box::new(Rejected::new(kind, "test"));
        let inner = Protocol::<Response<Body>, Infallible>::reject::<()>(&Server::new(), rejected);
        let fate = Cell::new(None);
        let _ = Server::new().settle(inner, Recorder(&fate, false));
        assert_eq!(fate.get(), settled(outcome), "{kind:?}");
    }
}

/// What an error means to a client, and what a retry may do after it.
fn of_error(error: impl Into<BoxError>) -> (Option<Fate>, Advice) {
    let fate = Cell::new(None);
    let error: Result<Response<Body>, BoxError> = Err(error.into());
    let error = Client::new()
        .settle(error, Recorder(&fate, false))
        .unwrap_err();
    let advice =
        Protocol::<Response<Body>, BoxError>::advise(&Client::new(), Outcome::Failure, Err(&error));
    (fate.get(), advice)
}

#[test]
fn errors_mean_what_their_status_means() {
    let retry = |sent| Advice::Retry { sent, after: None };
    let failure = settled(Outcome::Failure);
    let maybe = retry(Sent::Maybe);
    let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(
        of_error(tonic::ConnectError(refused().into())),
        (failure, retry(Sent::No))
    );
    assert_eq!(of_error(refused()), (failure, retry(Sent::No)));
    assert_eq!(of_error("reset"), (failure, maybe));
    assert_eq!(of_error(tonic::TimeoutExpired(())), (failure, maybe));
    assert_eq!(of_error(Status::unavailable("")), (failure, maybe));
    assert_eq!(of_error(Status::internal("")), (failure, Advice::Stop));
    assert_eq!(
        of_error(Status::not_found("")),
        (settled(Outcome::Success), Advice::Stop)
    );
    let rejected = |kind| Rejected::new(kind, "test");
    assert_eq!(of_error(rejected(RejectedKind::TimedOut)), (failure, maybe));
    let local = of_error(rejected(RejectedKind::CircuitOpen));
    assert_eq!(
        local,
        (
            settled(Outcome::Ignore),
            Advice::Rejected {
                kind: RejectedKind::CircuitOpen,
                after: None
            }
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_counts_a_stream_until_its_end() {
    let layer = BulkheadLayer::builder(1)
        .protocol(Client::new())
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |()| {
        let end = trailers(&[("grpc-status", "0")]);
        Ok::<_, Infallible>(answer(&[], vec![data("a"), end]))
    }));
    let mut response = service.ready().await.unwrap().call(()).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 1);
    let error = service.ready().await.unwrap().call(()).await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::BulkheadFull
    );
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn pushback_lengthens_the_open_time() {
    let layer = CircuitBreakerLayer::builder()
        .min_calls(1)
        .open_for(Duration::from_secs(5))
        .jitter(false)
        .protocol(Client::new())
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |()| {
        let head = [("grpc-status", "14"), ("grpc-retry-pushback-ms", "20000")];
        Ok::<_, Infallible>(answer(&head, vec![]))
    }));
    service.ready().await.unwrap().call(()).await.unwrap();
    let wait = layer.handle().snapshot().until_half_open.unwrap();
    assert!(wait >= Duration::from_secs(20), "{wait:?}");
}

#[test]
fn a_body_hands_out_what_was_peeked() {
    let frames = || vec![data("abc"), data("de"), trailers(&[("grpc-status", "0")])];
    let result: Result<_, Infallible> = Ok(answer(&[], frames()));
    // The permit of a retry, which peeks.
    let response = Client::new().settle(result, ()).unwrap();
    assert!(!response.body().is_end_stream());
    let collected = futures::FutureExt::now_or_never(response.into_body().collect());
    let collected = collected.unwrap().unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), "abcde");
}

#[test]
fn the_outcome_of_a_head_is_that_of_classify() {
    let response = answer(&[("grpc-status", "14")], vec![]);
    let result: Result<_, &Infallible> = Ok(&response);
    assert_eq!(Client::new().classify(result), Outcome::Failure);
    assert_eq!(Server::new().classify(result), Outcome::Failure);
}

#[test]
fn a_server_rejects_with_a_body_of_any_kind() {
    let rejected = || Box::new(Rejected::new(RejectedKind::RateLimited, "rate_limit"));
    let server = Server::new();
    let answer: Result<_, Infallible> =
        Protocol::<Response<Full<Bytes>>, _>::reject::<()>(&server, rejected());
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
}
