//! Calls of several keys that wait for their shares of one total.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::{FutureExt, future::pending};
use tokio::time::{advance, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{Criticality, bulkhead::BulkheadLayer};
use tower_keep::{
    Rejected, RejectedKind,
    algorithm::Aimd,
    bulkhead::{KeyedBulkheadHandle, KeyedBulkheadLayer},
    keyed::KeyFn,
};

const WAIT: Duration = Duration::from_secs(1);

/// A call: its key, and its number.
type Ask = (char, u32);
type Call = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A call, and whether its waker was woken since its last poll.
struct Task(Call, Arc<Woken>);

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    fn poll(&mut self) -> Poll<Result<(), BoxError>> {
        self.1.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.1.clone());
        self.0.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.1.0.load(Ordering::Relaxed)
    }
}

/// Calls that hang, so that each runs until it is dropped.
struct Shares {
    service: BoxCloneSyncService<Ask, (), BoxError>,
    handle: KeyedBulkheadHandle<char>,
    /// In order of arrival at the service.
    arrived: Arc<Mutex<Vec<u32>>>,
    calls: HashMap<u32, Task>,
}

fn shares<F>(layer: &KeyedBulkheadLayer<KeyFn<F, Ask>>) -> Shares
where
    F: Fn(&Ask) -> Option<char> + Send + Sync + 'static,
{
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let seen = arrived.clone();
    let hangs = service_fn(move |(_, call): Ask| {
        seen.lock().unwrap().push(call);
        pending::<Result<(), BoxError>>()
    });
    Shares {
        service: BoxCloneSyncService::new(layer.layer(hangs)),
        handle: layer.handle(),
        arrived,
        calls: HashMap::new(),
    }
}

/// Each key two of four.
fn two_of_four() -> Shares {
    let builder = BulkheadLayer::builder(2).max_wait(WAIT);
    let layer = builder
        .keyed_by(|ask: &Ask| Some(ask.0))
        .within(4)
        .build()
        .unwrap();
    shares(&layer)
}

impl Shares {
    /// Starts calls, each polled once.
    fn start(&mut self, key: char, calls: impl IntoIterator<Item = u32>) {
        for call in calls {
            let future = Box::pin(self.service.clone().oneshot((key, call)));
            let mut task = Task(future, Arc::default());
            assert!(task.poll().is_pending(), "{key}{call}");
            self.calls.insert(call, task);
        }
    }

    /// Ends calls, as their callers do that give up, and polls those that this wakes.
    fn end(&mut self, calls: impl IntoIterator<Item = u32>) {
        for call in calls {
            drop(self.calls.remove(&call).unwrap());
        }
        self.poll();
    }

    /// Polls those that were woken, as a runtime does, and tells what became of those that are
    /// over. A wake-up that is lost leaves its call where it is.
    fn poll(&mut self) -> Vec<(u32, RejectedKind)> {
        let mut over = Vec::new();
        loop {
            let woken = self.calls.iter().filter(|(_, task)| task.is_woken());
            let Some(call) = woken.map(|(call, _)| *call).min() else {
                break;
            };
            if let Poll::Ready(Err(error)) = self.calls.get_mut(&call).unwrap().poll() {
                over.push((call, Rejected::find(&*error).unwrap().kind));
                self.calls.remove(&call);
            }
        }
        over.sort_unstable_by_key(|(call, _)| *call);
        over
    }

    fn arrived(&self) -> Vec<u32> {
        self.arrived.lock().unwrap().clone()
    }

