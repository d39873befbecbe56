//! Stacks that are drained, and what is told of them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::poll;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::{sync::Semaphore, time::sleep};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use tower_keep::{
    CallError, Rejected, RejectedKind,
    algorithm::{Backoff, Jitter},
    bulkhead::BulkheadLayer,
    observe::Registry,
    protocol::Plain,
    stack::{self, Undrained},
};

type Body = Empty<Bytes>;

const SECOND: Duration = Duration::from_secs(1);

fn ask() -> Request<Body> {
    Request::get("http://host/").body(Body::new()).unwrap()
}

/// A server that answers after a second.
async fn slow(_: Request<Body>) -> Result<Response<String>, io::Error> {
    sleep(SECOND).await;
    Ok(Response::new(String::from("done")))
}

fn wait_of(response: &Response<String>) -> u64 {
    let wait = response.headers()["retry-after"].to_str().unwrap();
    wait.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_drained_server_ends_its_calls_and_takes_none() {
    let stack = stack::server().http().max_in_flight(10).build().unwrap();
    let (service, handle) = (stack.layer(service_fn(slow)), stack.handle());
    let running = tokio::spawn(service.clone().oneshot(ask()));
    tokio::task::yield_now().await;
    assert_eq!(handle.in_flight(), 1);

    let mut drained = Box::pin(handle.drain(10 * SECOND));
    assert!(poll!(&mut drained).is_pending());
    assert!(handle.is_draining());
    let rejected = service.clone().oneshot(ask()).await.unwrap();
    assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!((1..=3).contains(&wait_of(&rejected)));
    let told: &Rejected = rejected.extensions().get().unwrap();
    assert_eq!((told.kind, told.layer), (RejectedKind::Draining, "drain"));

    drained.await.unwrap();
    assert_eq!(running.await.unwrap().unwrap().into_body(), "done");
    assert_eq!(handle.in_flight(), 0);
    handle.resume();
    assert_eq!(
        service.oneshot(ask()).await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_no_longer_than_it_may() {
    let stack = stack::server().http().max_in_flight(10).build().unwrap();
    let (service, handle) = (stack.layer(service_fn(slow)), stack.handle());
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(ask())))
        .collect();
    tokio::task::yield_now().await;
    let Undrained { in_flight, .. } = handle.drain(SECOND / 2).await.unwrap_err();
    assert_eq!(in_flight, 3);
    // Callers that leave are in flight no more.
    calls.iter().for_each(|call| call.abort());
    handle.drain(SECOND / 2).await.unwrap();
    assert!(handle.is_draining(), "until it is resumed");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_calls_that_wait_for_a_place() {
    let places = BulkheadLayer::builder(1).max_wait(10 * SECOND);
    let stack = stack::server().http().bulkhead(places).build().unwrap();
    let (service, handle) = (stack.layer(service_fn(slow)), stack.handle());
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(ask())))
        .collect();
    tokio::task::yield_now().await;
    handle.drain(10 * SECOND).await.unwrap();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_is_not_waited_for() {
    let stack = stack::server().http().max_in_flight(10).build().unwrap();
    let service = stack.layer(service_fn(async |_: Request<Body>| -> io::Result<_> {
        tokio::task::yield_now().await;
        assert!(stack_is_well(), "a bug of the handler");
        Ok(Response::new(String::new()))
    }));
    let call = tokio::spawn(service.oneshot(ask()));
    assert!(call.await.unwrap_err().is_panic());
    stack.handle().drain(SECOND).await.unwrap();
}

fn stack_is_well() -> bool {
    false
}

#[tokio::test(start_paused = true)]
async fn a_clients_call_is_in_flight_until_its_last_attempt() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let count = attempts.clone();
    let base = Duration::from_secs(2);
    let backoff = Backoff::new(base, base, Jitter::PlusMinus(1e-9)).unwrap();
    let stack = stack::client().plain(Plain::new().idempotent());
    let stack = stack.retry(|retry| retry.backoff(backoff)).build().unwrap();
    let service = stack.layer(service_fn(move |_: u32| {
        let attempt = count.fetch_add(1, SeqCst);
        std::future::ready(match attempt {
            0 => Err(io::Error::other("by chance")),
            _ => Ok(attempt),
        })
    }));
    let call = tokio::spawn(service.clone().oneshot(7));
    tokio::task::yield_now().await;
    let handle = stack.handle();
    assert_eq!((handle.in_flight(), attempts.load(SeqCst)), (1, 1));
    let (drained, rejected) = futures::join!(handle.drain(10 * SECOND), async {
        tokio::task::yield_now().await;
        service.clone().oneshot(8).await.unwrap_err()
    });
    drained.unwrap();
    let rejected = Rejected::find(&*rejected).unwrap();
    assert_eq!(rejected.kind, RejectedKind::Draining);
    assert!(rejected.retry_after.is_some() && rejected.kind.is_local());
    assert_eq!(
        (call.await.unwrap().unwrap(), attempts.load(SeqCst)),
        (1, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_there_is_a_future_leaves_no_call() {
    let stack = stack::client()
        .plain(Plain::new())
        .without_retry()
        .build()
        .unwrap();
    let service = stack.layer(service_fn(
        |_: u32| -> std::future::Ready<io::Result<u32>> { panic!("a bug of the client") },
    ));
    let call = tokio::spawn(service.oneshot(1));
    assert!(call.await.unwrap_err().is_panic());
    assert_eq!(stack.handle().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn functions_are_drained_too() {
    let db = stack::client()
        .plain(Plain::new().idempotent())
        .build()
        .unwrap();
    let (gate, handle) = (Semaphore::new(0), db.handle());
    let query = async || {
        let _open = gate.acquire().await;
        Ok::<_, io::Error>(7)
    };
    let mut call = Box::pin(db.run(query));
    assert!(poll!(&mut call).is_pending());
    let mut drained = Box::pin(handle.drain(SECOND));
    assert!(poll!(&mut drained).is_pending());
    let Err(CallError::Rejected(rejected)) = db.run(query).await else {
        panic!("it takes no new calls");
    };
    assert_eq!(rejected.kind, RejectedKind::Draining);
    gate.add_permits(1);
    assert_eq!(call.await.unwrap(), 7);
    drained.await.unwrap();
}

/// All that a busy server rejects came back together, a second later.
#[tokio::test(start_paused = true)]
async fn a_busy_servers_hints_are_spread() {
    let stack = stack::server().http().max_in_flight(1).build().unwrap();
    let service = stack.layer(service_fn(slow));
    let _running = tokio::spawn(service.clone().oneshot(ask()));
    tokio::task::yield_now().await;
    let mut waits = [0; 4];
    for _ in 0..100 {
        let rejected = service.clone().oneshot(ask()).await.unwrap();
        assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
        waits[usize::try_from(wait_of(&rejected)).unwrap()] += 1;
    }
    assert!(waits[1] > 5 && waits[2] > 20 && waits[3] > 5, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_has_a_hint_unless_it_is_off() {
    let stack = || stack::server().http().max_in_flight(9).timeout(SECOND / 2);
    let late = stack().build().unwrap().layer(service_fn(slow));
    assert!(
        late.oneshot(ask())
            .await
            .unwrap()
            .headers()
            .contains_key("retry-after")
    );
    let silent = stack().protocol(|server| server.hint_when_busy(Duration::ZERO));
    let late = silent.build().unwrap().layer(service_fn(slow));
    assert!(
        !late
            .oneshot(ask())
            .await
            .unwrap()
            .headers()
            .contains_key("retry-after")
    );
}

#[tokio::test(start_paused = true)]
async fn a_drained_grpc_server_tells_when_to_come_back() {
    use tonic::body::Body;

    let stack = stack::server().grpc().max_in_flight(9).build().unwrap();
    let service = stack.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, io::Error>(Response::new(Body::empty()))
    }));
    stack.handle().drain(SECOND).await.unwrap();
    let answer = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
    let pushback = answer.headers()["grpc-retry-pushback-ms"].to_str().unwrap();
    let pushback: u64 = pushback.parse().unwrap();
    assert!((500..=2500).contains(&pushback), "{pushback}");
}

#[tokio::test(start_paused = true)]
async fn health_tells_of_open_circuits_and_draining_stacks() {
    let registry = Registry::new();
    let (payments, search, server) = registry.with(|| {
        let payments = stack::client().http().name("payments");
        let payments = payments.circuit_breaker(|breaker| breaker.critical(true));
        let search = stack::client()
            .plain(Plain::new().idempotent())
            .name("search");
        let server = stack::server().http().name("server").max_in_flight(9);
        (
            payments.build().unwrap(),
            search.build().unwrap(),
            server.build().unwrap(),
        )
    });
    assert!(registry.health().is_ready());
    assert_eq!(registry.health().circuits, []);

    let down = async || Err::<(), _>(io::Error::other("down"));
    for _ in 0..8 {
        assert!(search.run(down).await.is_err());
    }
    sleep(3 * SECOND).await;
    let health = registry.health();
    let open = health.circuits[0];
    assert_eq!((open.name, open.open, open.critical), ("search", 1, false));
    assert!((3 * SECOND..4 * SECOND).contains(&open.since), "{open:?}");
    assert!(health.is_ready(), "it is not critical");

    let circuit = payments.handle().circuit_breaker;
    circuit
        .make(&"a.example".parse().unwrap())
        .unwrap()
        .force_open();
    sleep(SECOND).await;
    circuit
        .make(&"b.example".parse().unwrap())
        .unwrap()
        .force_open();
    let health = registry.health();
    let open = health.circuits.iter().find(|open| open.critical).unwrap();
    assert_eq!((open.name, open.open, open.since), ("payments", 2, SECOND));
    assert!(!health.is_ready());
    circuit
        .keys()
        .iter()
        .for_each(|(_, circuit)| circuit.close());
    assert!(registry.health().is_ready());

    server.handle().drain(SECOND).await.unwrap();
    let health = registry.health();
    assert_eq!(health.draining[0].name, "server");
    assert!(!health.is_ready());
}

#[test]
fn a_stack_without_a_name_drains_unseen() -> Result<(), BoxError> {
    let registry = Registry::new();
    let _stack = registry.with(|| stack::server().http().max_in_flight(9).build())?;
    assert!(registry.snapshot().is_empty());
    Ok(())
}
