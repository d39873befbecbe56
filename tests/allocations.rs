//! An admitted call that is answered at once allocates nothing: in any layer, nor in the stack of
//! five.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::{Ready, ready},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::ACCEPT};
use http_body_util::Empty;
use tower::{BoxError, Layer, Service, ServiceBuilder};

use tower_keep::{
    Deadline, Run,
    algorithm::TokenBucket,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    fallback::FallbackLayer,
    hedge::HedgeLayer,
    keyed::{self, HeaderKey},
    protocol::{Plain, http as keep_http},
    rate_limit::{Dimension, Rate, RateLimitLayer},
    retry::RetryLayer,
    stack,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes taken and not given back.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came.
#[allow(
    unsafe_code,
    reason = "a global allocator cannot be written without; this is a test, and the library forbids it"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        LIVE.set(LIVE.get() + isize::try_from(layout.size()).unwrap_or(0));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - isize::try_from(layout.size()).unwrap_or(0));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An inner service that answers at once.
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

impl<B> Service<Request<B>> for Echo {
    type Response = Response<Empty<bytes::Bytes>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Empty::new())))
    }
}

/// An inner service whose calls wait once.
#[derive(Clone)]
struct Waits;

impl Service<u64> for Waits {
    type Response = u64;
    type Error = BoxError;
    type Future = WaitsOnce;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        WaitsOnce(request, false)
    }
}

struct WaitsOnce(u64, bool);

impl Future for WaitsOnce {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.1, true) {
            true => Poll::Ready(Ok(self.0)),
            false => Poll::Pending,
        }
    }
}

/// How many allocations a thousand calls make that wait once each.
fn allocations_suspended<S>(mut service: S) -> usize
where
    S: Service<u64, Error: std::fmt::Debug>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut future = pin!(service.call(7));
        assert!(future.as_mut().poll(&mut cx).is_pending());
        assert!(future.poll(&mut cx).is_ready());
    };
    call();
    let before = ALLOCATIONS.get();
    (0..1000).for_each(|_| call());
    ALLOCATIONS.get() - before
}

/// How many allocations a thousand calls make.
fn allocations<Req, S>(mut service: S, request: impl Fn() -> Req) -> usize
where
    S: Service<Req, Error: std::fmt::Debug>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let future = pin!(service.call(request()));
        let Poll::Ready(Ok(_)) = future.poll(&mut cx) else {
            panic!("not answered at once")
        };
    };
    call();
    let before = ALLOCATIONS.get();
    (0..1000).for_each(|_| call());
    ALLOCATIONS.get() - before
}

const SECOND: Duration = Duration::from_secs(1);
const RATE: Rate = Rate::per_second(1_000_000);

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[cfg(feature = "fault")]
#[test]
fn a_stopped_fault_layer_allocates_nothing() {
    use tower_keep::fault::{Fault, FaultLayer};

    let builder = || FaultLayer::builder("a test");
    let over_plain = builder()
        .protocol(Plain::new())
        .fault(Fault::error(|_: &u64| "injected"));
    let over_plain = over_plain.build().unwrap();
    assert_eq!(allocations(over_plain.layer(Echo), || 7), 0, "plain");
    let over_http = builder()
        .protocol(keep_http::Client::new())
        .fault(Fault::refused())
        .fault(Fault::cut_body(7))
        .fault(Fault::not_ready())
        .build()
        .unwrap();
    let get = || Request::new(Empty::<bytes::Bytes>::new());
    assert_eq!(allocations(over_http.layer(Echo), get), 0, "HTTP");
    // It was on, and is off again.
    over_http.handle().start_for(SECOND);
    over_http.handle().stop();
    assert_eq!(allocations(over_http.layer(Echo), get), 0, "stopped");
    // On, calls that are not hit allocate nothing either.
    let rare = builder()
        .protocol(Plain::new())
        .fault(Fault::hang().share(0.0));
    let rare = rare.build().unwrap();
    rare.handle().start_for(60 * SECOND);
    assert_eq!(allocations(rare.layer(Echo), || 7), 0, "running");
}

#[cfg(feature = "replay")]
#[test]
fn a_recorded_call_allocates_nothing() {
    use tower_keep::replay::RecorderBuilder;

    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("allocations.keep");
    let recorder = RecorderBuilder::new(path).key(|request: &u64| Some(*request));
    let recorder = recorder.protocol(Plain::new()).build().unwrap();
    assert_eq!(allocations(recorder.layer(Echo), || 7), 0);
}

