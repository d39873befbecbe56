//! What a retry does over gRPC, before real tonic servers and channels.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{
    Echo, KINDS, Kind, Reply, bind, call, connect,
    echo::{Message, echo_client::EchoClient},
    echoed, message, serve,
};
use tokio::time::Instant;
use tonic::{Code, Request, Status, body::Body, metadata::MetadataMap, transport::Channel};
use tower::{BoxError, Layer, Service, service_fn};
use tower_keep::{
    algorithm::{Backoff, Jitter},
    protocol::{
        grpc::Client,
        http::{Idempotent, NotIdempotent},
    },
    retry::{Retry, RetryLayer},
    stack,
};

const ALL: &[&str] = &["/keep.test.Echo/"];

fn retrying(client: Client, channel: Channel) -> Retry<Channel, Client> {
    let layer = RetryLayer::builder().protocol(client).build().unwrap();
    layer.layer(channel)
}

/// How many calls of a kind arrive whose first is answered so, and what the caller gets.
async fn calls(client: Client, kind: Kind, first: Reply) -> (usize, Result<Vec<String>, Code>) {
    let echo = Echo::default();
    echo.script([first]);
    let service = retrying(client, serve(echo.clone()).await);
    let result = call(service, kind).await;
    (echo.calls(), result.map_err(|status| status.code()))
}

fn within(timeout: Duration) -> Request<Message> {
    let mut request = Request::new(message("a"));
    request.set_timeout(timeout);
    request
}

