//! A bulkhead whose calls run on a runtime of their own.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use futures::future::pending;
use tokio::runtime::{Builder, Runtime};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{Rejected, RejectedKind, bulkhead::BulkheadLayer};

/// Long enough that a test that reaches it has failed.
const LONG: Duration = Duration::from_secs(30);

fn dedicated() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .thread_name("dedicated")
        .build()
        .unwrap()
}

fn server() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn a_call_that_computes_stalls_none_beside_it() {
    let (dedicated, server) = (dedicated(), server());
    let layer = BulkheadLayer::builder(2).build().unwrap();
    let layer = layer.on_runtime(dedicated.handle().clone());
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = Arc::new(Mutex::new(stopped));
    let busy = layer.layer(service_fn(move |(): ()| {
        let stopped = stopped.clone();
        async move {
            // Computes, and never yields: a thread is gone until the other calls are answered.
            let told = stopped.lock().unwrap().recv_timeout(LONG).is_ok();
            Ok::<_, BoxError>(told)
        }
    }));
    let quick = service_fn(async |n: u32| Ok::<_, BoxError>(n));
    let told = server.block_on(async {
        let busy = tokio::spawn(busy.oneshot(()));
        for n in 0..100 {
            assert_eq!(quick.oneshot(n).await.unwrap(), n);
            tokio::task::yield_now().await;
        }
        stop.send(()).unwrap();
        busy.await.unwrap().unwrap()
    });
    assert!(told);
}

#[test]
fn calls_run_there_and_rejections_do_not() {
    let (dedicated, server) = (dedicated(), server());
    let layer = BulkheadLayer::builder(1).build().unwrap();
    let layer = layer.on_runtime(dedicated.handle().clone());
    let service = layer.layer(service_fn(async |hang: bool| {
        if hang {
            pending::<()>().await;
        }
        Ok::<_, BoxError>(std::thread::current().name().map(str::to_owned))
    }));
    server.block_on(async {
        let name = service.clone().oneshot(false).await.unwrap();
        assert_eq!(name.as_deref(), Some("dedicated"));
        let mut first = Box::pin(service.clone().oneshot(true));
        assert!(futures::poll!(&mut first).is_pending());
        let error = service.oneshot(false).await.unwrap_err();
        assert_eq!(
            Rejected::find(&*error).unwrap().kind,
            RejectedKind::BulkheadFull
        );
    });
    assert_eq!(layer.handle().snapshot().totals.success, 1);
}

#[test]
fn an_aborted_call_keeps_its_permit_until_it_stops() {
    let (dedicated, server) = (dedicated(), server());
    let layer = BulkheadLayer::builder(1).build().unwrap();
    let layer = layer.on_runtime(dedicated.handle().clone());
    let handle = layer.handle();
    let ((go, gone), (begin, begun), (end, ended)) =
        (mpsc::channel::<()>(), mpsc::channel(), mpsc::channel());
    let gone = Arc::new(Mutex::new(gone));
    let service = layer.layer(service_fn(move |(): ()| {
        let (gone, begin, end) = (gone.clone(), begin.clone(), Told(end.clone()));
        async move {
            begin.send(()).unwrap();
            gone.lock().unwrap().recv_timeout(LONG).unwrap();
            pending::<()>().await;
            drop(end);
            Ok::<_, BoxError>(())
        }
    }));
    server.block_on(async {
        let mut call = Box::pin(service.oneshot(()));
        assert!(futures::poll!(&mut call).is_pending());
        begun.recv_timeout(LONG).unwrap();
        drop(call);
        // It still computes.
        assert_eq!(handle.snapshot().in_flight, 1);
        go.send(()).unwrap();
        ended.recv_timeout(LONG).unwrap();
    });
    drop(dedicated);
    let now = handle.snapshot();
    assert_eq!((now.in_flight, now.totals.cancelled), (0, 1));
}

#[test]
fn a_panic_frees_the_place_and_goes_on_in_the_caller() {
    let (dedicated, server) = (dedicated(), server());
    let layer = BulkheadLayer::builder(1).build().unwrap();
    let layer = layer.on_runtime(dedicated.handle().clone());
    let service = layer.layer(service_fn(async |panics: bool| {
        assert!(!panics, "as asked");
        Ok::<_, BoxError>(())
    }));
    server.block_on(async {
        let panicked = tokio::spawn(service.clone().oneshot(true)).await;
        assert!(panicked.unwrap_err().is_panic());
        service.oneshot(false).await.unwrap();
    });
    let now = layer.handle().snapshot();
    assert_eq!((now.in_flight, now.totals.failure), (0, 1));
}

#[test]
fn once_the_runtime_has_shut_down_calls_are_rejected() {
    let (dedicated, server) = (dedicated(), server());
    let layer = BulkheadLayer::builder(1).build().unwrap();
    let layer = layer.on_runtime(dedicated.handle().clone());
    let service = layer.layer(service_fn(async |(): ()| Ok::<_, BoxError>(())));
    drop(dedicated);
    let error = server.block_on(service.oneshot(())).unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::BulkheadFull
    );
    assert_eq!(layer.handle().snapshot().in_flight, 0);
}

/// Tells when it is dropped.
struct Told(mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}
