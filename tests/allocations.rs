//! An admitted call that is answered at once allocates nothing: in any layer, nor in the stack of five.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::ACCEPT};
use http_body_util::Empty;
use tower::{BoxError, Layer, Service, ServiceBuilder};

use tower_keep::{
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::{Plain, http as keep_http},
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

struct Counting;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

// SAFETY: every call goes to the system's allocator as it came.
#[allow(unsafe_code, reason = "a global allocator cannot be written without; this is a test, and the library forbids it")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
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

/// How many allocations a thousand calls make.
fn allocations<Req, S>(mut service: S, request: impl Fn() -> Req) -> usize
where
    S: Service<Req, Error: std::fmt::Debug>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let future = pin!(service.call(request()));
        let Poll::Ready(Ok(_)) = future.poll(&mut cx) else { panic!("not answered at once") };
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

#[test]
fn no_layer_allocates_for_an_admitted_call() {
    let ask = || 7u64;
    assert_eq!(allocations(RateLimitLayer::builder(RATE).build().unwrap().layer(Echo), ask), 0, "rate limit");
    assert_eq!(allocations(CircuitBreakerLayer::builder().build().unwrap().layer(Echo), ask), 0, "circuit breaker");
    assert_eq!(allocations(BulkheadLayer::builder(1).build().unwrap().layer(Echo), ask), 0, "bulkhead");
    assert_eq!(allocations(TimeoutLayer::builder(SECOND).build().unwrap().layer(Echo), ask), 0, "timeout");
    let retry = RetryLayer::builder().protocol(Plain::new().idempotent()).build().unwrap();
    assert_eq!(allocations(retry.layer(Echo), ask), 0, "retry");
}

#[test]
fn the_stack_of_five_does_not_allocate() {
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::builder().protocol(Plain::new().idempotent()).build().unwrap())
        .layer(CircuitBreakerLayer::builder().build().unwrap())
        .layer(RateLimitLayer::builder(RATE).build().unwrap())
        .layer(BulkheadLayer::builder(1).build().unwrap())
        .layer(TimeoutLayer::builder(SECOND).build().unwrap());
    assert_eq!(allocations(stack.service(Echo), || 7u64), 0);
}

#[test]
fn the_stack_of_five_over_http_allocates_only_to_copy_headers() {
    let client = keep_http::Client::new();
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::builder().protocol(client).build().unwrap())
        .layer(CircuitBreakerLayer::builder().protocol(client).build().unwrap())
        .layer(RateLimitLayer::builder(RATE).protocol(client).build().unwrap())
        .layer(BulkheadLayer::builder(1).protocol(client).build().unwrap())
        .layer(TimeoutLayer::builder(SECOND).protocol(client).build().unwrap());
    let bare = || Request::new(Empty::<bytes::Bytes>::new());
    assert_eq!(allocations(stack.clone().service(Echo), bare), 0);

    let accept = HeaderValue::from_static("text/plain");
    let with_header = || Request::builder().header(ACCEPT, accept.clone()).body(Empty::<bytes::Bytes>::new()).unwrap();
    let making_the_request = allocations(Echo, with_header);
    assert_eq!((allocations(stack.service(Echo), with_header) - making_the_request) / 1000, 2, "one header map");

    let server = keep_http::Server::new();
    let stack = ServiceBuilder::new()
        .layer(RateLimitLayer::builder(RATE).protocol(server).build().unwrap())
        .layer(BulkheadLayer::builder(1).protocol(server).build().unwrap())
        .layer(TimeoutLayer::builder(SECOND).protocol(server).build().unwrap());
    assert_eq!(allocations(stack.service(Echo), with_header) - making_the_request, 0);
}
