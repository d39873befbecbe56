//! The log of transitions: all of them, in order, whatever user code does.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Wake, Waker},
    thread,
    time::Duration,
};

use tower_keep::{
    circuit_breaker::{
        BreakerState, Cause, CircuitBreakerHandle, CircuitBreakerLayer, SlowCalls, Transitions,
        Window,
    },
    protocol::Plain,
};

fn circuit() -> CircuitBreakerHandle {
    let builder = CircuitBreakerLayer::builder().protocol(Plain::new());
    builder.build().unwrap().handle()
}

/// Restarts the window of a circuit, or would if it counted.
fn restart(handle: &CircuitBreakerHandle, seconds: u64) {
    let mut config = handle.config();
    config.window = Window::Time(Duration::from_secs(seconds));
    assert!(handle.update(config).unwrap().restarts());
}

fn unread(transitions: &mut Transitions) -> Vec<(BreakerState, Cause, u32)> {
    std::iter::from_fn(|| transitions.try_next())
        .map(|told| (told.to, told.cause, told.generation))
        .collect()
}

#[test]
fn an_update_that_restarts_is_told_in_its_turn() {
    use BreakerState::{Closed, ForcedOpen, MetricsOnly};
    let handle = circuit();
    let mut transitions = handle.transitions();
    restart(&handle, 20);
    handle.force_open();
    // There is no window to restart.
    restart(&handle, 30);
    handle.metrics_only();
    restart(&handle, 40);
    let mut config = handle.config();
    config.slow_calls = Some(SlowCalls {
        after: Duration::from_secs(1),
        rate: 0.5,
    });
    handle.update(config).unwrap();
    handle.close();
    let (hand, updated) = (Cause::ByHand, Cause::Updated);
    let expected = [
        (Closed, updated, 1),
        (ForcedOpen, hand, 2),
        (MetricsOnly, hand, 3),
        (MetricsOnly, updated, 4),
        (MetricsOnly, updated, 5),
        (Closed, hand, 6),
    ];
    assert_eq!(unread(&mut transitions), expected);
    let now = handle.snapshot();
    assert_eq!(now.last_transition.unwrap().generation, now.generation);
}

#[test]
fn an_update_of_all_circuits_stops_no_log() {
    let layer = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .keyed_by(|key: &u32| Some(*key))
        .build()
        .unwrap();
    let circuit = layer.handle().make(&1).unwrap();
    let mut transitions = circuit.transitions();
    let mut config = circuit.config();
    config.window = Window::Time(Duration::from_secs(20));
    layer.handle().update(config).unwrap();
    circuit.force_open();
    let last = circuit.snapshot().last_transition.unwrap();
    assert_eq!((last.to, last.generation), (BreakerState::ForcedOpen, 2));
    assert_eq!(unread(&mut transitions).len(), 2);
}

#[test]
fn a_long_log_goes_on_after_an_update() {
    let handle = circuit();
    restart(&handle, 20);
    let mut transitions = handle.transitions();
    for round in 1..=20_000 {
        handle.reset();
        let told = transitions.try_next().unwrap();
        assert_eq!(told.generation, round + 1);
    }
    assert_eq!(transitions.try_next(), None);
}

/// A waker that runs a closure.
struct Does<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Does<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn wait(transitions: &mut Transitions, wake: impl Fn() + Send + Sync + 'static) {
    let waker = Waker::from(Arc::new(Does(wake)));
    let next = pin!(transitions.next());
    assert!(next.poll(&mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn a_subscriber_that_panics_stops_no_other() {
    let handle = circuit();
    let mut readers = [(); 3].map(|()| handle.transitions());
    let (woken, wakes): (Sender<usize>, Receiver<usize>) = channel();
    for _ in 0..3 {
        for (number, reader) in readers.iter_mut().enumerate() {
            let woken = woken.clone();
            wait(reader, move || {
                woken.send(number).unwrap();
                assert_ne!(number, 1, "on purpose");
            });
        }
        assert!(catch_unwind(AssertUnwindSafe(|| handle.reset())).is_err());
        let mut all: Vec<_> = wakes.try_iter().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        for reader in &mut readers {
            assert_eq!(unread(reader).len(), 1);
        }
    }
}

#[test]
fn a_subscriber_that_hangs_holds_no_transition_up() {
    let handle = circuit();
    let (mut hanging, mut other) = (handle.transitions(), handle.transitions());
    let (entered, enters) = channel();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    wait(&mut hanging, move || {
        entered.send(()).unwrap();
        // Until the test has seen all that it must.
        let _ = released.lock().unwrap().recv();
    });
    thread::scope(|scope| {
        scope.spawn(|| handle.force_open());
        enters.recv().unwrap();
        for _ in 0..1000 {
            handle.reset();
        }
        assert_eq!(handle.snapshot().last_transition.unwrap().generation, 1001);
        let generations: Vec<_> = unread(&mut other).iter().map(|told| told.2).collect();
        assert_eq!(generations, (938..=1001).collect::<Vec<_>>());
        drop(release);
    });
}

/// Looks at the circuit when it is dropped.
struct Nosy(CircuitBreakerHandle);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Nosy {
    fn drop(&mut self) {
        let _ = self.0.transitions();
    }
}

#[test]
fn a_waker_that_looks_at_its_circuit_may_be_dropped() {
    let (done, is_done) = channel();
    thread::spawn(move || {
        let handle = circuit();
        let mut transitions = handle.transitions();
        let nosy = || Waker::from(Arc::new(Nosy(handle.clone())));
        // Replaced by another one, and left behind.
        for waker in [nosy(), Waker::noop().clone(), nosy()] {
            let mut next = pin!(transitions.next());
            assert!(
                next.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        drop(transitions);
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}
