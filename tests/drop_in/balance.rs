//! Beneath and above tower's load balancer: which arrangement keeps failures of one peer away from
//! callers. The guide's chapter on load balancers.

use std::{
    collections::hash_map::DefaultHasher,
    fmt,
    hash::BuildHasherDefault,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, poll, stream};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::time::sleep;
use tower::{
    BoxError, Layer, Service, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, Load, PeakEwma, PendingRequests},
    service_fn,
    util::{BoxCloneSyncService, rng::HasherRng},
};
use tower_keep::{
    Rejected, RejectedKind,
    circuit_breaker::CircuitBreakerBuilder,
    protocol::http::{Client, ReplayBody},
    stack,
};

use super::SECOND;

type Body = Empty<Bytes>;
type Boxed<B> = BoxCloneSyncService<Request<B>, Response<Body>, BoxError>;

/// How one peer of three fails.
#[derive(Debug, Clone, Copy)]
enum Sick {
    Answers500,
    Answers503,
    Refuses,
    Hangs,
}

/// By what the balancer chooses.
#[derive(Debug, Clone, Copy)]
enum By {
    Pending,
    PeakEwma,
}

/// Three peers, of which one is sick, and how often that is called.
fn peers<B: Send + 'static>(sick: Sick) -> (Vec<Boxed<B>>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let failing = service_fn(move |_: Request<B>| {
        count.fetch_add(1, SeqCst);
        async move {
            let status = match sick {
                Sick::Answers500 => StatusCode::INTERNAL_SERVER_ERROR,
                Sick::Answers503 => StatusCode::SERVICE_UNAVAILABLE,
                Sick::Refuses => {
                    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                    return Err::<_, BoxError>(refused.into());
                }
                Sick::Hangs => std::future::pending().await,
            };
            let mut response = Response::new(Body::new());
            *response.status_mut() = status;
            Ok(response)
        }
    });
    let healthy = service_fn(async |_: Request<B>| {
        sleep(Duration::from_millis(10)).await;
        Ok::<_, BoxError>(Response::new(Body::new()))
    });
    let healthy = BoxCloneSyncService::new(healthy);
    let failing = BoxCloneSyncService::new(failing);
    (vec![healthy.clone(), failing, healthy], calls)
}

fn balanced<S, B>(peers: Vec<S>, by: By) -> Boxed<B>
where
    S: Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send>,
    S: Send + 'static,
    B: Send + 'static,
{
    let complete = CompleteOnResponse::default;
    match by {
        By::Pending => p2c(peers, |peer| PendingRequests::new(peer, complete())),
        By::PeakEwma => p2c(peers, |peer| PeakEwma::new(peer, SECOND, 10e9, complete())),
    }
}

fn p2c<S, L, B>(peers: Vec<S>, measured: impl Fn(S) -> L) -> Boxed<B>
where
    L: Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send>,
    L: Load<Metric: fmt::Debug> + Send + 'static,
    B: Send + 'static,
{
    let peers: Vec<_> = peers.into_iter().map(measured).collect();
    let chance = HasherRng::with_hasher(BuildHasherDefault::<DefaultHasher>::default());
    let balance = Balance::from_rng(ServiceList::new(peers), chance);
    BoxCloneSyncService::new(Buffer::new(balance, 1024))
}

/// How many of 200 calls fail, some of them at a time.
async fn failures(service: Boxed<Body>, at_once: usize) -> usize {
    let call = |_| {
        let request = Request::get("http://upstream/").body(Body::new()).unwrap();
        service.clone().oneshot(request)
    };
    let results = stream::iter(0..200).map(call).buffer_unordered(at_once);
    let failed = results.filter(|result| {
        let good = result
            .as_ref()
            .is_ok_and(|response| response.status() == 200);
        std::future::ready(!good)
    });
    failed.count().await
}

/// Of `stack::client()`, what belongs to each peer: circuit breaker, bulkhead, attempt timeout.
fn of_peer() -> OfPeer {
    let stack = stack::client().http().one_peer();
    stack.without_retry().without_total_timeout()
}

/// And what belongs to all of them together: total timeout and retry.
fn of_all() -> stack::ClientBuilder<Client> {
    let stack = stack::client().http().without_attempt_timeout();
    stack.without_circuit_breaker().without_bulkhead()
}

/// Each peer has a stack of its own, without retries.
fn each<B>(
    peers: Vec<Boxed<B>>,
    stack: impl Fn() -> OfPeer,
) -> Vec<stack::ClientService<Boxed<B>, Client, stack::AnyHost, stack::Once>> {
    let with_stack = |peer| stack().build().unwrap().layer(peer);
    peers.into_iter().map(with_stack).collect()
}

type OfPeer = stack::ClientBuilder<Client, stack::AnyHost, stack::Parts<stack::SendingOnce>>;
/// A body that a retry has seen.
type Kept<B> = ReplayBody<B>;
/// A peer beneath two stacks, of which the upper retries.
type Peer = Boxed<Kept<Body>>;

/// The right arrangement: a part beneath, with backpressure, and a part above.
fn arranged(peers: Vec<Peer>, by: By) -> Boxed<Body> {
    // A 500 is not retried by default: it is usually a bug, which all peers have.
    let above = of_all().protocol(|client| client.also_retry([StatusCode::INTERNAL_SERVER_ERROR]));
    let above = above.build().unwrap();
    BoxCloneSyncService::new(above.layer(balanced(each(peers, of_peer), by)))
}

