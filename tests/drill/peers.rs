//! Stacks of single peers beneath a balancer: one that is slow, and restarts one after the other.

use std::{collections::hash_map::DefaultHasher, fmt, hash::BuildHasherDefault};

use http::{
    Request, Response, Uri,
    uri::{Authority, Scheme},
};
use tower::{
    BoxError, Layer, Service, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
    util::{BoxCloneSyncService, rng::HasherRng},
};
use tower_keep::{
    circuit_breaker::CircuitBreakerBuilder,
    drill::{
        Body, Drill, HttpUpstream, Lognormal, Measure, Poisson, Reached, Servers, Trouble, ms, secs,
    },
    protocol::http::Client,
    stack::{self, AnyHost, ClientBuilder},
};

use crate::{few_seeds, to_the_shop};

type Peer<B> = BoxCloneSyncService<Request<B>, Response<Body>, BoxError>;

const PEERS: [&str; 8] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];

/// A client of one peer: calls go there, whatever host they name.
fn peer<B>(upstream: HttpUpstream, name: &'static str) -> Peer<B>
where
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let sent = upstream.map_request(move |mut request: Request<B>| {
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(Authority::from_static(name));
        *request.uri_mut() = Uri::from_parts(parts).unwrap();
        request
    });
    BoxCloneSyncService::new(sent)
}

/// Two of the peers are drawn, from a seed, and that with fewer pending calls is called.
fn balanced<S, B>(peers: impl IntoIterator<Item = S>) -> Peer<B>
where
    S: Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send>,
    S: fmt::Debug + Send + 'static,
    B: Send + 'static,
{
    let peers = peers.into_iter();
    let peers = peers.map(|peer| PendingRequests::new(peer, CompleteOnResponse::default()));
    let chance = HasherRng::with_hasher(BuildHasherDefault::<DefaultHasher>::default());
    let balance = Balance::from_rng(ServiceList::new(peers.collect::<Vec<_>>()), chance);
    BoxCloneSyncService::new(Buffer::new(balance, 1024))
}

/// Eight peers, each with its stack, and retries above.
fn arranged(
    upstream: &HttpUpstream,
    change: impl Fn(CircuitBreakerBuilder) -> CircuitBreakerBuilder,
) -> Result<Peer<Body>, BoxError> {
    let of_peer = || -> ClientBuilder<Client, AnyHost> { stack::client().http().one_peer() };
    let peers = PEERS.map(|name| {
        let stack = of_peer().attempt_timeout(ms(200));
        let stack = stack.circuit_breaker(&change).without_retry();
        let stack = stack.without_total_timeout().build()?;
        Ok::<_, BoxError>(stack.layer(peer(upstream.clone(), name)))
    });
    let peers: Vec<_> = peers.into_iter().collect::<Result<_, _>>()?;
    let above = stack::client().http().without_attempt_timeout();
    let above = above.without_circuit_breaker().without_bulkhead().build()?;
    Ok(BoxCloneSyncService::new(above.layer(balanced(peers))))
}

fn of_eight(drill: Drill) -> Drill {
    let drill = drill
        .patience(secs(1))
        .lasting(secs(40))
        .traffic(Poisson::per_second(400), to_the_shop)
        .seeds(0..few_seeds());
    let servers = || Servers::new(8).service(Lognormal::median(ms(20)).sigma(0.5));
    let peers = PEERS.into_iter();
    peers.fold(drill, |drill, name| drill.upstream(name, servers()))
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn one_slow_peer_of_eight_costs_nothing() {
    let plain = |upstream: HttpUpstream| {
        let peers = PEERS.map(|name| peer::<Body>(upstream.clone(), name));
        Ok(balanced(peers))
    };
    let eager =
        |upstream: HttpUpstream| arranged(&upstream, CircuitBreakerBuilder::without_backpressure);
    let drill = Drill::http(|upstream| arranged(&upstream, |breaker| breaker))
        .against(eager)
        .named("no backpressure")
        .against(plain)
        .named("balancer alone");
    let report = of_eight(drill)
        .trouble(secs(10)..secs(30), "p3", Trouble::slow(50.0))
        .run();
    report.each(Measure::Answered).at_least(0.9999);
    // Its circuit answers at once, so that its peer looks best.
    let eager = report.each(Measure::Answered).of("no backpressure");
    eager.at_most(0.95);
    let alone = report.each(Measure::Answered).of("balancer alone");
    alone.at_least(0.98);
}

#[test]
#[ignore = "minutes without optimization: scripts/drill runs it"]
fn restarts_one_after_the_other_fail_no_call() {
    let drill = of_eight(Drill::http(|upstream| {
        arranged(&upstream, |breaker| breaker)
    }));
    let drill = (5..)
        .step_by(4)
        .zip(PEERS)
        .fold(drill, |drill, (from, name)| {
            drill.trouble(
                secs(from)..secs(from + 4),
                name,
                Trouble::rolling_restart(1),
            )
        });
    let report = drill.run();
    // Of some 16 000 calls in each seed.
    report.each(Measure::Answered).at_least(1.0);
    report.reached([Reached::RetryRecovered, Reached::CircuitOpened]);
}