#[test]
fn a_call_that_finds_a_lease_allocates_nothing() {
    use tower::ServiceExt;
    use tower_keep::store::Memory;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        // Demand of 10 000 units each 5 ms leaves more than a call's.
        let builder = || {
            RateLimitLayer::builder(RATE)
                .burst(4_000_000)
                .cost(|cost: &u64| u32::try_from(*cost).unwrap())
        };
        let one = builder().fleet(&Memory::new(), "one").build().unwrap();
        let keyed = builder()
            .keyed_by(|_: &u64| Some("a"))
            .fleet(&Memory::new(), "keyed")
            .build()
            .unwrap();
        let quotas =
            || ["requests", "tokens"].map(|name| Dimension::new(name, RATE).burst(4_000_000));
        let several = RateLimitLayer::dimensions(quotas())
            .cost(|cost: &u64| [*cost, *cost])
            .fleet(&Memory::new(), "several")
            .build()
            .unwrap();
        for _ in 0..40 {
            several.layer(Echo).oneshot(10_000).await.unwrap();
            one.layer(Echo).oneshot(10_000).await.unwrap();
            keyed.layer(Echo).oneshot(10_000).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(allocations(one.layer(Echo), || 1), 0, "one limit");
        assert_eq!(allocations(keyed.layer(Echo), || 1), 0, "a key");
        assert_eq!(allocations(several.layer(Echo), || 1), 0, "several quotas");
        let alone = RateLimitLayer::dimensions(quotas()).build().unwrap();
        let alone = alone.layer(Echo);
        assert_eq!(allocations(alone, || 1), 0, "several of this process");
        let shares = RateLimitLayer::dimensions(quotas())
            .keyed_by(|_: &u64| Some("a"))
            .within(quotas())
            .shares(|_| 1)
            .build()
            .unwrap();
        let shares = shares.layer(Echo);
        assert_eq!(allocations(shares, || 1), 0, "a share of several");
    });
}

#[test]
fn no_layer_allocates_for_an_admitted_call() {
    let ask = || 7u64;
    assert_eq!(
        allocations(
            RateLimitLayer::builder(RATE).build().unwrap().layer(Echo),
            ask
        ),
        0,
        "rate limit"
    );
    let hedge = HedgeLayer::builder()
        .protocol(Plain::new().idempotent())
        .delay(SECOND)
        .build()
        .unwrap();
    assert_eq!(allocations(hedge.layer(Echo), ask), 0, "hedge");
    let fallback = FallbackLayer::builder(|_: &u64| (), async |(), failure| failure)
        .protocol(Plain::new())
        .build()
        .unwrap();
    assert_eq!(allocations(fallback.layer(Echo), ask), 0, "fallback");
    let throttle = ThrottleLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    assert_eq!(allocations(throttle.layer(Echo), ask), 0, "throttle");
    let keyed = RateLimitLayer::builder(RATE)
        .keyed_by(|request: &u64| Some(*request))
        .build()
        .unwrap();
    assert_eq!(allocations(keyed.layer(Echo), ask), 0, "keyed rate limit");
    let own = |_: &u64| TokenBucket::new(RATE, 1_000_000);
    let listed = RateLimitLayer::builder(RATE)
        .per_key(|request: &u64| Some(*request), own)
        .build()
        .unwrap();
    assert_eq!(
        allocations(listed.layer(Echo), ask),
        0,
        "per-key rate limit"
    );
    assert_eq!(
        allocations(
            CircuitBreakerLayer::builder()
                .protocol(Plain::new())
                .build()
                .unwrap()
                .layer(Echo),
            ask
        ),
        0,
        "circuit breaker"
    );
    let keyed = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .keyed_by(|request: &u64| Some(*request))
        .build()
        .unwrap();
    assert_eq!(
        allocations(keyed.layer(Echo), ask),
        0,
        "keyed circuit breaker"
    );
    assert_eq!(
        allocations(BulkheadLayer::builder(1).build().unwrap().layer(Echo), ask),
        0,
        "bulkhead"
    );
    assert_eq!(
        allocations(
            TimeoutLayer::builder(SECOND).build().unwrap().layer(Echo),
            ask
        ),
        0,
        "timeout"
    );
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    assert_eq!(allocations(retry.layer(Echo), ask), 0, "retry");
}

/// How many allocations a thousand calls of a function make.
fn allocations_of<F: Future<Output = Result<u64, E>>, E>(call: impl Fn() -> F) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        let Poll::Ready(Ok(_)) = pin!(call()).poll(&mut cx) else {
            panic!("not answered at once")
        };
    };
    call();
    let before = ALLOCATIONS.get();
    (0..1000).for_each(|_| call());
    ALLOCATIONS.get() - before
}