#[tokio::test(start_paused = true)]
async fn with_one_of_three_peers_sick_few_calls_fail() {
    for sick in [
        Sick::Answers500,
        Sick::Answers503,
        Sick::Refuses,
        Sick::Hangs,
    ] {
        for by in [By::Pending, By::PeakEwma] {
            for at_once in [1, 10] {
                let (peers, calls) = peers(sick);
                let failed = failures(arranged(peers, by), at_once).await;
                let case = format!("{sick:?}, {by:?}, {at_once} at once: {failed} failed");
                assert!(failed < 10, "{case}");
                assert!(
                    calls.load(SeqCst) <= 20,
                    "{case}, {calls:?} to the sick peer"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_stack_above_has_one_circuit_for_all_peers() {
    for (by, at_least) in [(By::Pending, 30), (By::PeakEwma, 150)] {
        let (peers, _) = peers(Sick::Answers503);
        let stack = stack::client().http().build().unwrap();
        let service = stack.layer(balanced(peers, by));
        let failed = failures(BoxCloneSyncService::new(service), 1).await;
        assert!(failed >= at_least, "{by:?}: {failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_backpressure_open_circuits_attract_calls() {
    for (by, at_least) in [(By::Pending, 40), (By::PeakEwma, 100)] {
        let (sick, calls) = peers(Sick::Answers503);
        let above = of_all().build().unwrap();
        let beneath = || of_peer().circuit_breaker(CircuitBreakerBuilder::without_backpressure);
        let service = above.layer(balanced(each(sick, beneath), by));
        let failed = failures(BoxCloneSyncService::new(service), 1).await;
        assert!(failed >= at_least, "{by:?}: {failed}");
        assert!(calls.load(SeqCst) <= 20, "the circuit was open");

        // The same with whole stacks beneath.
        let (sick, _) = peers(Sick::Answers500);
        let whole = |peer| stack::client().http().build().unwrap().layer(peer);
        let whole = sick.into_iter().map(whole).collect();
        let failed = failures(balanced(whole, by), 1).await;
        assert!(failed >= at_least, "{by:?}: {failed}");
    }
}

/// Three peers that are down until they are told otherwise.
fn down() -> (Vec<Peer>, Arc<AtomicBool>) {
    let up = Arc::new(AtomicBool::new(false));
    let peer = || {
        let up = up.clone();
        let peer = service_fn(move |_: Request<_>| {
            let mut response = Response::new(Body::new());
            if !up.load(SeqCst) {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            std::future::ready(Ok::<_, BoxError>(response))
        });
        BoxCloneSyncService::new(peer)
    };
    (vec![peer(), peer(), peer()], up)
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_any_peer_ends_at_the_total_timeout() {
    let (peers, up) = down();
    let service = arranged(peers, By::Pending);
    assert_eq!(failures(service.clone(), 1).await, 200);
    // All circuits are open: a call waits for a probe, and then has that one's answer.
    let request = || Request::get("http://upstream/").body(Body::new()).unwrap();
    let call = tokio::time::timeout(11 * SECOND, service.clone().oneshot(request()));
    let answer = call.await.expect("in total 10 s");
    assert!(answer.map_or(true, |response| response.status() == 503));

    up.store(true, SeqCst);
    sleep(SECOND).await;
    assert_eq!(failures(service, 10).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_avoids_a_peer_with_a_full_bulkhead() {
    for by in [By::Pending, By::PeakEwma] {
        let (peers, calls) = peers(Sick::Hangs);
        let beneath = || of_peer().max_in_flight(6);
        let above = of_all().build().unwrap();
        let service = above.layer(balanced(each(peers, beneath), by));
        let failed = failures(BoxCloneSyncService::new(service), 10).await;
        assert_eq!(failed, 0, "{by:?}");
        assert!(calls.load(SeqCst) <= 10, "{by:?}: {calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn backpressure_is_for_the_stack_of_one_peer() {
    let by_host = stack::client().http();
    let by_host = by_host.circuit_breaker(|breaker| breaker.backpressure());
    assert_eq!(by_host.build().unwrap_err().field, "backpressure");

    let one = stack::client().http().one_peer();
    let one = one.circuit_breaker(|breaker| breaker.consecutive_failures(1));
    let stack = one.without_retry().build().unwrap();
    let circuit = stack.handle().circuit_breaker.shared();
    let mut service = stack.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, BoxError>(Response::new(Body::new()))
    }));
    circuit.force_open();
    assert!(poll!(ServiceExt::<Request<Body>>::ready(&mut service)).is_pending());
    circuit.close();
    assert!(poll!(ServiceExt::<Request<Body>>::ready(&mut service)).is_ready());
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_of_one_peer_does_not_ask_the_peer() {
    let stack = stack::client().http().one_peer();
    let stack = stack.circuit_breaker(CircuitBreakerBuilder::without_backpressure);
    let stack = stack.build().unwrap();
    stack.handle().circuit_breaker.shared().force_open();
    let (hangs, mut peer) = tower_test::mock::pair::<Request<Kept<Body>>, Response<Body>>();
    peer.allow(0);
    let request = Request::get("http://upstream/").body(Body::new()).unwrap();
    let call = tokio::time::timeout(SECOND, stack.layer(hangs).oneshot(request));
    let error = call.await.expect("at once").unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.kind, RejectedKind::CircuitOpen);
}
