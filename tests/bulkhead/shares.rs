//! Bulkheads that tell calls apart: by how critical they are, and by key within a total.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::pending};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{
    Criticality::{self, Critical, CriticalPlus, Sheddable, SheddablePlus},
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
};

type Hung = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A call that hangs, or `None` if it is rejected.
fn start<Req>(service: &BoxCloneSyncService<Req, (), BoxError>, request: Req) -> Option<Hung>
where
    Req: Send + 'static,
{
    let mut call: Hung = Box::pin(service.clone().oneshot(request));
    match call.as_mut().now_or_never() {
        None => Some(call),
        Some(result) => {
            let error = result.unwrap_err();
            assert_eq!(
                Rejected::find(&*error).unwrap().kind,
                RejectedKind::BulkheadFull
            );
            None
        }
    }
}

fn hangs<Req, L>(layer: &L) -> BoxCloneSyncService<Req, (), BoxError>
where
    Req: Send + 'static,
    L: Layer<HungService<Req>>,
    L::Service: Service<Req, Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync,
    L::Service: 'static,
{
    BoxCloneSyncService::new(layer.layer(service_fn(|_| Box::pin(pending()))))
}

type HungService<Req> = tower::util::ServiceFn<fn(Req) -> Hung>;

fn class(class: &Criticality) -> Criticality {
    *class
}

#[test]
fn the_least_critical_are_rejected_first() {
    let layer = BulkheadLayer::builder(20)
        .criticality(class)
        .build()
        .unwrap();
    let service = hangs(&layer);
    let mut calls = Vec::new();
    for (class, admitted) in [
        (Sheddable, 10),
        (SheddablePlus, 5),
        (Critical, 3),
        (CriticalPlus, 2),
    ] {
        let before = calls.len();
        calls.extend(std::iter::from_fn(|| start(&service, class)));
        assert_eq!(calls.len() - before, admitted, "{class}");
    }
    assert_eq!(layer.handle().snapshot().in_flight, 20);
    drop(calls);
    assert!(start(&service, Sheddable).is_some());
}

#[test]
fn a_critical_call_finds_permits_despite_a_flood() {
    let layer = BulkheadLayer::builder(10)
        .criticality(class)
        .shed_above(Sheddable, 20)
        .build()
        .unwrap();
    let service = hangs(&layer);
    let _flood: Vec<_> = std::iter::from_fn(|| start(&service, Sheddable)).collect();
    assert_eq!(layer.handle().snapshot().in_flight, 2);
    let _critical: Vec<_> = (0..7).map(|_| start(&service, Critical).unwrap()).collect();
    assert!(start(&service, Critical).is_none());
    assert!(start(&service, CriticalPlus).is_some());
}

#[tokio::test(start_paused = true)]
async fn with_a_queue_its_length_decides_who_is_rejected() {
    let layer = BulkheadLayer::builder(1)
        .criticality(class)
        .max_wait(Duration::from_secs(1))
        .max_waiting(4)
        .build()
        .unwrap();
    let service = hangs(&layer);
    let mut calls = vec![start(&service, Sheddable).unwrap()];
    calls.extend((0..2).map(|_| start(&service, Sheddable).unwrap()));
    assert!(start(&service, Sheddable).is_none());
    calls.push(start(&service, SheddablePlus).unwrap());
    assert!(start(&service, SheddablePlus).is_none());
    calls.push(start(&service, CriticalPlus).unwrap());
    assert!(start(&service, CriticalPlus).is_none());
    assert_eq!(layer.handle().snapshot().waiting, 4);
}