    fn in_flight(&self, key: char) -> usize {
        self.handle.key(&key).unwrap().snapshot().in_flight
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_over_its_share_waits_for_room_in_the_total() {
    let mut shares = two_of_four();
    shares.start('a', 0..6);
    assert_eq!(shares.arrived(), [0, 1, 2, 3]);
    shares.end([1]);
    shares.end([0]);
    assert_eq!(shares.arrived(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(shares.handle.total(), Some((4, 4)));
    shares.end([2, 3, 4, 5]);
    assert_eq!(shares.handle.total(), Some((0, 4)));
}

#[tokio::test(start_paused = true)]
async fn a_key_below_its_share_waits_for_nobody() {
    let mut shares = two_of_four();
    shares.start('a', 0..6);
    shares.start('b', 10..12);
    assert_eq!(shares.arrived(), [0, 1, 2, 3, 10, 11]);
    assert_eq!(shares.handle.total(), Some((6, 4)));
}

#[tokio::test(start_paused = true)]
async fn a_permit_of_a_share_goes_to_its_own_key_first() {
    let mut shares = two_of_four();
    shares.start('a', 0..6);
    shares.start('b', 10..13);
    // The total is over its limit still, so that the first of all waiters gets nothing.
    shares.end([10]);
    assert_eq!(shares.arrived(), [0, 1, 2, 3, 10, 11, 12]);
    assert_eq!((shares.in_flight('a'), shares.in_flight('b')), (4, 2));
    // A place of the greedy key does not make it one that is below its share.
    shares.end([0]);
    shares.end([1]);
    assert_eq!((shares.in_flight('a'), shares.in_flight('b')), (2, 2));
    shares.end([2]);
    assert_eq!(shares.arrived()[7..], [4]);
}

#[tokio::test(start_paused = true)]
async fn calls_of_all_keys_wait_for_the_total_in_order() {
    let layer = BulkheadLayer::builder(1).max_wait(WAIT);
    let mut shares = shares(
        &layer
            .keyed_by(|ask: &Ask| Some(ask.0))
            .within(6)
            .build()
            .unwrap(),
    );
    shares.start('a', 0..6);
    shares.start('b', [10]);
    shares.start('c', [11]);
    for (key, call) in [('a', 20), ('b', 21), ('c', 22), ('b', 23)] {
        shares.start(key, [call]);
    }
    for call in 0..5 {
        shares.end([call]);
    }
    assert_eq!(shares.arrived()[8..], [20, 21, 22]);
    shares.end([20]);
    assert_eq!(shares.arrived()[8..], [20, 21, 22, 23]);
    assert_eq!(shares.handle.total(), Some((6, 6)));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_overtakes_no_waiter_for_the_total() {
    let layer = BulkheadLayer::builder(1).max_wait(WAIT);
    let mut shares = shares(
        &layer
            .keyed_by(|ask: &Ask| Some(ask.0))
            .within(2)
            .build()
            .unwrap(),
    );
    shares.start('a', [0, 1, 2]);
    shares.start('b', [3]);
    // Room for one more than the shares, granted to the waiter of `a` that has not polled since.
    drop(shares.calls.remove(&0));
    drop(shares.calls.remove(&1));
    shares.start('b', [4]);
    shares.start('a', [5]);
    assert_eq!(shares.arrived(), [0, 1, 3]);
    shares.poll();
    assert_eq!(shares.arrived(), [0, 1, 3, 2]);
    assert_eq!(shares.handle.total(), Some((2, 2)));
}

#[tokio::test(start_paused = true)]
async fn what_a_waiter_was_given_twice_goes_on_to_the_next() {
    let layer = BulkheadLayer::builder(1).max_wait(WAIT);
    let mut shares = shares(
        &layer
            .keyed_by(|ask: &Ask| Some(ask.0))
            .within(2)
            .build()
            .unwrap(),
    );
    shares.start('a', [0]);
    shares.start('b', [1]);
    shares.start('a', [2]);
    shares.start('c', [3, 4]);
    // The share of `a` comes free, and then room in the total: both are given to its waiter.
    drop(shares.calls.remove(&0));
    drop(shares.calls.remove(&1));
    drop(shares.calls.remove(&3));
    assert_eq!(shares.arrived(), [0, 1, 3]);
    shares.poll();
    let mut last = shares.arrived()[3..].to_vec();
    last.sort_unstable();
    assert_eq!(last, [2, 4]);
    assert_eq!(shares.handle.total(), Some((2, 2)));
    shares.end([2, 4]);
    assert_eq!(shares.handle.total(), Some((0, 2)));
}

#[tokio::test(start_paused = true)]
async fn a_share_given_to_a_call_that_leaves_wakes_the_next() {
    let layer = BulkheadLayer::builder(1).max_wait(WAIT);
    let mut shares = shares(
        &layer
            .keyed_by(|ask: &Ask| Some(ask.0))
            .within(2)
            .build()
            .unwrap(),
    );
    for (number, key) in ['a', 'b', 'c', 'c', 'a'].into_iter().enumerate() {
        shares.start(key, [u32::try_from(number).unwrap()]);
    }
    // The waiter of `a` is given the place of its key, and leaves before it polls: there is room in
    // the total then, for which the one of `c` is the first.
    for call in [0, 1, 4] {
        drop(shares.calls.remove(&call));
    }
    shares.poll();
    assert_eq!(shares.arrived(), [0, 1, 2, 3]);
    assert_eq!(shares.handle.total(), Some((2, 2)));
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_made_later_wait_as_long() {
    let mut shares = two_of_four();
    shares.start('a', 0..4);
    advance(10 * WAIT).await;
    shares.start('b', 10..12);
    shares.start('b', [12]);
    shares.start('a', [4]);
    advance(WAIT - Duration::from_millis(2)).await;
    assert_eq!(shares.poll(), []);
    advance(Duration::from_millis(4)).await;
    let full = RejectedKind::BulkheadFull;
    assert_eq!(shares.poll(), [(4, full), (12, full)]);
    assert_eq!(shares.handle.total(), Some((6, 4)));
    shares.end([0, 1, 2, 3, 10, 11]);
    assert_eq!(shares.handle.total(), Some((0, 4)));
}

#[tokio::test(start_paused = true)]
async fn a_raised_total_and_a_raised_share_let_waiters_in() {
    let mut shares = two_of_four();
    shares.start('a', 0..7);
    shares.handle.set_total(5).unwrap();
    shares.poll();
    assert_eq!(shares.arrived().len(), 5);
    shares.handle.key(&'a').unwrap().set_limit(6).unwrap();
    shares.poll();
    assert_eq!(shares.arrived().len(), 6);
    assert_eq!(shares.handle.total(), Some((6, 5)));
}

#[tokio::test(start_paused = true)]
async fn so_many_wait_of_a_key_and_no_more() {
    let builder = BulkheadLayer::builder(1).max_wait(WAIT);
    let layer = builder
        .max_waiting(2)
        .keyed_by(|ask: &Ask| Some(ask.0))
        .within(1);
    let mut shares = shares(&layer.build().unwrap());
    shares.start('a', 0..3);
    let rejected = shares.service.clone().oneshot(('a', 3)).now_or_never();
    assert!(rejected.unwrap().is_err());
    shares.start('b', 10..13);
    // A rejected call has left no place in either queue behind.
    shares.end([1, 2, 11, 12]);
    for key in ['a', 'b'] {
        assert_eq!(shares.handle.key(&key).unwrap().snapshot().waiting, 0);
    }
    assert_eq!(shares.handle.total(), Some((2, 1)));
}

#[tokio::test(start_paused = true)]
async fn the_queue_of_the_total_is_bounded_for_all_keys() {
    let builder = BulkheadLayer::builder(1).max_wait(WAIT);
    let layer = builder
        .max_waiting(1)
        .keyed_by(|ask: &Ask| Some(ask.0))
        .within(1);
    let mut shares = shares(&layer.build().unwrap());
    for key in 'a'..='p' {
        let call = u32::from(key);
        shares.start(key, [call, 1000 + call]);
    }
    shares.start('q', [0]);
    let rejected = shares.service.clone().oneshot(('q', 1)).now_or_never();
    assert!(rejected.unwrap().is_err());
    assert_eq!(shares.handle.key(&'q').unwrap().snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn the_least_critical_wait_in_a_part_of_the_queue() {
    let layer = BulkheadLayer::builder(1)
        .max_wait(WAIT)
        .max_waiting(4)
        .keyed_by(|_: &Criticality| Some('a'))
        .within(1)
        .criticality(|class: &Criticality| *class)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(|_| pending::<Result<(), BoxError>>()));
    let mut calls = Vec::new();
    for (class, waits) in [(Criticality::Sheddable, 2), (Criticality::CriticalPlus, 2)] {
        let start = || Box::pin(service.clone().oneshot(class));
        if calls.is_empty() {
            calls.push(start());
            assert!(calls[0].as_mut().now_or_never().is_none());
        }
        for _ in 0..waits {
            calls.push(start());
            assert!(calls.last_mut().unwrap().now_or_never().is_none());
        }
        assert!(start().now_or_never().unwrap().is_err(), "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn shares_that_learn_stay_within_their_total() {
    let layer = BulkheadLayer::builder(40)
        .adaptive(Aimd::default())
        .max_wait(WAIT)
        .keyed_by(|key: &char| Some(*key))
        .within(50)
        .build()
        .unwrap();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak) = (running.clone(), most.clone());
    let service = BoxCloneSyncService::new(layer.layer(service_fn(move |_: char| {
        let (count, peak) = (count.clone(), peak.clone());
        async move {
            peak.fetch_max(count.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
            count.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, BoxError>(())
        }
    })));
    let callers = ('a'..='c').flat_map(|key| vec![key; 40]).map(|key| {
        let service = service.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                let _ = service.clone().oneshot(key).await;
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // Three shares of at most 40, which is what there are callers for.
    let handle = layer.handle();
    assert!(handle.key(&'a').unwrap().snapshot().limit > 20);
    assert!((51..=120).contains(&most.load(Ordering::Relaxed)));
    assert_eq!(handle.total(), Some((0, 50)));
}

#[tokio::test(start_paused = true)]
async fn a_standing_queue_of_all_keys_serves_the_newest() {
    let builder = BulkheadLayer::builder(1).max_wait(WAIT);
    let layer = builder.codel(WAIT / 100, WAIT / 10);
    let layer = layer
        .keyed_by(|ask: &Ask| Some(ask.0))
        .within(3)
        .build()
        .unwrap();
    let mut shares = shares(&layer);
    shares.start('a', [0, 1, 2]);
    shares.start('b', [10, 11]);
    for call in 20..40 {
        advance(WAIT / 50).await;
        shares.start('a', [call]);
    }
    drop(shares.calls.remove(&1));
    drop(shares.calls.remove(&2));
    let dropped: Vec<_> = shares.poll().into_iter().map(|(call, _)| call).collect();
    let expected: Vec<_> = [11].into_iter().chain(20..38).collect();
    assert_eq!(dropped, expected);
    assert_eq!(shares.arrived(), [0, 1, 2, 10, 39]);
    let of = |key| shares.handle.key(&key).unwrap().snapshot();
    assert_eq!((of('a').waiting, of('b').waiting), (1, 0));
}

#[test]
fn random_cancels_lose_no_place_of_a_share_or_a_total() {
    let calls = if cfg!(debug_assertions) {
        60_000
    } else {
        1_000_000
    };
    let runtime = paused();
    let builder = BulkheadLayer::builder(2).max_wait(Duration::MAX);
    let layer = builder
        .max_waiting(32)
        .keyed_by(|ask: &Ask| Some(ask.0))
        .within(5);
    let layer = layer.build().unwrap();
    let running = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (layer, running, runtime) = (&layer, running.clone(), &runtime);
            scope.spawn(move || {
                let _entered = runtime.enter();
                churn(layer, &running, thread + 1, calls / 4);
            });
        }
    });
    let handle = layer.handle();
    for (key, key_handle) in handle.keys() {
        let now = key_handle.snapshot();
        assert_eq!((now.in_flight, now.waiting), (0, 0), "{key}");
        assert!(now.waited > u64::from(calls) / 100);
    }
    assert_eq!(handle.total().unwrap().0, 0);
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

/// Makes calls of three keys, and drops them at any point.
fn churn<F>(
    layer: &KeyedBulkheadLayer<KeyFn<F, Ask>>,
    running: &Arc<AtomicUsize>,
    seed: u64,
    calls: u32,
) where
    F: Fn(&Ask) -> Option<char> + Send + Sync + 'static,
{
    let running = running.clone();
    let mut service = layer.layer(service_fn(move |_: Ask| {
        let running = Running::new(running.clone());
        async move {
            let _running = running;
            pending::<Result<(), BoxError>>().await
        }
    }));
    let (mut random, mut held) = (Random(seed), Vec::new());
    let mut context = Context::from_waker(Waker::noop());
    for call in 0..calls {
        let _ = service.poll_ready(&mut context);
        let key = ['a', 'b', 'c'][random.below(3)];
        let mut future = Box::pin(service.call((key, call)));
        if future.as_mut().poll(&mut context).is_pending() {
            held.push(future);
        }
        if random.below(64) == 0 {
            layer.handle().set_total(2 + random.below(4)).unwrap();
        }
        if held.len() > random.below(24) {
            let mut cancelled = held.swap_remove(random.below(held.len()));
            if random.below(2) == 0 {
                let polled = cancelled.as_mut().poll(&mut context);
                assert!(matches!(polled, Poll::Pending | Poll::Ready(Err(_))));
            }
        }
    }
}

/// Counts calls that run: at most the highest total and the shares of three keys.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: Arc<AtomicUsize>) -> Self {
        assert!(count.fetch_add(1, Ordering::SeqCst) < 5 + 3 * 2);
        Self(count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}
