//! Readiness of a layer whose circuits are open.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::FutureExt;
use tower::util::BoxCloneService;

use super::*;
use crate::circuit_breaker::CircuitBreakerHandle;

/// A service that is never ready.
#[derive(Clone)]
struct Hangs;

impl Service<u32> for Hangs {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, _: u32) -> Self::Future {
        unreachable!("it was never ready")
    }
}

/// A service that is ready for one call, once it is allowed to be.
#[derive(Debug, Default)]
struct Strict {
    go: Arc<AtomicBool>,
    is_ready: bool,
}

impl Strict {
    fn new(go: &Arc<AtomicBool>) -> Self {
        Self {
            go: go.clone(),
            is_ready: false,
        }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self::new(&self.go)
    }
}

impl Service<u32> for Strict {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.is_ready = self.go.load(Ordering::Relaxed);
        if self.is_ready {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn call(&mut self, call: u32) -> Self::Future {
        assert!(self.is_ready, "{call}");
        self.is_ready = false;
        std::future::ready(Ok(call))
    }
}

fn circuit(backpressure: bool) -> CircuitGate {
    let builder = CircuitBreakerLayer::builder()
        .min_calls(1)
        .open_for(SECOND)
        .jitter(false);
    let builder = if backpressure {
        builder.backpressure()
    } else {
        builder
    };
    builder.gate().unwrap()
}

fn is_ready<S: Service<u32>>(service: &mut S) -> bool {
    poll_fn(|cx| service.poll_ready(cx))
        .now_or_never()
        .is_some()
}

#[tokio::test(start_paused = true)]
async fn beside_backpressure_an_open_circuit_fails_fast() {
    for open_first in [true, false] {
        let (plain, held) = (circuit(false), circuit(true));
        let handle = plain.handle();
        let mut service = if open_first {
            let layer = GateLayer::new((plain, held)).protocol(Plain::new());
            BoxCloneService::new(layer.layer(Hangs))
        } else {
            let layer = GateLayer::new((held, plain)).protocol(Plain::new());
            BoxCloneService::new(layer.layer(Hangs))
        };
        handle.force_open();
        assert!(is_ready(&mut service));
        let error = service.call(1).await.unwrap_err();
        assert_eq!(kind(&error), RejectedKind::CircuitOpen);
    }
}

/// Opens the circuits whose bits are set, and closes the others.
fn open(circuits: &[CircuitBreakerHandle; 3], which: u32) {
    for (number, circuit) in circuits.iter().enumerate() {
        if which & (1 << number) > 0 {
            circuit.force_open();
        } else {
            circuit.close();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn gates_are_as_ready_as_their_layers_are() {
    for (backpressure, hangs) in (0..8).flat_map(|bits| [(bits, true), (bits, false)]) {
        let circuits = [0, 1, 2].map(|number| circuit(backpressure & (1 << number) > 0));
        let handles = circuits.each_ref().map(CircuitGate::handle);
        let inner = || {
            if hangs {
                BoxCloneService::new(Hangs)
            } else {
                BoxCloneService::new(service_fn(echo))
            }
        };
        let [first, second, third] = circuits;
        let alone = |gate: &CircuitGate| GateLayer::new(gate.clone()).protocol(Plain::new());
        let mut layers = alone(&first).layer(alone(&second).layer(alone(&third).layer(inner())));
        let gates = GateLayer::new((first, second, third)).protocol(Plain::new());
        let mut gates = gates.layer(inner());
        // Every state follows every other one, so that a wait lasts across changes.
        for (before, after) in (0..8).flat_map(|before| (0..8).map(move |after| (before, after))) {
            for which in [before, after] {
                open(&handles, which);
                let ready = is_ready(&mut gates);
                assert_eq!(
                    ready,
                    is_ready(&mut layers),
                    "{backpressure} {which} {hangs}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_held_back_fails_fast_when_another_opens() {
    let (plain, held) = (circuit(false), circuit(true));
    let [opens, holds] = [plain.handle(), held.handle()];
    let mut service = GateLayer::new((plain, held))
        .protocol(Plain::new())
        .layer(Hangs);
    holds.force_open();
    assert!(!is_ready(&mut service));
    let waits = tokio::spawn(async move { service.ready().await.map(drop) });
    tokio::task::yield_now().await;
    opens.force_open();
    tokio::task::yield_now().await;
    assert!(waits.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_wait_beside_it_lets_no_circuit_half_open() {
    let (plain, held) = (circuit(false), circuit(true));
    let [opens, holds] = [plain.handle(), held.handle()];
    let alone = GateLayer::new(plain.clone()).protocol(Plain::new());
    let fails = service_fn(async |_: u32| Err::<u32, BoxError>("down".into()));
    alone.layer(fails).oneshot(1).await.unwrap_err();
    holds.force_open();
    let gates = GateLayer::new((held, plain)).protocol(Plain::new());
    let mut service = gates.layer(Hangs);
    let waits = tokio::spawn(async move { service.ready().await.map(drop) });
    tokio::time::sleep(2 * SECOND).await;
    assert!(!waits.is_finished());
    // Only a call notices that the open time is over.
    assert_eq!(opens.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_uses_its_readiness_up() {
    let go = Arc::new(AtomicBool::new(true));
    let gates = (circuit(false), BulkheadLayer::builder(9).gate().unwrap());
    let layer = GateLayer::new(gates).protocol(Plain::new());
    let mut service = layer.layer(Strict::new(&go));
    service.ready().await.unwrap();
    // A further call without `poll_ready` waits for a readiness of its own.
    let calls = [1, 2, 3].map(|call| service.call(call));
    for (call, answer) in (1..).zip(calls) {
        assert_eq!(answer.await.unwrap(), call);
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_before_a_call_is_sent_rejects() {
    for circuit_first in [true, false] {
        let (circuit, limit) = (circuit(false), one_a_second());
        let (handle, units) = (circuit.handle(), limit.handle());
        let go = Arc::new(AtomicBool::new(true));
        let inner = Strict::new(&go);
        let mut service = if circuit_first {
            let layer = GateLayer::new((circuit, limit)).protocol(Plain::new());
            BoxCloneService::new(layer.layer(inner))
        } else {
            let layer = GateLayer::new((limit, circuit)).protocol(Plain::new());
            BoxCloneService::new(layer.layer(inner))
        };
        service.ready().await.unwrap();
        service.call(0).await.unwrap();
        // The service is polled, but the call must wait for its unit and for a service of its own.
        service.ready().await.unwrap();
        go.store(false, Ordering::Relaxed);
        let mut waits = service.call(1);
        assert!((&mut waits).now_or_never().is_none());
        advance(SECOND).await;
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(units.snapshot().waiting, 0, "its turn has come");
        handle.force_open();
        go.store(true, Ordering::Relaxed);
        let error = (&mut waits).now_or_never().expect("it is over");
        assert_eq!(kind(&error.unwrap_err()), RejectedKind::CircuitOpen);
        // The unit that it waited for is free for another call.
        assert_eq!(units.snapshot().available, 1, "{circuit_first}");
    }
}
