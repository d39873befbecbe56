//! Off until started, on for a time, bounded, and switched off from outside.

use std::{pin::pin, time::Duration};

use futures::FutureExt;
use tokio::time::advance;
use tower::{Layer, service_fn};
use tower_keep::{
    ConfigError,
    fault::{Delay, Fault, FaultHandle, FaultLayer},
    protocol::{Plain, http},
};

use crate::{REASON, ask, echo, ms, now, secs, since};

/// A layer whose faults are errors, or `Err` if it does not build.
macro_rules! failing {
    ($($setter:ident($($value:expr),*)),*) => {
        FaultLayer::builder(REASON)
            .protocol(Plain::new())
            .fault(Fault::error(|_: &u32| "injected"))
            $(.$setter($($value),*))*
            .build()
    };
}

#[tokio::test(start_paused = true)]
async fn faults_are_off_until_they_are_started() {
    let layer = failing!().unwrap();
    let service = layer.layer(echo());
    assert_eq!(ask(&service, 1).await.unwrap(), 1);
    assert!(!layer.handle().is_running());
    assert!(layer.handle().start_for(secs(1)));
    ask(&service, 2).await.unwrap_err();
    let snapshot = layer.handle().snapshot();
    assert_eq!(snapshot.remaining, Some(secs(1)));
    assert_eq!((snapshot.reason, snapshot.injected["error"]), (REASON, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_by_itself() {
    let layer = failing!().unwrap();
    let service = layer.layer(echo());
    layer.handle().start_for(secs(600));
    advance(secs(600) - ms(1)).await;
    ask(&service, 1).await.unwrap_err();
    advance(ms(1)).await;
    assert_eq!(ask(&service, 2).await.unwrap(), 2);
    assert!(!layer.handle().is_running());
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_its_run() {
    let layer = failing!().unwrap();
    let (first, second) = (layer.layer(echo()), layer.clone().layer(echo()));
    let handle = layer.handle();
    drop(layer);
    handle.clone().start_for(secs(1));
    ask(&first, 1).await.unwrap_err();
    ask(&second, 1).await.unwrap_err();
    assert_eq!(handle.snapshot().injected["error"], 2);
}

#[test]
fn a_run_started_without_a_runtime_ends_as_well() {
    let layer = failing!().unwrap();
    let service = layer.layer(echo());
    assert!(layer.handle().start_for(Duration::from_nanos(1)));
    while layer.handle().is_running() {}
    assert_eq!(ask(&service, 1).now_or_never().unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_time_is_no_run_and_all_time_is_one() {
    let layer = failing!().unwrap();
    assert!(!layer.handle().start_for(Duration::ZERO));
    assert!(layer.handle().start_for(Duration::MAX));
    advance(secs(10 * 365 * 24 * 3600)).await;
    ask(&layer.layer(echo()), 1).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_is_held_up_goes_on_when_a_run_ends() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::delay(secs(60)).when(|n: &u32| *n < 2))
        .fault(Fault::hang().when(|n: &u32| *n == 1))
        // Of no call that is held up: by then the run has ended.
        .fault(Fault::error(|_: &u32| "injected"))
        .build()
        .unwrap();
    let service = layer.layer(echo());
    let start = now();
    layer.handle().start_for(secs(600));
    let (mut delayed, mut hung) = (pin!(ask(&service, 0)), pin!(ask(&service, 1)));
    assert!((&mut delayed).now_or_never().is_none());
    assert!((&mut hung).now_or_never().is_none());
    assert_eq!(layer.handle().snapshot().active, 2);
    layer.handle().stop();
    assert_eq!((delayed.await.unwrap(), hung.await.unwrap()), (0, 1));
    assert_eq!(since(start), Duration::ZERO);
    assert_eq!(layer.handle().snapshot().active, 0);

    // By itself as by hand.
    layer.handle().start_for(secs(600));
    assert_eq!(ask(&service, 1).await.unwrap(), 1);
    assert_eq!(since(start), secs(600));
}

#[tokio::test(start_paused = true)]
async fn a_new_start_ends_the_run_before_it() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::hang())
        .build()
        .unwrap();
    let service = layer.layer(echo());
    layer.handle().start_for(secs(10));
    let mut hung = pin!(ask(&service, 1));
    assert!((&mut hung).now_or_never().is_none());
    layer.handle().start_for(secs(60));
    assert_eq!(hung.now_or_never().unwrap().unwrap(), 1);
    // The end of the first run is none of the second.
    advance(secs(11)).await;
    tokio::task::yield_now().await;
    assert_eq!(layer.handle().snapshot().remaining, Some(secs(49)));
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_suffer_than_may() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::hang())
        .max_active(3)
        .build()
        .unwrap();
    let service = layer.layer(echo());
    layer.handle().start_for(secs(60));
    let mut held: Vec<_> = (0..3).map(|n| Box::pin(ask(&service, n))).collect();
    for call in &mut held {
        assert!(call.now_or_never().is_none());
    }
    assert_eq!(ask(&service, 7).await.unwrap(), 7);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.active, snapshot.spared), (3, 1));
    assert_eq!(snapshot.injected["hang"], 3);
    // A caller that gives up suffers no longer.
    held.pop();
    assert!(ask(&service, 8).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_counts_and_injects_nothing() {
    let layer = failing!(shadow(true), max_active(1)).unwrap();
    let service = layer.layer(echo());
    layer.handle().start_for(secs(60));
    assert_eq!(ask(&service, 1).await.unwrap(), 1);
    let snapshot = layer.handle().snapshot();
    assert_eq!(snapshot.would_inject["error"], 1);
    assert_eq!((snapshot.injected["error"], snapshot.active), (0, 0));

    let mut policy = layer.handle().policy();
    policy.shadow = false;
    let changed = layer.handle().update(policy).unwrap();
    assert_eq!(changed.to_string(), "fault: `shadow` from true to false");
    ask(&service, 1).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_stops_and_cannot_start() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::hang())
        .build()
        .unwrap();
    let (service, handle) = (layer.layer(echo()), layer.handle());
    handle.start_for(secs(60));
    let mut hung = pin!(ask(&service, 1));
    assert!((&mut hung).now_or_never().is_none());
    let mut policy = handle.policy();
    policy.enabled = false;
    handle.update(policy).unwrap();
    assert_eq!(hung.now_or_never().unwrap().unwrap(), 1);
    assert!(!handle.start_for(secs(60)));
    // On again, it is off until it is started.
    policy.enabled = true;
    handle.update(policy).unwrap();
    assert_eq!(ask(&service, 1).now_or_never().unwrap().unwrap(), 1);
    assert!(handle.start_for(secs(60)));

    let layer = failing!(enabled(false)).unwrap();
    assert!(!layer.handle().start_for(secs(60)));
}

#[tokio::test(start_paused = true)]
async fn the_task_that_notices_the_end_goes_with_its_run() {
    let layer = failing!().unwrap();
    let tasks = async || {
        tokio::task::yield_now().await;
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks().await;
    for _ in 0..10 {
        layer.handle().start_for(secs(60));
    }
    assert_eq!(tasks().await, before + 1);
    layer.handle().stop();
    assert_eq!(tasks().await, before);
    layer.handle().start_for(secs(60));
    drop(layer);
    assert_eq!(tasks().await, before);
}

/// Wakers are user code, and none of it runs under a lock of ours.
#[test]
fn a_waker_may_use_the_handle() {
    struct Uses(FaultHandle);

    impl std::task::Wake for Uses {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.stop();
            self.0.start_for(secs(60));
            self.0.update(self.0.policy()).unwrap();
        }
    }

    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let layer = FaultLayer::builder(REASON)
            .protocol(Plain::new())
            .fault(Fault::hang())
            .build()
            .unwrap();
        layer.handle().start_for(secs(60));
        let service = layer.layer(echo());
        let mut hung = pin!(ask(&service, 1));
        let waker = std::sync::Arc::new(Uses(layer.handle())).into();
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(hung.as_mut().poll(&mut cx).is_pending());
        layer.handle().stop();
        // It has started another run. This call was of the first.
        assert!(layer.handle().is_running());
        assert!(hung.as_mut().poll(&mut cx).is_ready());
        tell.send(()).unwrap();
    });
    told.recv_timeout(secs(60)).expect("it is not locked up");
}

