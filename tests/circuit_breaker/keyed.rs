//! Circuits by key: separate, bounded, and never evicted while their state matters.

use std::{io, thread, time::Duration};

use futures::FutureExt;
use tokio::time::advance;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected,
    circuit_breaker::{
        BreakerState, CircuitBreakerBuilder, CircuitBreakerLayer, KeyedCircuitBreakerHandle,
    },
    keyed::{ByKey, KeyFn},
    protocol::{Chosen, Plain},
};

type Parity = fn(&u32) -> Option<u32>;

const WINDOW: Duration = Duration::from_secs(10);

/// Returns a builder by number as key. Odd keys fail.
fn builder() -> CircuitBreakerBuilder<ByKey<KeyFn<Parity, u32>>, Chosen<Plain>> {
    CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(2)
        .keyed_by((|key: &u32| Some(*key)) as Parity)
}

fn peer() -> impl Service<u32, Response = (), Error = io::Error, Future: Send> + Clone + Send + Sync
{
    service_fn(async |key: u32| {
        if key % 2 == 0 {
            Ok(())
        } else {
            Err(io::Error::other("down"))
        }
    })
}

async fn call(
    service: &mut impl Service<u32, Response = (), Error = BoxError>,
    key: u32,
) -> Result<(), BoxError> {
    service.ready().await?.call(key).await
}

fn is_rejected(result: &Result<(), BoxError>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| Rejected::find(&**error).is_some())
}

fn keys(handle: &KeyedCircuitBreakerHandle<u32>) -> Vec<u32> {
    let mut keys: Vec<_> = handle.keys().into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_does_not_open_the_circuits_of_others() {
    let layer = builder().build().unwrap();
    let (mut one, mut other) = (layer.layer(peer()), layer.layer(peer()));
    for _ in 0..2 {
        let _ = call(&mut one, 1).await;
    }
    assert!(is_rejected(&call(&mut other, 1).await));
    call(&mut other, 2).await.unwrap();
    assert_eq!(layer.handle().key(&1).unwrap().state(), BreakerState::Open);
    assert_eq!(keys(&layer.handle()), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_keys_share_the_overflow() {
    let layer = builder().max_keys(2).build().unwrap();
    let mut service = layer.layer(peer());
    for key in [1, 2, 3, 5] {
        let _ = call(&mut service, key).await;
    }
    assert_eq!(keys(&layer.handle()), [1, 2]);
    assert_eq!(layer.handle().shared().state(), BreakerState::Open);
    assert!(is_rejected(&call(&mut service, 4).await));
    call(&mut service, 2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_key_evicts_only_an_idle_one() {
    let layer = builder().max_keys(2).build().unwrap();
    let mut service = layer.layer(peer());
    for key in [1, 1, 2] {
        let _ = call(&mut service, key).await;
    }
    // Key 1 is open, and key 2 has a call in its window.
    call(&mut service, 4).await.unwrap();
    assert_eq!(keys(&layer.handle()), [1, 2]);
    advance(WINDOW).await;
    call(&mut service, 4).await.unwrap();
    assert_eq!(keys(&layer.handle()), [1, 4]);
    assert!(
        layer.handle().key(&2).is_none(),
        "the map holds what the list does"
    );
    assert!(is_rejected(&call(&mut service, 1).await));
}

#[tokio::test(start_paused = true)]
async fn a_key_with_a_call_in_flight_keeps_its_circuit() {
    let layer = builder().max_keys(1).build().unwrap();
    let mut service = layer.layer(peer());
    let in_flight = service.ready().await.unwrap().call(1);
    advance(2 * WINDOW).await;
    call(&mut service, 2).await.unwrap();
    assert_eq!(keys(&layer.handle()), [1]);
    drop(in_flight);
    // Dropped without an answer, it counts for a window.
    advance(WINDOW).await;
    call(&mut service, 2).await.unwrap();
    assert_eq!(keys(&layer.handle()), [2]);
}

#[tokio::test(start_paused = true)]
async fn an_update_reaches_all_keys_and_those_to_come() {
    let layer = builder().build().unwrap();
    let (handle, mut service) = (layer.handle(), layer.layer(peer()));
    call(&mut service, 2).await.unwrap();
    let mut config = handle.shared().config();
    config.min_calls = 1;
    handle.update(config).unwrap();
    let _ = call(&mut service, 1).await;
    for circuit in [handle.key(&1), handle.key(&2), Some(handle.shared())] {
        assert_eq!(circuit.unwrap().config().min_calls, 1);
    }
    assert_eq!(handle.key(&1).unwrap().state(), BreakerState::Open);
    assert!(handle.key(&3).is_none());
}

#[test]
fn threads_never_keep_more_keys_than_the_bound() {
    let layer = builder().max_keys(16).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    thread::scope(|scope| {
        for offset in 0..4 {
            let mut service = layer.layer(peer());
            scope.spawn(move || {
                for key in 0..2000 {
                    let _ = call(&mut service, key * 4 + offset)
                        .now_or_never()
                        .expect("a peer that answers at once");
                }
            });
        }
    });
    assert_eq!(layer.handle().keys().len(), 16);
}

#[test]
fn builds_that_cannot_work_say_so() {
    assert_eq!(builder().max_keys(0).build().unwrap_err().field, "max_keys");
    let breaker = || CircuitBreakerLayer::builder().protocol(Plain::new());
    let backpressure = breaker().backpressure().keyed_by(|key: &u32| Some(*key));
    assert_eq!(backpressure.build().unwrap_err().field, "backpressure");
    let probes = breaker().probes(0).keyed_by(|key: &u32| Some(*key));
    assert_eq!(probes.build().unwrap_err().field, "probes");
}

#[test]
fn a_critical_circuit_without_a_name_is_an_error() {
    let critical = || {
        let breaker = CircuitBreakerLayer::builder().protocol(Plain::new());
        breaker.critical(true)
    };
    let single = critical().build().unwrap_err();
    let keyed = critical().keyed_by(|key: &u32| Some(*key));
    let text = "circuit_breaker: `critical` is true: add a name, because health only knows circuits \
                that have one";
    assert_eq!(single.to_string(), text);
    assert_eq!(keyed.build().unwrap_err().to_string(), text);
    assert!(critical().name("payments").build().is_ok());
}
