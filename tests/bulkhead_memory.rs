//! A million calls that queue, and are cancelled or served, leave no memory behind.
//!
//! It is the only test in its file: the resident size is the process's, and others would move it.
#![cfg(target_os = "linux")]

use std::{
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use futures::future::pending;
use tower::{BoxError, Layer, Service, service_fn};
use tower_keep::bulkhead::BulkheadLayer;

const CALLS: u64 = 1_000_000;
const PAGE: u64 = 4096;

/// In bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages = statm.split_whitespace().nth(1).unwrap();
    pages.parse::<u64>().unwrap() * PAGE
}

/// Keeps up to 300 calls, of which up to 4 or so run, and drops one at random for each new one.
fn churn<S>(service: &mut S, calls: u64)
where
    S: Service<u64, Response = (), Error = BoxError>,
{
    let (mut held, mut random) = (Vec::<Pin<Box<S::Future>>>::new(), 1_u64);
    let mut context = Context::from_waker(Waker::noop());
    for call in 0..calls {
        assert!(service.poll_ready(&mut context).is_ready());
        let mut future = Box::pin(service.call(call));
        if future.as_mut().poll(&mut context).is_pending() {
            held.push(future);
        }
        if held.len() > 300 {
            random = random.wrapping_mul(6_364_136_223_846_793_005) | 1;
            drop(held.swap_remove((random >> 33) as usize % held.len()));
        }
    }
}

#[test]
fn a_million_queued_calls_do_not_grow_the_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let builder = || BulkheadLayer::builder(4).max_wait(Duration::from_secs(3600));
    let alone = builder().build().unwrap();
    // More keys than are kept, so that some are evicted all the time.
    let keyed = builder()
        .keyed_by(|call: &u64| Some(call % 100))
        .max_keys(50);
    let keyed = keyed.within(20).build().unwrap();
    let hangs = || service_fn(|_: u64| pending::<Result<(), BoxError>>());
    let (mut first, mut second) = (alone.layer(hangs()), keyed.layer(hangs()));
    let mut round = |calls| {
        churn(&mut first, calls);
        churn(&mut second, calls);
    };
    round(CALLS / 10);
    let before = resident();
    round(CALLS / 2);
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 * 1024, "{grown} bytes");
    assert!(alone.handle().snapshot().waited > CALLS / 2);
    assert_eq!(keyed.handle().total(), Some((0, 20)));
}
