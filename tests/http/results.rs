//! What each HTTP status means to a circuit, a limit and a retry.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{Empty, Full};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Classify, Outcome, Rejected, RejectedKind,
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    protocol::{
        Advice, Protocol, Sent, Settle,
        http::{Client, Server, UntilBodyEnd},
    },
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
};

type Answer = Response<Empty<Bytes>>;

fn answer(status: u16) -> Answer {
    let builder = Response::builder().status(status);
    builder.body(Empty::new()).unwrap()
}

fn with_hint(status: u16) -> Answer {
    let mut answer = answer(status);
    answer.headers_mut().insert(RETRY_AFTER, 1.into());
    answer
}

/// A response that a layer further in made in place of the service.
fn rejection(status: u16, kind: RejectedKind) -> Answer {
    let mut answer = with_hint(status);
    let rejected = Rejected::new(kind, "rate_limit");
    answer.extensions_mut().insert(rejected);
    answer
}

const LOCAL: [RejectedKind; 7] = [
    RejectedKind::CircuitOpen,
    RejectedKind::RateLimited,
    RejectedKind::CostTooHigh,
    RejectedKind::MissingKey,
    RejectedKind::BulkheadFull,
    RejectedKind::Throttled,
    RejectedKind::DeadlineExceeded,
];

fn outcome<P: Classify<Answer, BoxError>>(protocol: &P, answer: &Answer) -> Outcome {
    protocol.classify(Ok(answer))
}

fn advice(protocol: &Client, answer: &Answer) -> Advice {
    let outcome = outcome(protocol, answer);
    Protocol::<Answer, BoxError>::advise(protocol, outcome, Ok(answer))
}

fn is_retried(protocol: &Client, answer: &Answer) -> bool {
    matches!(
        advice(protocol, answer),
        Advice::Retry {
            sent: Sent::Maybe,
            ..
        }
    )
}

/// Keeps what a protocol settles with.
struct Noted<'a>(&'a mut Option<(Outcome, Option<Duration>)>);

impl Settle for Noted<'_> {
    fn settle(self, outcome: Outcome, retry_after: Option<Duration>) {
        *self.0 = Some((outcome, retry_after));
    }
}

fn settled<P>(protocol: &P, answer: Answer) -> (Outcome, Option<Duration>)
where
    P: Protocol<Answer, BoxError>,
{
    let mut settled = None;
    let _ = protocol.settle(Ok(answer), Noted(&mut settled));
    settled.unwrap()
}

#[test]
fn every_status_means_what_the_table_says() {
    for status in 100..=999 {
        let expected = match status {
            429 | 529 => Outcome::Overload,
            501 | 505 => Outcome::Success,
            500..=599 => Outcome::Failure,
            _ => Outcome::Success,
        };
        for read in [
            outcome(&Client::new(), &answer(status)),
            outcome(&Server::new(), &answer(status)),
            outcome(&UntilBodyEnd::new(Client::new()), &answer(status)),
            settled(&Client::new(), answer(status)).0,
            settled(&Server::new(), answer(status)).0,
        ] {
            assert_eq!(read, expected, "{status}");
        }
    }
}

#[test]
fn only_502_to_504_529_and_a_hinted_429_are_retried() {
    for status in 100..=999 {
        let transient = matches!(status, 502..=504 | 529);
        let plain = is_retried(&Client::new(), &answer(status));
        assert_eq!(plain, transient, "{status}");
        let hinted = is_retried(&Client::new(), &with_hint(status));
        assert_eq!(hinted, transient || status == 429, "{status}");
        let strict = is_retried(&Client::new().strict(), &with_hint(status));
        assert_eq!(strict, transient, "{status}");
    }
}

#[test]
fn statuses_of_ones_own_are_retried_too() {
    let own = [408, 425, 500, 501, 429, 200, 301].map(|n| StatusCode::from_u16(n).unwrap());
    let client = Client::new().also_retry(own);
    for status in 100..=999 {
        // A success is final, whatever anyone asks for.
        let expected = matches!(status, 408 | 425 | 429 | 500..=504 | 529);
        assert_eq!(is_retried(&client, &answer(status)), expected, "{status}");
        let unchanged = outcome(&Client::new(), &answer(status));
        assert_eq!(outcome(&client, &answer(status)), unchanged, "{status}");
    }
    let once_more = client.also_retry([StatusCode::LOCKED]);
    assert!(is_retried(&once_more, &answer(408)) && is_retried(&once_more, &answer(423)));
    assert!(!is_retried(&once_more.strict(), &with_hint(429)));
}