fn with_pushback(status: Status, pushback: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    Status::with_metadata(status.code(), "", metadata)
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_retried_in_all_kinds() {
    for kind in KINDS {
        let client = Client::new().idempotent(ALL);
        let (calls, result) = calls(client, kind, Reply::Fail(Status::unavailable(""))).await;
        assert_eq!((calls, result), (2, Ok(echoed(kind))), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_declared_methods_are_retried() {
    let unavailable = || Reply::Fail(Status::unavailable(""));
    for (client, expected) in [
        (Client::new(), 1),
        (Client::new().idempotent(["/keep.test.Echo/Unary"]), 2),
        (Client::new().idempotent(["/keep.test.Echo/"]), 2),
        (Client::new().idempotent(["/keep.test.Echo"]), 1),
        (
            Client::new().idempotent(["/keep.test.Echo/ServerStream"]),
            1,
        ),
        (
            Client::new().idempotent_when(|path| path.ends_with("/Unary")),
            2,
        ),
        (
            Client::new().idempotent_when(|path| path.ends_with("/Other")),
            1,
        ),
    ] {
        let (calls, result) = calls(client, Kind::Unary, unavailable()).await;
        assert_eq!(calls, expected, "{client:?}");
        assert_eq!(result.is_ok(), calls == 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_may_declare_itself_idempotent() {
    let echo = Echo::default();
    echo.script([Reply::Fail(Status::unavailable(""))]);
    let service = retrying(Client::new(), serve(echo.clone()).await);
    let mut request = Request::new(message("a"));
    request.extensions_mut().insert(Idempotent);
    EchoClient::new(service).unary(request).await.unwrap();
    assert_eq!(echo.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_may_declare_itself_not_idempotent() {
    let echo = Echo::default();
    echo.script([Reply::Fail(Status::unavailable(""))]);
    let service = retrying(Client::new().idempotent(ALL), serve(echo.clone()).await);
    let mut request = Request::new(message("a"));
    request.extensions_mut().insert(NotIdempotent);
    assert!(EchoClient::new(service).unary(request).await.is_err());
    assert_eq!(echo.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_other_status_is_retried() {
    let client = Client::new().idempotent(ALL);
    for number in 1..=16 {
        let code = Code::from_i32(number);
        let expected = if code == Code::Unavailable { 2 } else { 1 };
        let (calls, _) = calls(client, Kind::Unary, Reply::Fail(Status::new(code, ""))).await;
        assert_eq!(calls, expected, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn resource_exhausted_is_retried_only_with_pushback() {
    let exhausted = |pushback| Reply::Fail(with_pushback(Status::resource_exhausted(""), pushback));
    let client = Client::new().idempotent(ALL);
    for (pushback, expected) in [("100", 2), ("0", 2), ("-1", 1), ("soon", 1), ("", 1)] {
        let (calls, _) = calls(client, Kind::Unary, exhausted(pushback)).await;
        assert_eq!(calls, expected, "{pushback:?}");
    }
    let (calls, _) = calls(Client::new(), Kind::Unary, exhausted("100")).await;
    assert_eq!(calls, 1, "not declared");
}

#[tokio::test(start_paused = true)]
async fn pushback_that_is_negative_or_garbage_stops() {
    let client = Client::new().idempotent(ALL);
    for pushback in ["-1", "-9999999999999999999", "soon", "1.5", "1 s"] {
        let status = with_pushback(Status::unavailable(""), pushback);
        let (calls, result) = calls(client, Kind::Unary, Reply::Fail(status)).await;
        assert_eq!((calls, result), (1, Err(Code::Unavailable)), "{pushback:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pushback_is_exact() {
    for millis in [0, 1, 777, 1500, 10_000] {
        let echo = Echo::default();
        let channel = serve(echo.clone()).await;
        call(channel.clone(), Kind::Unary).await.unwrap();
        let status = with_pushback(Status::unavailable(""), &millis.to_string());
        echo.script([Reply::Fail(status.clone()), Reply::Fail(status)]);
        let service = retrying(Client::new().idempotent(ALL), channel);
        let start = Instant::now();
        call(service, Kind::Unary).await.unwrap();
        // The clock stands still but for the two waits; a timer is late by up to a millisecond.
        let late = start.elapsed() - Duration::from_millis(2 * millis);
        assert!(late <= Duration::from_millis(2), "{millis}: {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_backoff_starts_again_after_pushback() {
    let echo = Echo::default();
    let channel = serve(echo.clone()).await;
    let pushed = Reply::Fail(with_pushback(Status::unavailable(""), "5"));
    let failed = Reply::Fail(Status::unavailable(""));
    echo.script([pushed.clone(), pushed.clone(), pushed, failed]);
    let jitter = Jitter::Additive(Duration::from_nanos(1));
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(60), jitter);
    let layer = RetryLayer::builder()
        .attempts(5)
        .backoff(backoff.unwrap())
        .protocol(Client::new().idempotent(ALL))
        .build()
        .unwrap();
    let start = Instant::now();
    call(layer.layer(channel), Kind::Unary).await.unwrap();
    let late = start.elapsed() - Duration::from_millis(115);
    assert!(late <= Duration::from_millis(4), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn the_callers_timeout_covers_all_attempts() {
    let echo = Echo::default();
    let channel = serve(echo.clone()).await;
    call(channel.clone(), Kind::Unary).await.unwrap();
    let client = Client::new().idempotent(ALL);
    let stack = stack::client().grpc(client).build().unwrap();
    hangs_for_a_second(&echo, retrying(client, channel.clone())).await;
    hangs_for_a_second(&echo, stack.layer(channel)).await;
}

/// A call that has a second, of a server that hangs, is sent once and ends then.
async fn hangs_for_a_second<S, B>(echo: &Echo, service: S)
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<BoxError>>,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    echo.script([Reply::Hang]);
    let (before, start) = (echo.calls(), Instant::now());
    let mut client = EchoClient::new(service);
    let request = within(Duration::from_secs(1));
    client.unary(request).await.unwrap_err();
    let late = start.elapsed() - Duration::from_secs(1);
    assert!(late <= Duration::from_millis(4), "{late:?}");
    assert_eq!(echo.calls() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_tells_what_remains_of_the_callers_timeout() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let upstream = service_fn(move |request: http::Request<Body>| {
        let field = request.headers()["grpc-timeout"]
            .to_str()
            .unwrap()
            .to_owned();
        telling.lock().unwrap().push(field);
        let response = Status::unavailable("").into_http::<Body>();
        async { Ok::<_, BoxError>(response) }
    });
    let jitter = Jitter::Additive(Duration::from_nanos(1));
    let backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(1), jitter);
    let layer = RetryLayer::builder()
        .backoff(backoff.unwrap())
        .protocol(Client::new().idempotent(ALL))
        .build()
        .unwrap();
    let mut client = EchoClient::new(layer.layer(upstream));
    let status = client
        .unary(within(Duration::from_secs(1)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(*told.lock().unwrap(), ["1000000u", "700m", "100m"]);
}

#[tokio::test(start_paused = true)]
async fn pushback_beyond_the_maximum_stops() {
    let status = with_pushback(Status::unavailable(""), "10001");
    let client = Client::new().idempotent(ALL);
    let (calls, result) = calls(client, Kind::Unary, Reply::Fail(status)).await;
    assert_eq!((calls, result), (1, Err(Code::Unavailable)));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_follows_at_once_is_retried() {
    let client = Client::new().idempotent(ALL);
    let down = || Status::unavailable("");
    for kind in [Kind::ServerStream, Kind::Bidirectional] {
        for reply in [
            Reply::FailAfterHead(down()),
            Reply::FailAfterMessage(down()),
        ] {
            let (calls, result) = calls(client, kind, reply.clone()).await;
            assert_eq!((calls, result), (2, Ok(echoed(kind))), "{kind:?} {reply:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_later_is_not_retried() {
    let notify = std::sync::Arc::new(tokio::sync::Notify::new());
    let echo = Echo::default();
    echo.script([Reply::Hold(notify.clone())]);
    let service = retrying(Client::new().idempotent(ALL), serve(echo.clone()).await);
    // The head comes though the first message has not: no retry waits for a message.
    let stream = EchoClient::new(service).server_stream(message("a")).await;
    notify.notify_one();
    let mut stream = stream.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap(), Some(message("held")));
    assert_eq!(stream.message().await.unwrap(), None);
    assert_eq!(echo.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_may_wait_for_the_head_before_it_sends() {
    let service = retrying(Client::new().idempotent(ALL), serve(Echo::default()).await);
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    let mut client = EchoClient::new(service);
    let mut stream = client.bidirectional(receiver).await.unwrap().into_inner();
    sender.unbounded_send(message("late")).unwrap();
    assert_eq!(stream.message().await.unwrap(), Some(message("late")));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_retried_whatever_the_method() {
    let (incoming, address) = bind().await;
    drop(incoming);
    let layer = RetryLayer::builder()
        .attempts(2)
        .protocol(Client::new())
        .build()
        .unwrap();
    let status = call(layer.layer(connect(address)), Kind::Unary)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(layer.handle().snapshot().retries, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_limit_is_sent_once_and_whole() {
    let echo = Echo::default();
    echo.script([Reply::Fail(Status::unavailable(""))]);
    let client = Client::new().idempotent(ALL).body_limit(100);
    let mut client = EchoClient::new(retrying(client, serve(echo.clone()).await));
    let long = "x".repeat(1000);
    let status = client.unary(message(&long)).await.unwrap_err();
    assert_eq!((status.code(), echo.calls()), (Code::Unavailable, 1));
    assert_eq!(
        client
            .unary(message(&long))
            .await
            .unwrap()
            .into_inner()
            .text,
        long
    );
}
