//! One call after another through one layer, for `scripts/instructions` to count: the counts that
//! callgrind gives are the same on every run, where times are not.
//!
//! `instructions NAME COUNT` makes COUNT calls of one case. Without arguments each case runs once,
//! so that `cargo bench` shows that all of them work.

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::runtime::{Builder, Runtime};
use tower::{BoxError, Layer, Service, ServiceBuilder};

use tower_keep::{
    CallSettings,
    bulkhead::{BulkheadGate, BulkheadLayer},
    circuit_breaker::{CircuitBreakerLayer, CircuitGate},
    gate::{Asking, Chain, GateLayer},
    hedge::HedgeLayer,
    observe::{Registry, page},
    protocol::{Always, ErrIsFailure, Plain},
    rate_limit::{LimitGate, Rate, RateLimitBuilder, RateLimitLayer},
    retry::RetryLayer,
    stack,
    store::Memory,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

fn main() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, count] = arguments.as_slice() {
        let case = CASES.iter().find(|case| case.name == name);
        let mut call = (case.expect("a case of that name").prepare)();
        let count = count.parse().expect("a count");
        // The first ones make what is made once.
        (0..count / 10).for_each(|_| call());
        counted(&mut *call, count);
        return;
    }
    // `cargo bench -- --option value` passes options to every bench: they are not for this one.
    for case in CASES {
        (case.prepare)()();
        println!("{}", case.name);
    }
}

/// The calls that callgrind counts, by the name of this function.
#[inline(never)]
fn counted(call: &mut dyn FnMut(), count: u32) {
    (0..count).for_each(|_| call());
}

/// A case: what `prepare` returns makes one call and checks how it ended.
struct Case {
    name: &'static str,
    prepare: fn() -> Box<dyn FnMut()>,
}

const fn case(name: &'static str, prepare: fn() -> Box<dyn FnMut()>) -> Case {
    Case { name, prepare }
}