/// A protocol of one's own around one of the crate's.
struct Wrapper<P>(P);

impl<P: Classify<Answer, BoxError>> Wrapper<P> {
    fn outcome(&self, answer: &Answer) -> Outcome {
        self.0.classify(Ok(answer))
    }
}

#[test]
fn no_method_of_a_builder_hides_the_traits() {
    // Without naming the trait, on the types themselves.
    let result: Result<&Answer, &BoxError> = Ok(&answer(503));
    assert_eq!(Client::new().classify(result), Outcome::Failure);
    assert_eq!(Server::new().classify(result), Outcome::Failure);
    let both = UntilBodyEnd::new(Client::new());
    assert_eq!(both.classify(result), Outcome::Failure);
    assert_eq!(Wrapper(both).outcome(&answer(429)), Outcome::Overload);
}

#[test]
fn a_hook_goes_before_the_table() {
    fn restoring(status: StatusCode, headers: &HeaderMap) -> Option<Outcome> {
        match status.as_u16() {
            404 => Some(Outcome::Failure),
            503 if headers.contains_key("x-maintenance") => Some(Outcome::Ignore),
            _ => None,
        }
    }
    let maintenance = || {
        let mut answer = with_hint(503);
        answer.headers_mut().insert("x-maintenance", 1.into());
        answer
    };
    let (client, server) = (
        Client::new().classify_response(restoring),
        Server::new().classify_response(restoring),
    );
    for (answer, expected) in [
        (answer(404), Outcome::Failure),
        (maintenance(), Outcome::Ignore),
        (answer(503), Outcome::Failure),
        (answer(200), Outcome::Success),
        (rejection(503, RejectedKind::CircuitOpen), Outcome::Ignore),
    ] {
        assert_eq!(outcome(&client, &answer), expected);
        assert_eq!(outcome(&server, &answer), expected);
    }
    // What is ignored is not retried, and teaches nothing.
    assert!(!is_retried(&client, &maintenance()));
    assert_eq!(settled(&client, maintenance()), (Outcome::Ignore, None));
    assert_eq!(settled(&server, maintenance()), (Outcome::Ignore, None));
}

#[test]
fn local_rejections_settle_as_ignored_without_hints() {
    let nothing = (Outcome::Ignore, None);
    for kind in LOCAL {
        for status in [400, 429, 503] {
            let mut answer = rejection(status, kind);
            let field = "\"default\";r=0;t=30".parse().unwrap();
            answer.headers_mut().insert("ratelimit", field);
            let until_end = UntilBodyEnd::new(Client::new());
            assert_eq!(settled(&Client::new(), answer.clone()), nothing, "{kind:?}");
            assert_eq!(settled(&Server::new(), answer.clone()), nothing, "{kind:?}");
            assert_eq!(settled(&until_end, answer), nothing, "{kind:?}");
        }
    }
}

fn rejected(kind: RejectedKind) -> Advice {
    Advice::Rejected { kind, after: None }
}

#[test]
fn a_local_rejection_is_advised_on_as_one() {
    for kind in LOCAL {
        let answer = rejection(503, kind);
        assert_eq!(advice(&Client::new(), &answer), rejected(kind));
        let server = Server::new();
        let advised = Protocol::<Answer, BoxError>::advise(&server, Outcome::Ignore, Ok(&answer));
        assert_eq!(advised, rejected(kind), "{kind:?}");
        let error: BoxError = Rejected::new(kind, "rate_limit").into();
        let advised = Protocol::<Answer, BoxError>::advise(&server, Outcome::Ignore, Err(&error));
        assert_eq!(advised, rejected(kind), "{kind:?}");
        let until_end = UntilBodyEnd::new(Client::new());
        let tracked = until_end.settle(Ok::<_, BoxError>(answer), ()).unwrap();
        for result in [Ok(&tracked), Err(&error)] {
            let advised = Protocol::<Answer, BoxError>::advise(&until_end, Outcome::Ignore, result);
            assert_eq!(advised, rejected(kind), "{kind:?}");
        }
    }
}

