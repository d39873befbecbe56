//! Places that are taken back from calls that hold them too long.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::pending};
use proptest::prelude::*;
use tokio::time::{advance, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{
    Criticality, Rejected, RejectedKind, algorithm::Vegas, bulkhead::BulkheadLayer,
    observe::Registry,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

type Call = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type Boxed = BoxCloneSyncService<char, (), BoxError>;

/// A call that is sent and hangs until it is dropped, or why it was rejected.
fn start(service: &Boxed, key: char) -> Result<Call, RejectedKind> {
    let mut call: Call = Box::pin(service.clone().oneshot(key));
    match call.as_mut().now_or_never() {
        None => Ok(call),
        Some(result) => Err(Rejected::find(&*result.unwrap_err()).unwrap().kind),
    }
}

fn hangs<L>(layer: &L) -> Boxed
where
    L: Layer<Hung>,
    L::Service: Service<char, Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync,
    L::Service: 'static,
{
    BoxCloneSyncService::new(layer.layer(service_fn(|_| Box::pin(pending()))))
}

type Hung = tower::util::ServiceFn<fn(char) -> Call>;

const FULL: Option<RejectedKind> = Some(RejectedKind::BulkheadFull);

#[tokio::test(start_paused = true)]
async fn an_overdue_place_is_free_for_the_next_call() {
    let builder = BulkheadLayer::builder(2).reclaim_after(MINUTE);
    let layer = builder.build().unwrap();
    let (service, handle) = (hangs(&layer), layer.handle());
    let unread = start(&service, 'a').unwrap();
    advance(SECOND).await;
    let other = start(&service, 'a').unwrap();
    advance(MINUTE - SECOND - Duration::from_nanos(1)).await;
    assert_eq!(start(&service, 'a').err(), FULL);
    advance(Duration::from_nanos(1)).await;
    let next = start(&service, 'a').unwrap();
    // The other one is not overdue for another second.
    assert_eq!(start(&service, 'a').err(), FULL);
    let now = handle.snapshot();
    assert_eq!((now.in_flight, now.totals.reclaimed), (2, 1));
    // It ends late, and gives nothing back that is not its own.
    drop(unread);
    let now = handle.snapshot();
    assert_eq!((now.in_flight, now.totals.cancelled), (2, 1));
    assert_eq!(start(&service, 'a').err(), FULL);
    drop((other, next));
    let now = handle.snapshot();
    assert_eq!((now.in_flight, now.totals.cancelled), (0, 3));
}

/// Places that nobody needs stay with their calls.
#[tokio::test(start_paused = true)]
async fn nothing_is_taken_back_while_there_is_room() {
    let builder = BulkheadLayer::builder(3).reclaim_after(SECOND);
    let layer = builder.build().unwrap();
    let service = hangs(&layer);
    let _first = start(&service, 'a').unwrap();
    advance(MINUTE).await;
    let _second = start(&service, 'a').unwrap();
    let now = layer.handle().snapshot();
    assert_eq!((now.in_flight, now.totals.reclaimed), (2, 0));
}

/// No other call comes meanwhile: the waiter itself looks, when the place is overdue.
#[tokio::test(start_paused = true)]
async fn a_waiter_has_the_place_as_soon_as_it_is_overdue() {
    let builder = BulkheadLayer::builder(1).reclaim_after(10 * SECOND);
    let layer = builder.max_wait(MINUTE).build().unwrap();
    let _unread = start(&hangs(&layer), 'a').unwrap();
    let quick = layer.layer(service_fn(async |_| Ok::<_, BoxError>(())));
    advance(SECOND).await;
    let waiters: Vec<_> = (0..5)
        .map(|_| tokio::spawn(quick.clone().oneshot('a')))
        .collect();
    sleep(8 * SECOND).await;
    assert_eq!(layer.handle().snapshot().waiting, 5);
    sleep(SECOND + Duration::from_millis(5)).await;
    assert_eq!(layer.handle().snapshot().waiting, 0);
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(layer.handle().snapshot().totals.reclaimed, 1);
}

/// One whose time is over sooner than a place is overdue is rejected then, not before.
#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_sooner_is_none_the_shorter() {
    let builder = BulkheadLayer::builder(1).reclaim_after(MINUTE);
    let layer = builder.max_wait(10 * SECOND).build().unwrap();
    let unread = start(&hangs(&layer), 'a').unwrap();
    let quick = layer.layer(service_fn(async |_| Ok::<_, BoxError>(())));
    let (lucky, late) = (quick.clone().oneshot('a'), quick.oneshot('a'));
    let (lucky, late) = (tokio::spawn(lucky), tokio::spawn(late));
    sleep(9 * SECOND).await;
    assert_eq!(layer.handle().snapshot().waiting, 2);
    drop(unread);
    assert!(lucky.await.unwrap().is_ok() && late.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_key_takes_its_own_places_back() {
    let builder = BulkheadLayer::builder(1).reclaim_after(SECOND);
    let layer = builder.keyed_by(|key: &char| Some(*key)).build().unwrap();
    let service = hangs(&layer);
    let _unread = [start(&service, 'a').unwrap(), start(&service, 'b').unwrap()];
    advance(SECOND).await;
    let _next = start(&service, 'a').unwrap();
    let reclaimed = |key| {
        let of_key = layer.handle().key(&key).unwrap().snapshot();
        (of_key.in_flight, of_key.totals.reclaimed)
    };
    assert_eq!((reclaimed('a'), reclaimed('b')), ((1, 1), (1, 0)));
    assert_eq!(layer.handle().totals().reclaimed, 1);
}

/// The total is taken up by another key, which may well be below its own share.
#[tokio::test(start_paused = true)]
async fn a_total_takes_back_the_places_of_any_key() {
    let builder = BulkheadLayer::builder(1).reclaim_after(SECOND);
    let layer = builder
        .keyed_by(|key: &char| Some(*key))
        .within(3)
        .build()
        .unwrap();
    let (service, handle) = (hangs(&layer), layer.handle());
    let unread: Vec<_> = std::iter::repeat_n('a', 3)
        .map(|key| start(&service, key).unwrap())
        .collect();
    let _share = start(&service, 'b').unwrap();
    assert_eq!(start(&service, 'b').err(), FULL);
    assert_eq!(handle.total(), Some((4, 3)));
    advance(SECOND).await;
    let _more = [start(&service, 'b').unwrap(), start(&service, 'b').unwrap()];
    assert_eq!(handle.total(), Some((2, 3)));
    assert_eq!(handle.totals().reclaimed, 4);
    drop(unread);
    assert_eq!(handle.total(), Some((2, 3)));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_for_a_total_has_the_place_of_another_key() {
    let builder = BulkheadLayer::builder(1).reclaim_after(10 * SECOND);
    let builder = builder.max_wait(MINUTE);
    let layer = builder
        .keyed_by(|key: &char| Some(*key))
        .within(2)
        .build()
        .unwrap();
    let service = hangs(&layer);
    let _unread = [start(&service, 'a').unwrap(), start(&service, 'a').unwrap()];
    advance(SECOND).await;
    let quick = layer.layer(service_fn(async |_| Ok::<_, BoxError>(())));
    let _own = start(&service, 'b').unwrap();
    let waits = tokio::spawn(quick.oneshot('b'));
    sleep(8 * SECOND).await;
    assert!(!waits.is_finished());
    sleep(SECOND + Duration::from_millis(5)).await;
    assert!(waits.is_finished());
    waits.await.unwrap().unwrap();
    assert_eq!(layer.handle().totals().reclaimed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_class_enters_where_a_place_was_taken_back() {
    let builder = BulkheadLayer::builder(2).reclaim_after(SECOND);
    let layer = builder
        .criticality(|_: &char| Criticality::Sheddable)
        .build()
        .unwrap();
    let service = hangs(&layer);
    let _unread = start(&service, 'a').unwrap();
    assert_eq!(start(&service, 'a').err(), FULL);
    advance(SECOND).await;
    assert!(start(&service, 'a').is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_learned_limit_learns_nothing_from_it() {
    let learned = |reclaims: bool| async move {
        let builder = BulkheadLayer::builder(10).adaptive(Vegas::default());
        let builder = match reclaims {
            true => builder.reclaim_after(MINUTE),
            false => builder,
        };
        let layer = builder.build().unwrap();
        let answers = layer.layer(service_fn(async |_| {
            sleep(Duration::from_millis(20)).await;
            Ok::<_, BoxError>(())
        }));
        for _ in 0..40 {
            let calls = (0..5).map(|_| answers.clone().oneshot('a'));
            futures::future::join_all(calls).await;
        }
        (layer.handle().snapshot().rtt, layer)
    };
    let ((with, layer), (without, _)) = (learned(true).await, learned(false).await);
    assert!(with.is_some() && with == without, "{with:?} {without:?}");
    let (service, limit) = (hangs(&layer), layer.handle().snapshot().limit);
    let unread: Vec<_> = std::iter::from_fn(|| start(&service, 'a').ok()).collect();
    assert_eq!(unread.len(), limit);
    advance(MINUTE).await;
    let _next = start(&service, 'a').unwrap();
    drop(unread);
    let now = layer.handle().snapshot();
    assert_eq!((now.in_flight, now.limit, now.rtt), (1, limit, with));
}

#[tokio::test(start_paused = true)]
async fn another_time_is_for_the_calls_to_come() {
    let builder = BulkheadLayer::builder(1).reclaim_after(MINUTE);
    let layer = builder.build().unwrap();
    let (service, handle) = (hangs(&layer), layer.handle());
    let set = |after| {
        let mut config = handle.config();
        config.reclaim_after = after;
        handle.update(config).map(|changed| changed.to_string())
    };
    let first = start(&service, 'a').unwrap();
    assert_eq!(start(&service, 'a').err(), FULL);
    let changed = set(Some(SECOND)).unwrap();
    assert_eq!(changed, "bulkhead: `reclaim_after` from 60s to 1s");
    advance(SECOND).await;
    assert_eq!(start(&service, 'a').err(), FULL, "it was given a minute");
    drop(first);
    let _second = start(&service, 'a').unwrap();
    advance(SECOND).await;
    let _third = start(&service, 'a').unwrap();
    let changed = set(None).unwrap();
    assert_eq!(changed, "bulkhead: `reclaim_after` from 1s to never");
    assert_eq!(handle.config().reclaim_after, None);
    advance(SECOND).await;
    let _fourth = start(&service, 'a').unwrap();
    advance(MINUTE * 60 * 24 * 365).await;
    assert_eq!(start(&service, 'a').err(), FULL);
    set(Some(SECOND)).unwrap();
    assert_eq!(
        set(Some(Duration::ZERO)).unwrap_err().field,
        "reclaim_after"
    );
}

#[test]
fn a_bulkhead_that_was_built_without_takes_no_time() {
    let layer = BulkheadLayer::builder(1).build().unwrap();
    let mut config = layer.handle().config();
    assert_eq!(config.reclaim_after, None);
    config.reclaim_after = Some(SECOND);
    let error = layer.handle().update(config).unwrap_err().to_string();
    assert!(error.contains("build the bulkhead with one"), "{error}");
    let builder = BulkheadLayer::builder(1).reclaim_after(Duration::ZERO);
    assert_eq!(builder.build().unwrap_err().field, "reclaim_after");
}

/// Keys with a limit of their own, those to come and those that are there.
#[tokio::test(start_paused = true)]
async fn another_time_reaches_all_keys() {
    let builder = BulkheadLayer::builder(1).reclaim_after(MINUTE);
    let layer = builder
        .keyed_by(|key: &char| Some(*key))
        .within(4)
        .limits([('f', 1)])
        .build()
        .unwrap();
    let (service, handle) = (hangs(&layer), layer.handle());
    drop(['a', 'f'].map(|key| start(&service, key).unwrap()));
    let mut config = handle.config();
    assert_eq!((config.limit, config.reclaim_after), (1, Some(MINUTE)));
    config.reclaim_after = Some(SECOND);
    let changed = handle.update(config).unwrap().to_string();
    assert_eq!(changed, "bulkhead: `reclaim_after` from 60s to 1s");
    let mut calls: Vec<_> = ['a', 'f', 'n', 'n']
        .map(|key| start(&service, key).unwrap())
        .into();
    assert_eq!(start(&service, 'n').err(), FULL);
    advance(SECOND).await;
    calls.extend(['a', 'f', 'n', 'n'].map(|key| start(&service, key).unwrap()));
    assert_eq!(handle.totals().reclaimed, 4);
    assert_eq!(
        handle.set_limit(2).unwrap().to_string(),
        "bulkhead: `limit` from 1 to 2"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_a_metric() {
    let registry = Registry::new();
    let layer = registry.with(|| {
        let builder = BulkheadLayer::builder(1).reclaim_after(SECOND);
        builder.name("downloads").build().unwrap()
    });
    let service = hangs(&layer);
    let _unread = start(&service, 'a').unwrap();
    advance(SECOND).await;
    let _next = start(&service, 'a').unwrap();
    let instances = registry.snapshot();
    assert_eq!(instances[0].totals.reclaimed, 1);
    assert!(instances[0].config.contains(&("reclaim_after", 1.0)));
}

proptest! {
    /// Against a plain list of who holds a place, and since when.
    #[test]
    fn places_are_taken_back_as_from_a_plain_list(
        steps in prop::collection::vec((0u8..8, 0usize..6), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let builder = BulkheadLayer::builder(3).reclaim_after(10 * SECOND);
            let layer = builder.build().unwrap();
            let (service, handle) = (hangs(&layer), layer.handle());
            let (mut calls, mut now) = (Vec::<(usize, Call)>::new(), 0);
            let (mut holders, mut reclaimed) = (Vec::<(usize, usize)>::new(), 0);
            for (number, (step, value)) in steps.into_iter().enumerate() {
                match step {
                    0..4 => {
                        if holders.len() >= 3 {
                            let before = holders.len();
                            holders.retain(|(_, since)| since + 10 > now);
                            reclaimed += (before - holders.len()) as u64;
                        }
                        let started = start(&service, 'a');
                        prop_assert_eq!(started.is_ok(), holders.len() < 3);
                        if let Ok(call) = started {
                            calls.push((number, call));
                            holders.push((number, now));
                        }
                    }
                    4 | 5 if !calls.is_empty() => {
                        let (ended, call) = calls.swap_remove(value % calls.len());
                        drop(call);
                        holders.retain(|(holder, _)| *holder != ended);
                    }
                    _ => {
                        advance(Duration::from_secs(value as u64)).await;
                        now += value;
                    }
                }
                let seen = handle.snapshot();
                prop_assert_eq!(seen.in_flight, holders.len());
                prop_assert_eq!(seen.totals.reclaimed, reclaimed);
            }
            drop(calls);
            prop_assert_eq!(handle.snapshot().in_flight, 0);
            Ok(())
        })?;
    }
}

/// Calls end while others take their places back: none is lost, and none is there twice.
#[test]
fn many_threads_lose_no_place() {
    let builder = BulkheadLayer::builder(4).reclaim_after(Duration::from_nanos(1));
    let layer = builder.build().unwrap();
    let (service, handle) = (hangs(&layer), layer.handle());
    let left = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (service, left) = (service.clone(), left.clone());
            scope.spawn(move || {
                for step in 0..500 {
                    let Ok(call) = start(&service, 'a') else {
                        continue;
                    };
                    // Some end on another thread, and much later.
                    if step % 3 == thread % 3 {
                        left.lock().unwrap().push(call);
                    }
                    if step % 7 == 0 {
                        let ended = left.lock().unwrap().pop();
                        drop(ended);
                    }
                }
            });
        }
    });
    drop(std::mem::take(&mut *left.lock().unwrap()));
    assert_eq!(handle.snapshot().in_flight, 0);
    assert!(handle.snapshot().totals.reclaimed > 0);
}