#[test]
fn no_layer_allocates_to_run_a_function() {
    let plain = Plain::new().idempotent();
    let (text, answer) = (String::from("borrowed"), async |_: u32| {
        Ok::<_, BoxError>(7u64)
    });
    let limit = RateLimitLayer::builder(RATE).build().unwrap();
    assert_eq!(allocations_of(|| limit.run(answer)), 0, "rate limit");
    let throttle = ThrottleLayer::builder().protocol(plain).build().unwrap();
    assert_eq!(allocations_of(|| throttle.run(answer)), 0, "throttle");
    let hedge = HedgeLayer::builder()
        .protocol(plain)
        .delay(SECOND)
        .build()
        .unwrap();
    assert_eq!(allocations_of(|| hedge.run(answer)), 0, "hedge");
    let layers = (
        TimeoutLayer::builder(SECOND).total(true).build().unwrap(),
        RetryLayer::builder().protocol(plain).build().unwrap(),
        (
            CircuitBreakerLayer::builder()
                .protocol(plain)
                .build()
                .unwrap(),
            limit,
            BulkheadLayer::builder(100).build().unwrap(),
        ),
        TimeoutLayer::builder(SECOND).build().unwrap(),
    );
    let length = || async { Ok::<_, BoxError>(text.len() as u64) };
    assert_eq!(allocations_of(|| layers.run(length)), 0, "six layers");
    let said = || {
        layers
            .call()
            .key(&text)
            .cost(3)
            .timeout(SECOND)
            .once()
            .run(length)
    };
    assert_eq!(allocations_of(said), 0, "a call that says more");
}

#[test]
fn a_full_featured_rate_limit_does_not_allocate() {
    let limit = RateLimitLayer::builder(RATE)
        .max_wait(SECOND)
        .honor_retry_after(SECOND)
        .cost(|_: &u64| 2)
        .settle(|_: &u64| 1);
    assert_eq!(allocations(limit.build().unwrap().layer(Echo), || 7u64), 0);
}

#[test]
fn a_million_keys_leave_nothing_behind() {
    let limit = RateLimitLayer::builder(Rate::per_day(1))
        .burst(1)
        .keyed_by(|request: &u64| Some(*request));
    let limit = limit.max_keys(1000).build().unwrap();
    let mut service = limit.layer(Echo);
    let mut cx = Context::from_waker(Waker::noop());
    let mut admitted = 0;
    // A thread's counters are made when it first counts.
    assert!(pin!(service.call(1_000_000)).poll(&mut cx).is_ready());
    let before = LIVE.get();
    for key in 0..1_000_000 {
        let future = pin!(service.call(key));
        admitted += u32::from(matches!(future.poll(&mut cx), Poll::Ready(Ok(_))));
    }
    assert_eq!(LIVE.get() - before, 0);
    // Those that have found a place, and one for each of the limits that all others share.
    assert!((1000..5000).contains(&admitted), "{admitted}");
}

#[test]
fn the_memory_per_tracked_key_is_as_documented() {
    let own = |_: &u64| TokenBucket::new(RATE, 1_000_000);
    let listed = RateLimitLayer::builder(RATE)
        .per_key(|request: &u64| Some(*request), own)
        .build()
        .unwrap();
    let circuits = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .keyed_by(|request: &u64| Some(*request))
        .build()
        .unwrap();
    let (mut listed, mut circuits) = (listed.layer(Echo), circuits.layer(Echo));
    let mut cx = Context::from_waker(Waker::noop());
    let mut kept = |call: &mut dyn FnMut(u64, &mut Context<'_>)| {
        let before = LIVE.get();
        (0..1024).for_each(|key| call(key, &mut cx));
        (LIVE.get() - before) / 1024
    };
    let limit = kept(&mut |key, cx| assert!(pin!(listed.call(key)).poll(cx).is_ready()));
    let circuit = kept(&mut |key, cx| assert!(pin!(circuits.call(key)).poll(cx).is_ready()));
    assert!((1024..1536).contains(&limit), "{limit}");
    assert!((2048..4608).contains(&circuit), "{circuit}");
}

/// What a stranger writes into a header may be of any length.
#[test]
fn a_key_of_sixty_kilobytes_takes_a_bounded_room() {
    let tenant = keyed::header::<Empty<bytes::Bytes>>("x-tenant");
    let layer = RateLimitLayer::builder(RATE)
        .protocol(keep_http::Client::new())
        .per_key(tenant, |_: &HeaderKey| TokenBucket::new(RATE, 1_000_000))
        .build()
        .unwrap();
    let mut service = layer.layer(Echo);
    let mut cx = Context::from_waker(Waker::noop());
    let before = LIVE.get();
    for number in 0..1024 {
        let tenant = format!("{}{number}", "x".repeat(60_000));
        let request = Request::get("/").header("x-tenant", tenant);
        let request = request.body(Empty::new()).unwrap();
        assert!(pin!(service.call(request)).poll(&mut cx).is_ready());
    }
    let kept = (LIVE.get() - before) / 1024;
    assert!((1024..2048).contains(&kept), "{kept}");
}