#[test]
fn a_timeout_further_in_is_the_upstreams() {
    let timed_out = || rejection(503, RejectedKind::TimedOut);
    let hint = Some(Duration::from_secs(1));
    assert_eq!(
        settled(&Client::new(), timed_out()),
        (Outcome::Failure, hint)
    );
    assert_eq!(
        settled(&Server::new(), timed_out()),
        (Outcome::Failure, hint)
    );
    assert!(is_retried(&Client::new(), &timed_out()));
}

#[test]
fn a_server_reads_no_hint_on_a_success() {
    let hint = Some(Duration::from_secs(1));
    for (status, expected) in [
        (200, None),
        (202, None),
        (404, None),
        (503, hint),
        (429, hint),
    ] {
        assert_eq!(
            settled(&Server::new(), with_hint(status)).1,
            expected,
            "{status}"
        );
        assert_eq!(
            settled(&Client::new(), with_hint(status)).1,
            expected,
            "{status}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_tenants_rejection_closes_no_outer_limit() {
    // given a limit that honors hints, around one for each tenant that answers in-band
    let outer = RateLimitLayer::builder(Rate::per_second(100))
        .honor_retry_after(Duration::from_secs(60))
        .protocol(Server::new())
        .build()
        .unwrap();
    let inner = RateLimitLayer::builder(Rate::per_minute(1))
        .burst(1)
        .advertise(true)
        .protocol(Server::new())
        .keyed_by(|tenant: &u32| Some(*tenant))
        .build()
        .unwrap();
    let handler = service_fn(async |_: u32| Ok::<_, Infallible>(answer(200)));
    let mut service = outer.layer(inner.layer(handler));
    // when one tenant is over its limit
    let mut call = async |tenant| {
        let response = service.ready().await.unwrap().call(tenant).await.unwrap();
        response.status().as_u16()
    };
    assert_eq!((call(1).await, call(1).await), (200, 429));
    // then the others are not
    assert_eq!(call(2).await, 200);
}

#[tokio::test(start_paused = true)]
async fn an_advertised_quota_does_not_close_an_outer_limit() {
    let outer = RateLimitLayer::builder(Rate::per_second(100))
        .honor_retry_after(Duration::from_secs(60))
        .protocol(Client::new())
        .build()
        .unwrap();
    let inner = RateLimitLayer::builder(Rate::per_minute(1))
        .burst(1)
        .advertise(true)
        .protocol(Server::new())
        .keyed_by(|tenant: &u32| Some(*tenant))
        .build()
        .unwrap();
    let handler = service_fn(async |_: u32| Ok::<_, Infallible>(answer(200)));
    let mut service = outer.layer(inner.layer(handler));
    for tenant in [1, 2, 3] {
        let response = service.ready().await.unwrap().call(tenant).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{tenant}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_implemented_opens_no_circuit() {
    let layer = CircuitBreakerLayer::builder()
        .min_calls(1)
        .protocol(Client::new())
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |status: u16| {
        Ok::<_, Infallible>(answer(status))
    }));
    for status in [501, 505].repeat(20) {
        service.ready().await.unwrap().call(status).await.unwrap();
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    assert_eq!(layer.handle().snapshot().counts.successes, 40);
}

#[tokio::test(start_paused = true)]
async fn a_408_is_sent_again_once_it_was_opted_in() {
    for (client, expected) in [
        (Client::new(), 1),
        (Client::new().also_retry([StatusCode::REQUEST_TIMEOUT]), 2),
    ] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let upstream = service_fn(move |_: Request<_>| {
            let status = [408, 200][counted.fetch_add(1, Ordering::Relaxed)];
            async move { Ok::<_, Infallible>(answer(status)) }
        });
        let layer = RetryLayer::builder().protocol(client).build().unwrap();
        let request = Request::new(Full::<Bytes>::from("body"));
        layer.layer(upstream).oneshot(request).await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), expected);
    }
}
