use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::{
    ConfigError, Rejected, RejectedKind, circuit_breaker::BreakerState, protocol::Plain,
    rate_limit::Rate,
};

type Request = http::Request<Empty<Bytes>>;

fn to(host: &str) -> Request {
    http::Request::get(format!("http://{host}/"))
        .body(Empty::new())
        .unwrap()
}

/// Fails for the host `bad.example`, hangs for `slow.example`.
fn upstreams<B>() -> impl Service<
    http::Request<B>,
    Response = http::Response<Empty<Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
where
    B: Send + 'static,
{
    service_fn(async |request: http::Request<B>| {
        let status = match request.uri().host() {
            Some("bad.example") => 500,
            Some("slow.example") => std::future::pending().await,
            _ => 200,
        };
        Ok(http::Response::builder()
            .status(status)
            .body(Empty::new())?)
    })
}

fn error<T>(built: Result<T, ConfigError>) -> String {
    built.map(drop).unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_failing_host_opens_its_own_circuit_alone() {
    let stack = client().http().name("api").build().unwrap();
    let service = stack.layer(upstreams());
    for _ in 0..10 {
        assert_eq!(
            service
                .clone()
                .oneshot(to("bad.example"))
                .await
                .unwrap()
                .status(),
            500
        );
    }
    let error = service
        .clone()
        .oneshot(to("bad.example"))
        .await
        .unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(
        (rejected.kind, rejected.name),
        (RejectedKind::CircuitOpen, Some("api"))
    );
    assert_eq!(
        service.oneshot(to("good.example")).await.unwrap().status(),
        200
    );
    let circuit = stack
        .handle()
        .circuit_breaker
        .key(&"bad.example".parse().unwrap())
        .unwrap();
    assert_eq!(circuit.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_hung_host_takes_no_place_of_another() {
    let stack = client()
        .http()
        .max_in_flight(2)
        .without_retry()
        .build()
        .unwrap();
    let service = stack.layer(upstreams());
    let hung: Vec<_> = (0..2)
        .map(|_| tokio::spawn(service.clone().oneshot(to("slow.example"))))
        .collect();
    tokio::task::yield_now().await;
    let error = service
        .clone()
        .oneshot(to("slow.example"))
        .await
        .unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::BulkheadFull
    );
    assert!(service.clone().oneshot(to("good.example")).await.is_ok());
    for call in hung {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(
            Rejected::find(&*error).unwrap().kind,
            RejectedKind::TimedOut
        );
    }
    let bulkhead = stack
        .handle()
        .bulkhead
        .key(&"slow.example".parse().unwrap());
    assert_eq!(
        bulkhead.map_or(0, |bulkhead| bulkhead.snapshot().in_flight),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_for_all_hosts_together() {
    let stack = client()
        .http()
        .rate(Rate::per_minute(1))
        .burst(2)
        .build()
        .unwrap();
    let service = stack.layer(upstreams());
    let mut admitted = 0;
    for host in ["a.example", "b.example", "c.example"] {
        admitted += u32::from(service.clone().oneshot(to(host)).await.is_ok());
    }
    assert_eq!(
        (
            admitted,
            stack.handle().rate_limit.unwrap().snapshot().available
        ),
        (2, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_left_out_rejects_nothing() {
    let stack = client()
        .plain(Plain::new().idempotent())
        .without_circuit_breaker()
        .without_bulkhead()
        .without_retry()
        .without_total_timeout()
        .without_attempt_timeout()
        .build()
        .unwrap();
    let service = stack.layer(service_fn(async |_: u32| {
        Err::<u32, BoxError>("down".into())
    }));
    for n in 0..300 {
        assert_eq!(
            service.clone().oneshot(n).await.unwrap_err().to_string(),
            "down"
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_rejected() {
    let second = Duration::from_secs(1);
    let stack = || client().http().name("api");
    let total = stack().total_timeout(second).attempt_timeout(2 * second);
    assert!(error(total.build()).starts_with("stack (api): `total_timeout` is 1s: raise it"));
    let window = stack().circuit_breaker(|breaker| breaker.window(5 * second));
    assert!(error(window.build()).starts_with("stack (api): `window` is 5s: raise it to twice"));
    let hint = stack().retry(|retry| retry.max_retry_after(60 * second));
    assert!(error(hint.build()).contains("`max_retry_after` is 60s: lower it"));
    assert!(
        stack()
            .circuit_breaker(|breaker| breaker.window_of_calls(100))
            .build()
            .is_ok()
    );
    let unbounded = error(server().http().build());
    assert!(
        unbounded.starts_with("stack: `max_in_flight` is None: say how many"),
        "{unbounded}"
    );
    assert!(error(client().http().max_in_flight(0).build()).starts_with("bulkhead: `limit` is 0"));
}

#[test]
fn a_server_derives_its_bound_from_rate_and_timeout() {
    let stack = server()
        .http()
        .rate(Rate::per_second(200))
        .timeout(Duration::from_secs(1));
    let handle = stack.build().unwrap().handle();
    assert_eq!(handle.bulkhead.snapshot().limit, 100);
    let stack = server().http().rate(Rate::per_day(1)).build().unwrap();
    assert_eq!(stack.handle().bulkhead.snapshot().limit, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_answers_what_it_rejects() {
    let stack = server()
        .http()
        .max_in_flight(10)
        .rate(Rate::per_minute(1))
        .build()
        .unwrap();
    let service = stack.layer(upstreams());
    let status = async |request| {
        service
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(
        (status(to("a.example")).await, status(to("a.example")).await),
        (200, 429)
    );
}