/// Runs start and end while calls come: none is left waiting for an end that was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_misses_the_end_of_its_run() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::hang())
        .max_active(usize::MAX)
        .build()
        .unwrap();
    let handle = layer.handle();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let service = layer.layer(echo());
            tokio::spawn(async move {
                for n in 0..500 {
                    assert_eq!(ask(&service, n).await.unwrap(), n);
                }
            })
        })
        .collect();
    let runs = tokio::spawn(async move {
        loop {
            handle.start_for(secs(600));
            tokio::task::yield_now().await;
            handle.start_for(secs(600));
            tokio::task::yield_now().await;
            handle.stop();
            tokio::task::yield_now().await;
        }
    });
    let all = futures::future::try_join_all(callers);
    tokio::time::timeout(secs(60), all).await.unwrap().unwrap();
    runs.abort();
    assert_eq!(layer.handle().snapshot().active, 0);
}

/// The setting that a layer does not build for.
fn refused<L>(built: Result<L, ConfigError>) -> String {
    match built {
        Ok(_) => "nothing".into(),
        Err(error) => {
            assert_eq!(error.layer, Some("fault"));
            error.to_string()
        }
    }
}

#[test]
fn settings_that_cannot_work_are_errors() {
    let plain = || FaultLayer::builder(REASON).protocol(Plain::new());
    let error = || Fault::error(|_: &u32| "injected");
    let of = |fault: Fault| refused(plain().fault(fault).build());
    let client = |fault: Fault| {
        let builder = FaultLayer::builder(REASON).protocol(http::Client::new());
        refused(builder.fault(fault).build())
    };
    let server = |fault: Fault| {
        let builder = FaultLayer::builder(REASON).protocol(http::Server::new());
        refused(builder.fault(fault).build())
    };
    let no_reason = FaultLayer::builder(" ").protocol(Plain::new());
    let status = |status| {
        let builder = FaultLayer::builder(REASON).protocol(http::Server::new());
        refused(builder.fault(Fault::status(status)).build())
    };
    let table = [
        (refused(no_reason.fault(error()).build()), "`reason` is"),
        (refused(plain().build()), "`faults` is 0"),
        (refused(failing!(max_active(0))), "`max_active` is 0"),
        (of(Fault::hang().share(1.5)), "`share` is 1.5"),
        (of(Fault::hang().share(f64::NAN)), "`share` is NaN"),
        (of(Fault::hang().then_share(secs(1), -1.0)), "`share` is -1"),
        (of(Fault::hang().during(secs(2)..secs(1))), "`during` is"),
        (of(Fault::hang().bursts(secs(1), secs(2))), "`bursts` is"),
        (of(Fault::delay(Delay::uniform(ms(2)..ms(1)))), "`delay` is"),
        (
            of(Fault::delay(Delay::median(ms(2)).p99(ms(1)))),
            "`p99` is",
        ),
        (of(Fault::refused()), "`fault` is \"refused\""),
        (of(Fault::cut_body(1)), "`fault` is \"cut_body\""),
        (server(Fault::refused()), "`fault` is \"refused\""),
        (server(Fault::reset()), "`fault` is \"reset\""),
        (client(Fault::trickle_body(0, ms(1))), "`trickle_body` is 0"),
        (client(Fault::reset()), "nothing"),
        (status(99), "`status` is 99"),
        (status(100), "`status` is 100"),
        (status(1000), "`status` is 1000"),
        (status(999), "nothing"),
    ];
    for (found, expected) in table {
        assert!(found.contains(expected), "{found} is not {expected}");
    }
    let peers = error().peers(2.0, |n: &u32| Some(*n));
    let peers = refused(plain().fault(peers).build());
    assert!(peers.contains("`share` is 2"), "{peers}");
    let _ = plain()
        .fault(error())
        .build()
        .unwrap()
        .layer(service_fn(async |n: u32| Ok::<_, std::io::Error>(n)));
}

#[cfg(feature = "tonic-014")]
#[test]
fn a_grpc_status_needs_grpc() {
    use tonic::Code;
    use tower_keep::protocol::grpc;

    let fault = || Fault::grpc_status(Code::Unavailable);
    let builder = || FaultLayer::builder(REASON);
    let plain = builder().protocol(Plain::new()).fault(fault()).build();
    let client = builder().protocol(http::Client::new()).fault(fault());
    let server = builder().protocol(http::Server::new()).fault(fault());
    for found in [
        refused(plain),
        refused(client.build()),
        refused(server.build()),
    ] {
        assert!(found.contains("`fault` is \"grpc_status\""), "{found}");
    }
    let server = builder().protocol(grpc::Server::new());
    let reset = refused(server.fault(Fault::reset()).build());
    assert!(reset.contains("`fault` is \"reset\""), "{reset}");
    let client = builder().protocol(grpc::Client::new()).fault(fault());
    assert_eq!(refused(client.build()), "nothing");
}
