//! What a server tells its callers of its limits, rates and places, and the problems it writes.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
#[cfg(feature = "serde")]
use http_body_util::BodyExt;
use http_body_util::{Empty, Full};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};

use tower_keep::{
    algorithm::SlidingLog,
    bulkhead::BulkheadLayer,
    gate::GateLayer,
    protocol::http::{Server, XRateLimit},
    rate_limit::{Advertise, Rate, RateLimitBuilder, RateLimitLayer},
};

fn twice_a_minute() -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_minute(2)).burst(2)
}

/// What a response says in a field, in one line.
fn field<B>(response: &Response<B>, name: &str) -> String {
    let lines = response.headers().get_all(name).iter();
    let lines: Vec<_> = lines.map(|line| line.to_str().unwrap()).collect();
    lines.join(" | ")
}

fn ok()
-> impl Service<Request<()>, Response = Response<Empty<Bytes>>, Error = Infallible, Future: Send> + Clone
{
    service_fn(async |_: Request<()>| Ok(Response::new(Empty::<Bytes>::new())))
}

#[tokio::test(start_paused = true)]
async fn a_server_tells_its_rate_and_its_places_in_one_list() {
    let rate = twice_a_minute().advertise(true).name("api").gate().unwrap();
    let places = BulkheadLayer::builder(3).advertise(true).name("api");
    let gates = GateLayer::new((rate, places.gate().unwrap())).protocol(Server::new());
    let service = gates.layer(ok());
    for (status, expected) in [
        (200, r#""api";r=1;t=30, "api-concurrency";r=3"#),
        (200, r#""api";r=0;t=30, "api-concurrency";r=3"#),
        (429, r#""api";r=0;t=30, "api-concurrency";r=3"#),
    ] {
        let answer = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(field(&answer, "ratelimit"), expected);
        assert_eq!(
            field(&answer, "ratelimit-policy"),
            r#""api";q=2;w=60, "api-concurrency";q=3;qu="concurrent-requests""#
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_tells_that_no_place_is_left() {
    let bulkhead = BulkheadLayer::builder(2).advertise(true);
    let layer = bulkhead
        .protocol(Server::new().problem_json())
        .build()
        .unwrap();
    let pending = service_fn(|request: Request<()>| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let service = layer.layer(pending);
    let hang = || {
        let request = Request::get("/hang").body(()).unwrap();
        tokio::spawn(service.clone().oneshot(request))
    };
    let first = hang();
    tokio::task::yield_now().await;
    let answer = service.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(field(&answer, "ratelimit"), r#""concurrency";r=1"#);
    let second = hang();
    tokio::task::yield_now().await;
    let answer = service.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&answer, "ratelimit"), r#""concurrency";r=0"#);
    first.abort();
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn each_key_is_told_of_its_own_places() {
    let bulkhead = BulkheadLayer::builder(2).advertise(true);
    let bulkhead = bulkhead.protocol(Server::new());
    let keyed = bulkhead.keyed_by(|request: &Request<()>| Some(request.uri().path() == "/hang"));
    let service = keyed
        .build()
        .unwrap()
        .layer(service_fn(|request: Request<()>| async move {
            if request.uri().path() == "/hang" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }));
    let request = |path| Request::get(path).body(()).unwrap();
    let hung = [0, 1].map(|_| tokio::spawn(service.clone().oneshot(request("/hang"))));
    tokio::task::yield_now().await;
    for (path, left) in [("/", 2), ("/hang", 0)] {
        let answer = service.clone().oneshot(request(path)).await.unwrap();
        assert_eq!(
            field(&answer, "ratelimit"),
            format!(r#""concurrency";r={left}"#)
        );
    }
    hung.iter().for_each(|call| call.abort());
}

#[tokio::test(start_paused = true)]
async fn partitions_are_told_apart_and_keys_not_told() {
    async fn partitions<L>(layer: &L) -> [String; 3]
    where
        L: Layer<BoxCloneService<Request<()>, Response<Empty<Bytes>>, Infallible>>,
        L::Service:
            Service<Request<()>, Response = Response<Empty<Bytes>>, Error = Infallible> + Clone,
    {
        let service = layer.layer(BoxCloneService::new(ok()));
        let mut told = Vec::new();
        for tenant in ["a", "a", "b"] {
            let request = Request::get("/").header("tenant", tenant);
            let request = request.body(()).unwrap();
            let answer = service.clone().oneshot(request).await.unwrap();
            let told_of = field(&answer, "ratelimit");
            let (_, partition) = told_of.split_once(";pk=:").unwrap();
            let partition = partition.strip_suffix(":").unwrap().to_owned();
            assert!(field(&answer, "ratelimit-policy").contains(&partition));
            assert_eq!(partition.len(), 12);
            told.push(partition);
        }
        told.try_into().unwrap()
    }

    fn tenant(request: &Request<()>) -> Option<http::HeaderValue> {
        request.headers().get("tenant").cloned()
    }
    let advertised = || {
        let limit = twice_a_minute().protocol(Server::new());
        limit.advertise(Advertise::new().keys())
    };
    let in_table = advertised().keyed_by(tenant).build().unwrap();
    let own = advertised()
        .per_key(tenant, |_| SlidingLog::new(Rate::per_minute(2)))
        .build()
        .unwrap();
    for [first, again, other] in [partitions(&in_table).await, partitions(&own).await] {
        assert_eq!(first, again);
        assert_ne!(first, other);
    }
}

#[tokio::test(start_paused = true)]
async fn old_clients_are_told_by_the_fields_that_they_read() {
    let limits = |form| {
        let daily = RateLimitLayer::builder(Rate::per_day(5)).name("daily");
        let daily = daily.burst(5).advertise(true).gate().unwrap();
        let rate = twice_a_minute().advertise(true).gate().unwrap();
        let server = Server::new().x_rate_limit(form);
        GateLayer::new((daily, rate)).protocol(server).layer(ok())
    };
    let told = |answer: &Response<Empty<Bytes>>| {
        let names = ["limit", "remaining", "reset"];
        names.map(|name| field(answer, &format!("x-ratelimit-{name}")))
    };
    let service = limits(XRateLimit::InSeconds);
    for (status, left) in [(200, "1"), (200, "0"), (429, "0")] {
        let answer = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(answer.status(), status);
        // The tighter of both.
        assert_eq!(told(&answer), ["2", left, "30"]);
    }
    let answer = limits(XRateLimit::SinceEpoch)
        .oneshot(Request::new(()))
        .await;
    let [.., reset] = told(&answer.unwrap());
    #[expect(clippy::disallowed_methods, reason = "the wall clock is what is told")]
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let reset: u64 = reset.parse().unwrap();
    assert!((now + 25..=now + 31).contains(&reset), "{now} {reset}");
}

#[cfg(feature = "serde")]
mod problems {
    use tower_keep::protocol::http::{Problem, ProblemType};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_server_writes_a_client_reads() {
        let rate = twice_a_minute().name("a\"b").burst(1).gate().unwrap();
        let gates = GateLayer::new(rate).protocol(Server::new().problem_json());
        let answer = service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let service = gates.layer(answer);
        service.clone().oneshot(Request::new(())).await.unwrap();
        let answer = service.oneshot(Request::new(())).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.problem_type(), ProblemType::QuotaExceeded);
        assert_eq!(problem.status, Some(429));
        assert_eq!(problem.retry_after, Some(30));
        assert_eq!(problem.violated_policies, ["a\"b"]);
    }

    #[test]
    fn members_of_another_type_are_left_out() {
        let json = r#"{
            "type": 7, "title": null, "status": "429", "detail": [], "retry_after": -1,
            "violated-policies": "all", "trace": { "id": [1, 2] }
        }"#;
        assert_eq!(
            serde_json::from_str::<Problem>(json).unwrap(),
            Problem::default()
        );
        let json =
            r#"{ "type": "https://a.example/p", "status": 503, "violated-policies": ["a"] }"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        assert_eq!(
            (problem.problem_type(), problem.status),
            (ProblemType::Other, Some(503))
        );
        assert_eq!(problem.violated_policies, ["a"]);
        assert!(serde_json::from_str::<Problem>("7").is_err());
    }
}