#[test]
fn the_stack_of_five_does_not_allocate() {
    let stack = ServiceBuilder::new()
        .layer(
            RetryLayer::builder()
                .protocol(Plain::new().idempotent())
                .build()
                .unwrap(),
        )
        .layer(
            CircuitBreakerLayer::builder()
                .protocol(Plain::new())
                .build()
                .unwrap(),
        )
        .layer(RateLimitLayer::builder(RATE).build().unwrap())
        .layer(BulkheadLayer::builder(1).build().unwrap())
        .layer(TimeoutLayer::builder(SECOND).build().unwrap());
    assert_eq!(allocations(stack.service(Echo), || 7u64), 0);
}

#[test]
fn calls_that_wait_use_kept_timers() {
    let timeout = TimeoutLayer::builder(SECOND).build().unwrap();
    assert_eq!(allocations_suspended(timeout.layer(Waits)), 0, "timeout");
    let hedge = HedgeLayer::builder()
        .delay(SECOND)
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    assert_eq!(allocations_suspended(hedge.layer(Waits)), 0, "hedge");
    let stack = ServiceBuilder::new()
        .layer(TimeoutLayer::builder(10 * SECOND).build().unwrap())
        .layer(RateLimitLayer::builder(RATE).build().unwrap())
        .layer(BulkheadLayer::builder(1).build().unwrap())
        .layer(TimeoutLayer::builder(SECOND).build().unwrap());
    assert_eq!(allocations_suspended(stack.service(Waits)), 0, "a stack");
}

#[test]
fn five_layers_over_http_allocate_only_for_headers() {
    let client = keep_http::Client::new();
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::builder().protocol(client).build().unwrap())
        .layer(
            CircuitBreakerLayer::builder()
                .protocol(client)
                .build()
                .unwrap(),
        )
        .layer(
            RateLimitLayer::builder(RATE)
                .protocol(client)
                .build()
                .unwrap(),
        )
        .layer(BulkheadLayer::builder(1).protocol(client).build().unwrap())
        .layer(
            TimeoutLayer::builder(SECOND)
                .protocol(client)
                .build()
                .unwrap(),
        );
    let bare = || Request::new(Empty::<bytes::Bytes>::new());
    assert_eq!(allocations(stack.clone().service(Echo), bare), 0);

    let accept = HeaderValue::from_static("text/plain");
    let with_header = || {
        Request::builder()
            .header(ACCEPT, accept.clone())
            .body(Empty::<bytes::Bytes>::new())
            .unwrap()
    };
    let making_the_request = allocations(Echo, with_header);
    assert_eq!(
        (allocations(stack.service(Echo), with_header) - making_the_request) / 1000,
        2,
        "one header map"
    );

    let server = keep_http::Server::new();
    let stack = ServiceBuilder::new()
        .layer(
            RateLimitLayer::builder(RATE)
                .protocol(server)
                .build()
                .unwrap(),
        )
        .layer(BulkheadLayer::builder(1).protocol(server).build().unwrap())
        .layer(
            TimeoutLayer::builder(SECOND)
                .protocol(server)
                .build()
                .unwrap(),
        );
    assert_eq!(
        allocations(stack.service(Echo), with_header) - making_the_request,
        0
    );
}

#[test]
fn a_ready_call_of_a_plain_stack_does_not_allocate() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let stack = stack::client().plain(Plain::new().idempotent());
    let stack = stack.rate(RATE).build().unwrap();
    assert_eq!(allocations(stack.layer(Echo), || 7u64), 0);
}

#[test]
fn a_stack_without_hosts_makes_no_map_of_hosts() {
    let _entered = runtime();
    let before = LIVE.get();
    let stack = stack::client().plain(Plain::new()).build().unwrap();
    let made = LIVE.get() - before;
    assert!((2048..16 * 1024).contains(&made), "{made}");
    drop(stack);
}

#[test]
fn an_http_stack_allocates_as_a_deadline_extension() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let stack = stack::client().http().one_peer().build().unwrap();
    let bare = || Request::new(Empty::<bytes::Bytes>::new());
    let deadline = Deadline::after(SECOND);
    let with_deadline = || {
        let mut request = bare();
        request.extensions_mut().insert(deadline);
        request
    };
    let of_a_deadline = allocations(Echo, with_deadline);
    assert_eq!(allocations(stack.layer(Echo), bare), of_a_deadline);
}

/// A runtime for those that look at the clock.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}
