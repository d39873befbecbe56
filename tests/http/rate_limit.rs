//! What HTTP peers tell each other of their limits: a server its callers, and a client's limit what
//! it makes of that.

use std::{convert::Infallible, future::IntoFuture, net::SocketAddr, time::Duration};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::{
    HeaderMap, Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tower::{Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Rejected, RejectedKind,
    algorithm::{All, SlidingLog, TokenBucket},
    keyed,
    protocol::http::{self as keep_http, Server, UntilBodyEnd},
    rate_limit::{Missing, Rate, RateLimitBuilder, RateLimitLayer},
};

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

fn get_request(address: SocketAddr) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{address}/"))
        .body(Empty::new())
        .unwrap()
}

fn twice_a_minute() -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_minute(2)).burst(2)
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// Every value of a field, as it was sent.
fn values(headers: &HeaderMap, field: &str) -> Vec<String> {
    headers
        .get_all(field)
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

/// The status and `RateLimit` of so many requests in turn.
async fn answers(router: &Router, requests: usize) -> Vec<(u16, Vec<String>)> {
    let mut answers = Vec::new();
    for _ in 0..requests {
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        answers.push((
            response.status().as_u16(),
            values(response.headers(), "ratelimit"),
        ));
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn all_responses_advertise_what_is_left() {
    let router = hello().layer(
        twice_a_minute()
            .advertise(true)
            .protocol(Server::new())
            .build()
            .unwrap(),
    );
    let told = |status, field: &str| (status, vec![field.to_owned()]);
    let expected = [
        told(200, r#""default";r=1;t=30"#),
        told(200, r#""default";r=0;t=30"#),
        told(429, r#""default";r=0;t=30"#),
    ];
    assert_eq!(answers(&router, 3).await, expected);
}

#[tokio::test]
async fn the_fields_and_the_retry_after_reach_a_client() {
    let limit = RateLimitLayer::builder(Rate::per_minute(2))
        .burst(1)
        .name("api")
        .advertise(true)
        .protocol(Server::new());
    let address = serve(hello().layer(limit.build().unwrap())).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    for (status, retry_after) in [
        (StatusCode::OK, vec![]),
        (StatusCode::TOO_MANY_REQUESTS, vec!["30".to_owned()]),
    ] {
        let response = client.request(get_request(address)).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(
            values(response.headers(), "ratelimit-policy"),
            [r#""api";q=1;w=30"#]
        );
        assert_eq!(
            values(response.headers(), "ratelimit"),
            [r#""api";r=0;t=30"#]
        );
        assert_eq!(
            values(response.headers(), RETRY_AFTER.as_str()),
            retry_after
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_advertised_by_default_or_while_off() {
    for limit in [
        twice_a_minute(),
        twice_a_minute().advertise(true).enabled(false),
    ] {
        let router = hello().layer(limit.protocol(Server::new()).build().unwrap());
        assert!(
            answers(&router, 3)
                .await
                .iter()
                .all(|(_, fields)| fields.is_empty())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn several_limits_are_told_side_by_side() {
    let log = RateLimitLayer::with(SlidingLog::new(Rate::per_hour(1000)).unwrap())
        .name("hour")
        .advertise(true);
    let router = hello()
        .layer(
            twice_a_minute()
                .name("minute")
                .advertise(true)
                .protocol(Server::new())
                .build()
                .unwrap(),
        )
        .layer(log.protocol(Server::new()).build().unwrap());
    let (_, fields) = answers(&router, 1).await.remove(0);
    assert_eq!(fields, [r#""minute";r=1;t=30, "hour";r=999;t=3600"#]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_made_of_several_tells_them_all() {
    let second = TokenBucket::new(Rate::per_second(10), 10).unwrap();
    let both = All::new(second).and(SlidingLog::new(Rate::per_hour(1000)).unwrap());
    let limit = RateLimitLayer::with(both)
        .name("api")
        .advertise(true)
        .protocol(Server::new());
    let router = hello().layer(limit.build().unwrap());
    let (_, fields) = answers(&router, 1).await.remove(0);
    assert_eq!(fields, [r#""api";r=9;t=1, "api-2";r=999;t=3600"#]);
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_key_are_told_of_the_total_too() {
    let total = TokenBucket::new(Rate::per_second(10), 1).unwrap();
    let limit = twice_a_minute()
        .name("api")
        .advertise(true)
        .protocol(Server::new());
    let limit = limit
        .keyed_by(|_: &Request<Body>| Some(1))
        .within(total)
        .build()
        .unwrap();
    let (_, fields) = answers(&hello().layer(limit), 1).await.remove(0);
    assert_eq!(fields, [r#""api";r=1;t=30, "api-2";r=0;t=1"#]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_required_key_is_a_bad_request() {
    let limit = twice_a_minute()
        .protocol(Server::new())
        .keyed_by(keyed::header("x-api-key"))
        .missing(Missing::Reject);
    let router = hello().layer(limit.build().unwrap());
    let response = router
        .oneshot(Request::get("/").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        (response.status(), response.headers().get(RETRY_AFTER)),
        (StatusCode::BAD_REQUEST, None)
    );
    assert_eq!(
        response.extensions().get::<Rejected>().unwrap().kind,
        RejectedKind::MissingKey
    );
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_honored_at_the_head_before_the_body() {
    let limit =
        RateLimitLayer::builder(Rate::per_second(100)).honor_retry_after(Duration::from_secs(60));
    let limit = limit
        .protocol(UntilBodyEnd::new(keep_http::Client::new()))
        .build()
        .unwrap();
    let mut service = limit.layer(service_fn(async |_: Request<()>| {
        let response = Response::builder().header("ratelimit", r#""default";r=0;t=30"#);
        Ok::<_, Infallible>(response.body(Full::<Bytes>::from("the last one")).unwrap())
    }));
    let _response = service
        .ready()
        .await
        .unwrap()
        .call(Request::new(()))
        .await
        .unwrap();
    let error = service
        .ready()
        .await
        .unwrap()
        .call(Request::new(()))
        .await
        .unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().retry_after,
        Some(Duration::from_secs(30))
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_had_to_wait_is_told_too() {
    let limit = twice_a_minute()
        .max_wait(Duration::from_secs(30))
        .advertise(true)
        .protocol(Server::new());
    let router = hello().layer(limit.build().unwrap());
    let (status, fields) = answers(&router, 3).await.remove(2);
    assert_eq!(
        (status, fields),
        (200, vec![r#""default";r=0;t=30"#.to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_protocol_until_the_body_end_advertises_too() {
    let limit = twice_a_minute()
        .advertise(true)
        .protocol(UntilBodyEnd::new(Server::new()))
        .build()
        .unwrap();
    let mut service = limit.layer(service_fn(async |()| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    for left in ["r=1", "r=0", "r=0"] {
        let response = service.ready().await.unwrap().call(()).await.unwrap();
        assert_eq!(
            values(response.headers(), "ratelimit"),
            [format!(r#""default";{left};t=30"#)]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyed_limit_advertises_what_is_left_of_the_key() {
    let tenant = |request: &Request<()>| request.headers().get("tenant").cloned();
    let limit = twice_a_minute().advertise(true).protocol(Server::new());
    let limit = limit
        .keyed_by(tenant)
        .missing(Missing::Allow)
        .build()
        .unwrap();
    let mut service = limit.layer(service_fn(async |_| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    for (tenant, status, left) in [("a", 200, 1), ("a", 200, 0), ("a", 429, 0), ("b", 200, 1)] {
        let request = Request::builder()
            .header("tenant", tenant)
            .body(())
            .unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(
            values(response.headers(), "ratelimit-policy"),
            [r#""default";q=2;w=60"#]
        );
        assert_eq!(
            values(response.headers(), "ratelimit"),
            [format!(r#""default";r={left};t=30"#)]
        );
    }
    let without_a_key = service
        .ready()
        .await
        .unwrap()
        .call(Request::new(()))
        .await
        .unwrap();
    assert!(without_a_key.headers().is_empty());
}

const PROBLEM: &str = concat!(
    r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","#,
    r#""title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"#,
    r#""detail":"rate limit exceeded","retry_after":30,"violated-policies":["default"]}"#,
);

#[tokio::test]
async fn a_rejection_tells_the_problem_as_json() {
    let limit = RateLimitLayer::builder(Rate::per_minute(2))
        .burst(1)
        .protocol(Server::new().problem_json());
    let address = serve(hello().layer(limit.build().unwrap())).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let admitted = client.request(get_request(address)).await.unwrap();
    assert_eq!(
        admitted.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
    let rejected = client.request(get_request(address)).await.unwrap();
    assert_eq!(rejected.headers()[CONTENT_TYPE], "application/problem+json");
    assert_eq!(rejected.headers()[RETRY_AFTER], "30");
    assert_eq!(
        rejected.into_body().collect().await.unwrap().to_bytes(),
        PROBLEM
    );
}

#[tokio::test(start_paused = true)]
async fn the_problem_fits_any_body_that_is_made_of_a_string() {
    let limit = twice_a_minute()
        .burst(1)
        .protocol(UntilBodyEnd::new(Server::new().problem_json()))
        .build()
        .unwrap();
    let mut service = limit.layer(service_fn(async |()| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    }));
    for body in ["hello", PROBLEM] {
        let response = service.ready().await.unwrap().call(()).await.unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            body
        );
    }
}

/// How long a limit that may be closed for a minute is closed by one answer.
async fn closed_by(
    status: u16,
    fields: &'static [(&'static str, &'static str)],
) -> Option<Duration> {
    let limit =
        RateLimitLayer::builder(Rate::per_second(100)).honor_retry_after(Duration::from_secs(60));
    let limit = limit.protocol(keep_http::Client::new()).build().unwrap();
    let mut service = limit.layer(service_fn(move |_: Request<()>| async move {
        let mut response = Response::builder().status(status);
        for (field, value) in fields {
            response = response.header(*field, *value);
        }
        Ok::<_, Infallible>(response.body(()).unwrap())
    }));
    service
        .ready()
        .await
        .unwrap()
        .call(Request::new(()))
        .await
        .unwrap();
    let again = service
        .ready()
        .await
        .unwrap()
        .call(Request::new(()))
        .await
        .err()?;
    Rejected::find(&*again).unwrap().retry_after
}

#[tokio::test(start_paused = true)]
async fn nothing_left_closes_the_limit_at_any_status() {
    for status in [200, 301, 404, 429, 503] {
        assert_eq!(
            closed_by(status, &[("ratelimit", r#""default";r=0;t=30"#)]).await,
            Some(Duration::from_secs(30)),
            "{status}"
        );
        assert_eq!(
            closed_by(status, &[("ratelimit", r#""default";r=1;t=30"#)]).await,
            None,
            "{status}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_peer_closes_the_limit_for_longer_than_it_may() {
    for fields in [
        &[("ratelimit", "a;r=0;t=999999999999999")],
        &[("retry-after", "99999999999999999999999")],
    ] {
        assert_eq!(closed_by(429, fields).await, Some(Duration::from_secs(60)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_wins_except_on_a_success() {
    let both = &[("retry-after", "5"), ("ratelimit", r#""default";r=0;t=30"#)];
    assert_eq!(closed_by(429, both).await, Some(Duration::from_secs(5)));
    assert_eq!(closed_by(200, both).await, Some(Duration::from_secs(30)));
    assert_eq!(closed_by(202, &[("retry-after", "5")]).await, None);
    let garbled = &[
        ("retry-after", "soon"),
        ("ratelimit", r#""default";r=0;t=30"#),
    ];
    assert_eq!(closed_by(429, garbled).await, Some(Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn a_429_without_a_valid_hint_closes_nothing() {
    assert_eq!(closed_by(429, &[]).await, None);
    assert_eq!(
        closed_by(429, &[("ratelimit", "limit=100, remaining=0")]).await,
        None
    );
}

#[tokio::test(start_paused = true)]
async fn all_three_forms_of_a_quota_close_the_limit() {
    for fields in [
        &[("ratelimit", r#""default";r=0;t=30"#)][..],
        &[("ratelimit", "limit=100, remaining=0, reset=30")],
        &[("ratelimit-remaining", "0"), ("ratelimit-reset", "29.997")],
    ] {
        let closed = closed_by(200, fields).await;
        assert_eq!(closed, Some(Duration::from_secs(30)), "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_larger_of_two_retry_afters_closes_the_limit() {
    let both = &[("retry-after", "5"), ("retry-after", "0.503")];
    assert_eq!(closed_by(503, both).await, Some(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_is_measured_from_the_date() {
    // A server whose clock has stopped in 1994 still means 30 seconds.
    let fields = &[
        ("date", "Sun, 06 Nov 1994 08:49:07 GMT"),
        ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ];
    assert_eq!(closed_by(503, fields).await, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn a_client_stops_before_the_server_turns_it_away() {
    // given a server that tells its limit, and a client that listens
    let limit = RateLimitLayer::builder(Rate::per_minute(2))
        .burst(1)
        .advertise(true)
        .protocol(Server::new());
    let address = serve(hello().layer(limit.build().unwrap())).await;
    let heeding =
        RateLimitLayer::builder(Rate::per_second(100)).honor_retry_after(Duration::from_secs(60));
    let heeding = heeding.protocol(keep_http::Client::new()).build().unwrap();
    let mut client = heeding.layer(Client::builder(TokioExecutor::new()).build_http());
    // when it is answered that nothing is left
    let response = client
        .ready()
        .await
        .unwrap()
        .call(get_request(address))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // then the next request is not sent
    let error = client
        .ready()
        .await
        .unwrap()
        .call(get_request(address))
        .await
        .unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.kind, RejectedKind::RateLimited);
    assert!(rejected.retry_after > Some(Duration::from_secs(20)));
}
