//! The circuit of a ready-made stack.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::{
    circuit_breaker::BreakerState,
    protocol::Plain,
    stack::{self, Changes},
};

#[test]
fn a_probe_has_as_long_as_an_attempt() {
    let seconds = Duration::from_secs;
    let lease = |attempt: Option<u64>, lease: Option<u64>| {
        let builder = stack::client().plain(Plain::new());
        let builder = match attempt {
            Some(attempt) => builder.attempt_timeout(seconds(attempt)),
            None => builder.without_attempt_timeout(),
        };
        let builder = builder
            .total_timeout(seconds(60))
            .circuit_breaker(|breaker| match lease {
                Some(lease) => breaker.window(seconds(60)).lease(seconds(lease)),
                None => breaker.window(seconds(60)),
            });
        let handle = builder.build().unwrap().handle();
        handle.circuit_breaker.shared().config().lease.unwrap()
    };
    assert_eq!(lease(Some(3), None), seconds(5));
    assert_eq!(lease(Some(20), None), seconds(20));
    assert_eq!(lease(None, None), seconds(60));
    assert_eq!(lease(Some(20), Some(10)), seconds(10));
}

#[test]
fn a_probes_time_follows_while_a_stack_runs() {
    let seconds = Duration::from_secs;
    for set in [None, Some(seconds(9))] {
        let builder = stack::client().plain(Plain::new());
        let builder = builder.circuit_breaker(|breaker| {
            let breaker = breaker.window(seconds(60));
            match set {
                Some(lease) => breaker.lease(lease),
                None => breaker,
            }
        });
        let handle = builder.total_timeout(seconds(60)).build().unwrap().handle();
        let lease = || handle.circuit_breaker.shared().config().lease.unwrap();
        for (attempt, expected) in [(20, 20), (30, 30), (4, 5)] {
            let changes = Changes::new().attempt_timeout(seconds(attempt));
            handle.update(changes).unwrap();
            assert_eq!(lease(), set.unwrap_or(seconds(expected)), "{attempt}");
        }
    }
}

/// Regression: a probe had as long as the circuit stays open, half a second. An upstream that takes
/// longer, as it always had, never closed its circuit again while it was called.
#[tokio::test(start_paused = true)]
async fn a_slow_upstream_closes_its_circuit_again() {
    for takes in [100, 600, 2900].map(Duration::from_millis) {
        let is_down = Arc::new(AtomicBool::new(true));
        let upstream = service_fn({
            let is_down = is_down.clone();
            move |()| {
                let is_down = is_down.clone();
                async move {
                    sleep(takes).await;
                    let down = is_down.load(Ordering::Relaxed);
                    (!down)
                        .then_some(())
                        .ok_or_else(|| io::Error::other("down"))
                }
            }
        });
        let stack = stack::client()
            .plain(Plain::new())
            .without_retry()
            .build()
            .unwrap();
        let service = stack.layer(upstream);
        let call_for = async |seconds: u64| {
            let calls = (0..seconds * 10).map(|call| {
                let service = service.clone();
                async move {
                    sleep(Duration::from_millis(100 * call)).await;
                    service.oneshot(()).await.is_ok()
                }
            });
            join_all(calls).await.into_iter().filter(|ok| *ok).count()
        };
        call_for(10).await;
        let circuit = stack.handle().circuit_breaker.shared().clone();
        assert_ne!(circuit.state(), BreakerState::Closed);
        is_down.store(false, Ordering::Relaxed);
        let answered = call_for(20).await;
        assert!(answered >= 150, "{takes:?}: {answered} of 200 answered");
        assert_eq!(circuit.state(), BreakerState::Closed);
    }
}