const CASES: &[Case] = &[
    case("ready: no layer", || admitted(Echo)),
    case("ready: rate limit", || admitted(limit().layer(Echo))),
    case("ready: rate limit, a lease of a fleet", leased),
    case("ready: rate limit, one key", || {
        let limit = limits().keyed_by(|request: &u64| Some(*request));
        admitted(limit.build().unwrap().layer(Echo))
    }),
    case("ready: circuit breaker", || admitted(breaker().layer(Echo))),
    case("ready: circuit breaker, one key", || {
        let breaker = CircuitBreakerLayer::builder()
            .protocol(Plain::new())
            .keyed_by(|request: &u64| Some(*request));
        admitted(breaker.build().unwrap().layer(Echo))
    }),
    case("ready: bulkhead", || admitted(bulkhead().layer(Echo))),
    case("ready: retry", || admitted(retry().layer(Echo))),
    case("ready: timeout", || admitted(timeout().layer(Echo))),
    case("ready: stack of five", || {
        admitted(five(breaker(), limit(), bulkhead(), Echo))
    }),
    case("ready: three gates as one layer", || {
        admitted(together(breaker_gate(), limit_gate()).layer(Echo))
    }),
    case("ready: five, three gates as one layer", || {
        admitted(five_as_three(together(breaker_gate(), limit_gate()), Echo))
    }),
    case("ready: client stack", || admitted(client(None, Echo))),
    case("ready: client stack, named", || {
        admitted(client(Some("bench"), Echo))
    }),
    // A page that nobody looks at costs a call nothing.
    case("ready: client stack, named, with a page", || {
        let page = page(Registry::global());
        let mut call = admitted(client(Some("bench"), Echo));
        Box::new(move || {
            let _ = &page;
            call();
        })
    }),
    case("ready: hedge", || {
        let hedge = HedgeLayer::builder().delay(Duration::from_secs(1));
        let hedge = hedge.protocol(Plain::new().idempotent());
        admitted(hedge.build().unwrap().layer(Echo))
    }),
    case("ready: throttle", || {
        let throttle = ThrottleLayer::builder().protocol(Plain::new());
        admitted(throttle.build().unwrap().layer(Echo))
    }),
    case("ready, http: no layer", || exchanged(EchoHttp, get)),
    case("ready, http: client stack", || {
        exchanged(http_client().layer(EchoHttp), get)
    }),
    case("ready, http: client stack, call settings", || {
        exchanged(http_client().layer(EchoHttp), || {
            let mut request = get();
            request.extensions_mut().insert(CallSettings::new().cost(2));
            request
        })
    }),
    case("ready, http: server stack", || {
        let server = stack::server().http().max_in_flight(1000);
        let server = server.rate_limit(limits()).build().unwrap();
        exchanged(server.layer(EchoHttp), get)
    }),
    case("suspended once: client stack", || {
        suspended(client(None, Suspends))
    }),
    case("suspended once: no layer", || suspended(Suspends)),
    case("suspended once: timeout", || {
        suspended(timeout().layer(Suspends))
    }),
    case("suspended once: stack of five", || {
        suspended(five(breaker(), limit(), bulkhead(), Suspends))
    }),
    case("suspended once: five, three gates as one layer", || {
        suspended(five_as_three(
            together(breaker_gate(), limit_gate()),
            Suspends,
        ))
    }),
    case("rejected: rate limit", || {
        rejected(empty_limit().layer(Echo))
    }),
    case("rejected: rate limit, one key", || {
        let limit = RateLimitLayer::builder(Rate::per_day(1)).burst(1);
        let limit = limit
            .keyed_by(|request: &u64| Some(*request))
            .build()
            .unwrap();
        admitted(limit.layer(Echo))();
        rejected(limit.layer(Echo))
    }),
    case("rejected: circuit breaker", || {
        rejected(open_breaker().layer(Echo))
    }),
    case("rejected: bulkhead", || {
        rejected(full_bulkhead().layer(Echo))
    }),
    case("rejected: by the rate limit of five", || {
        rejected(five(breaker(), empty_limit(), bulkhead(), Echo))
    }),
    case("rejected: by the circuit breaker of five", || {
        rejected(five(open_breaker(), limit(), bulkhead(), Echo))
    }),
    case("rejected: by the bulkhead of five", || {
        rejected(five(breaker(), limit(), full_bulkhead(), Echo))
    }),
    case("rejected: by the rate limit of five, three as one", || {
        let empty = RateLimitLayer::builder(Rate::per_day(1))
            .burst(1)
            .gate()
            .unwrap();
        empty.handle().charge(1);
        rejected(five_as_three(together(breaker_gate(), empty), Echo))
    }),
    case(
        "rejected: by the circuit breaker of five, three as one",
        || {
            let open = breaker_gate();
            open.handle().force_open();
            rejected(five_as_three(together(open, limit_gate()), Echo))
        },
    ),
];

type Together = GateLayer<Chain<CircuitGate, Chain<Asking<LimitGate>, Asking<BulkheadGate>>>>;

fn breaker_gate() -> CircuitGate {
    CircuitBreakerLayer::builder().gate().unwrap()
}

fn limit_gate() -> Asking<LimitGate> {
    limits().gate().unwrap()
}

/// The three gates of the stack in one layer.
fn together(breaker: CircuitGate, limit: Asking<LimitGate>) -> Together {
    GateLayer::new((breaker, limit, BulkheadLayer::builder(1000).gate().unwrap()))
        .protocol(Plain::new())
}

fn five_as_three<S>(gates: Together, inner: S) -> impl Service<u64, Response = u64>
where
    S: Service<u64, Response = u64, Error = BoxError> + Clone + 'static,
{
    ServiceBuilder::new()
        .layer(retry())
        .layer(gates)
        .layer(timeout())
        .service(inner)
}

fn limits() -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_second(100_000_000)).burst(100_000_000)
}

fn limit() -> RateLimitLayer {
    limits().build().unwrap()
}