#[tokio::test(start_paused = true)]
async fn with_a_queue_every_class_may_take_every_place() {
    let builder = || {
        let builder = BulkheadLayer::builder(200).criticality(class);
        builder.max_wait(Duration::from_secs(1)).max_waiting(4)
    };
    let alone = builder().build().unwrap();
    let calls = [(); 200].map(|()| start(&hangs(&alone), Sheddable).unwrap());
    // None waited, not even for a place that its turn has brought at once.
    let now = alone.handle().snapshot();
    assert_eq!((now.in_flight, now.waited), (200, 0));
    drop(calls);
    let keyed = builder()
        .keyed_by(|_: &Criticality| Some(1))
        .within(300)
        .build()
        .unwrap();
    let service = hangs(&keyed);
    let _calls = [(); 300].map(|()| start(&service, Sheddable).unwrap());
    let waited = keyed.handle().key(&1).unwrap().snapshot().waited;
    assert_eq!((keyed.handle().total(), waited), (Some((300, 300)), 0));
}

#[test]
fn a_key_has_its_share_though_another_has_the_total() {
    let layer = BulkheadLayer::builder(2)
        .keyed_by(|key: &u32| Some(*key))
        .within(6)
        .build()
        .unwrap();
    let (service, handle) = (hangs(&layer), layer.handle());
    // While there is room, a key has more than its share.
    let mut greedy: Vec<_> = std::iter::from_fn(|| start(&service, 1)).collect();
    assert_eq!((greedy.len(), handle.total()), (6, Some((6, 6))));
    let modest: Vec<_> = std::iter::from_fn(|| start(&service, 2)).collect();
    assert_eq!((modest.len(), handle.total()), (2, Some((8, 6))));
    // The one above its share gets nothing until there is room in the total again.
    greedy.truncate(4);
    assert!(start(&service, 1).is_none());
    greedy.truncate(3);
    assert!(start(&service, 1).is_some());
    drop((greedy, modest));
    assert_eq!(handle.total(), Some((0, 6)));
    handle.set_total(3).unwrap();
    let calls: Vec<_> = std::iter::from_fn(|| start(&service, 3)).collect();
    assert_eq!(calls.len(), 3);
    assert!(handle.set_total(1).is_err());
}

#[test]
fn bad_shares_are_errors_that_name_the_setting() {
    let error = |error: tower_keep::ConfigError| error.to_string();
    let builder = || BulkheadLayer::builder(4);
    let keyed = |total| builder().keyed_by(|key: &u32| Some(*key)).within(total);
    assert!(error(keyed(3).build().unwrap_err()).contains("`within` is 3"));
    for percent in [0, 101] {
        let share = builder().shed_above(Critical, percent).build().unwrap_err();
        assert!(error(share).contains("`shed_above`"));
    }
}

#[test]
fn classes_are_read_by_their_names() {
    assert_eq!("Critical_Plus".parse(), Ok(CriticalPlus));
    assert_eq!(Sheddable.to_string().parse(), Ok(Sheddable));
    assert!("urgent".parse::<Criticality>().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_critical_call_that_comes_last_is_served_first() {
    let served = Arc::new(Mutex::new(Vec::new()));
    let seen = served.clone();
    let layer = BulkheadLayer::builder(1)
        .criticality(|(class, _): &(Criticality, u32)| *class)
        .max_wait(Duration::from_secs(60))
        .max_waiting(40)
        .always_in_order()
        .build()
        .unwrap();
    let service = layer.layer(service_fn(move |(_, number): (Criticality, u32)| {
        let seen = seen.clone();
        async move {
            seen.lock().unwrap().push(number);
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok::<_, Infallible>(())
        }
    }));
    let classes = [Sheddable, Critical, Sheddable, Critical, CriticalPlus];
    let calls = classes.into_iter().zip(0..);
    let calls = calls.map(|call| service.clone().oneshot(call));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    // The first one did not have to wait.
    assert_eq!(*served.lock().unwrap(), [0, 4, 1, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_queue_holds_as_many_as_it_is_told() {
    let layer = BulkheadLayer::builder(1).max_wait(Duration::from_secs(60));
    let layer = layer.max_waiting(200).build().unwrap();
    let service = layer.layer(service_fn(async |_: u32| {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, Infallible>(())
    }));
    let answers = (0..250).map(|call| service.clone().oneshot(call));
    let answers = futures::future::join_all(answers).await;
    let admitted = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(admitted, 201);
}