/// A limit of a fleet, whose lease is enough for all calls of a run.
fn leased() -> Box<dyn FnMut()> {
    let builder = RateLimitLayer::builder(Rate::per_second(10_000_000));
    let limit = builder.fleet(&Memory::new(), "bench").build().unwrap();
    // Its task, which asks the store, stands still while the calls are counted.
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut service = limit.layer(Echo);
        // As long as it takes to lease more than what is spent.
        while limit.handle().fleet().unwrap().snapshot().leased < 20_000 {
            for _ in 0..200 {
                service.call(7).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    // A refund goes to a lease that lives.
    limit.handle().settle(1_000_000, 0);
    let mut call = admitted(limit.layer(Echo));
    Box::new(move || {
        let _ = &runtime;
        call();
    })
}

fn empty_limit() -> RateLimitLayer {
    let limit = RateLimitLayer::builder(Rate::per_day(1))
        .burst(1)
        .build()
        .unwrap();
    admitted(limit.layer(Echo))();
    limit
}

fn breaker() -> CircuitBreakerLayer {
    CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap()
}

fn open_breaker() -> CircuitBreakerLayer {
    let breaker = breaker();
    breaker.handle().force_open();
    breaker
}

fn bulkhead() -> BulkheadLayer {
    BulkheadLayer::builder(1000).build().unwrap()
}

/// A bulkhead of one place, which a call holds that never ends.
fn full_bulkhead() -> BulkheadLayer {
    let bulkhead = BulkheadLayer::builder(1).build().unwrap();
    std::mem::forget(bulkhead.layer(Echo).call(7));
    bulkhead
}

fn retry() -> RetryLayer<Plain<ErrIsFailure, Always>> {
    RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap()
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::builder(Duration::from_secs(1))
        .build()
        .unwrap()
}

/// What `stack::client()` makes, with a rate and places.
fn client<S>(name: Option<&'static str>, inner: S) -> impl Service<u64, Response = u64>
where
    S: Service<u64, Response = u64, Error = BoxError> + Clone + Send + Sync + 'static,
{
    let client = stack::client()
        .plain(Plain::new().idempotent())
        .rate_limit(limits())
        .max_in_flight(1000);
    let client = match name {
        Some(name) => client.name(name),
        None => client,
    };
    client.build().unwrap().layer(inner)
}

/// What `stack::client()` makes over HTTP, with a rate and places for each host.
fn http_client() -> impl Layer<
    EchoHttp,
    Service: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError>,
> {
    let client = stack::client().http().rate_limit(limits());
    client.max_in_flight(1000).build().unwrap()
}

/// The stack in the order of the guide.
fn five<S>(
    breaker: CircuitBreakerLayer,
    limit: RateLimitLayer,
    bulkhead: BulkheadLayer,
    inner: S,
) -> impl Service<u64, Response = u64>
where
    S: Service<u64, Response = u64, Error = BoxError> + Clone + 'static,
{
    ServiceBuilder::new()
        .layer(retry())
        .layer(breaker)
        .layer(limit)
        .layer(bulkhead)
        .layer(timeout())
        .service(inner)
}

fn admitted(mut service: impl Service<u64, Response = u64> + 'static) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        let future = pin!(service.call(black_box(7)));
        assert!(matches!(future.poll(&mut cx), Poll::Ready(Ok(7))));
    })
}

/// Exchanges a request and a response of HTTP.
fn exchanged<S, R>(mut service: S, request: fn() -> Request<Full<Bytes>>) -> Box<dyn FnMut()>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + 'static,
{
    Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        let future = pin!(service.call(black_box(request())));
        assert!(matches!(future.poll(&mut cx), Poll::Ready(Ok(_))));
    })
}

fn get() -> Request<Full<Bytes>> {
    Request::get("http://shop/").body(Full::default()).unwrap()
}

fn suspended(mut service: impl Service<u64, Response = u64> + 'static) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        let mut future = pin!(service.call(black_box(7)));
        assert!(future.as_mut().poll(&mut cx).is_pending());
        assert!(matches!(future.poll(&mut cx), Poll::Ready(Ok(7))));
    })
}

fn rejected(mut service: impl Service<u64, Response = u64> + 'static) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        let future = pin!(service.call(black_box(7)));
        assert!(matches!(future.poll(&mut cx), Poll::Ready(Err(_))));
    })
}

/// A runtime for its timers only: nothing is spawned on it.
fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_time().build().unwrap()
}

/// Answers at once.
#[derive(Clone)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// Answers any request of HTTP at once.
#[derive(Clone)]
struct EchoHttp;

impl<B> Service<Request<B>> for EchoHttp {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Full<Bytes>>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Full::default())))
    }
}

/// Answers at the second poll.
#[derive(Clone)]
struct Suspends;

impl Service<u64> for Suspends {
    type Response = u64;
    type Error = BoxError;
    type Future = Once;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        Once {
            request,
            polled: false,
        }
    }
}

struct Once {
    request: u64,
    polled: bool,
}

impl Future for Once {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::replace(&mut self.polled, true) {
            return Poll::Ready(Ok(self.request));
        }
        Poll::Pending
    }
}
