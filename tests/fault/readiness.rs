//! Services that do not get ready.

use std::{future::ready, time::Duration};

use futures::FutureExt;
use tower::{
    BoxError, Layer, Service, ServiceExt, balance::p2c::Balance, discover::ServiceList,
    load::Constant, service_fn, util::BoxCloneSyncService,
};
use tower_keep::{
    fault::{Fault, FaultLayer},
    protocol::Plain,
};

use crate::{REASON, echo, now, secs, since};

#[tokio::test(start_paused = true)]
async fn a_service_is_not_ready_until_the_run_ends() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::not_ready())
        .build()
        .unwrap();
    let mut service = layer.layer(echo());
    let start = now();
    layer.handle().start_for(secs(10));
    // Woken, though nothing else happens.
    let answer = service.ready().await.unwrap().call(7).await.unwrap();
    assert_eq!((answer, since(start)), (7, secs(10)));

    layer.handle().start_for(secs(10));
    assert!(service.ready().now_or_never().is_none());
    assert_eq!(layer.handle().snapshot().active, 1);
    let stop = layer.handle();
    let stops = async move {
        tokio::time::sleep(secs(3)).await;
        stop.stop();
    };
    let (ready, ()) = futures::join!(service.ready(), stops);
    assert_eq!(ready.unwrap().call(8).await.unwrap(), 8);
    assert_eq!(since(start), secs(13));
    assert_eq!(layer.handle().snapshot().active, 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_is_not_ready_until_the_window_ends() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::not_ready().during(secs(5)..secs(9)))
        .build()
        .unwrap();
    let mut service = layer.layer(echo());
    let start = now();
    layer.handle().start_for(secs(60));
    service.ready().now_or_never().unwrap().unwrap();
    tokio::time::sleep(secs(6)).await;
    // It had got ready before, and stays so until it is called.
    let answer = service.ready().now_or_never().unwrap().unwrap().call(7);
    assert_eq!(answer.await.unwrap(), 7);
    service.ready().await.unwrap();
    assert_eq!(since(start), secs(9));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_waits_is_held_up() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::not_ready().share(0.25))
        .max_active(usize::MAX)
        .seed(3)
        .build()
        .unwrap();
    layer.handle().start_for(secs(60));
    let service = layer.layer(echo());
    let mut clones = vec![service; 400];
    let mut held = 0;
    for clone in &mut clones {
        held += usize::from(clone.ready().now_or_never().is_none());
    }
    assert!((60..140).contains(&held), "{held}");
    let snapshot = layer.handle().snapshot();
    assert_eq!(snapshot.active, held);
    assert_eq!(snapshot.injected["not_ready"], held as u64);
    // A clone of one that is held up is decided on anew, and a dropped one is held up no longer.
    drop(clones);
    assert_eq!(layer.handle().snapshot().active, 0);
}

#[tokio::test(start_paused = true)]
async fn windows_that_follow_each_other_are_one() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(
            Fault::not_ready()
                .during(secs(0)..secs(2))
                .during(secs(2)..secs(5))
                .then_share(secs(4), 0.0),
        )
        .build()
        .unwrap();
    let mut service = layer.layer(echo());
    let start = now();
    layer.handle().start_for(secs(60));
    service.ready().await.unwrap();
    assert_eq!(since(start), secs(4));
    assert_eq!(layer.handle().snapshot().injected["not_ready"], 2);
}

/// A balancer sends nothing to a peer that is not ready, and finds it again.
#[tokio::test(start_paused = true)]
async fn a_balancer_goes_around_a_peer_that_is_not_ready() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::not_ready())
        .build()
        .unwrap();
    let peer = |name| service_fn(move |_: u32| ready(Ok::<&str, BoxError>(name)));
    let sick = BoxCloneSyncService::new(layer.layer(peer("sick")));
    let well = BoxCloneSyncService::new(peer("well"));
    let peers = [sick, well].map(|peer| Constant::new(peer, 0));
    let mut balance = Balance::new(ServiceList::new(peers));
    layer.handle().start_for(secs(60));
    let mut reached = async || {
        let mut sick = 0;
        for n in 0..100 {
            let peer = balance.ready().await.unwrap().call(n).await.unwrap();
            sick += u32::from(peer == "sick");
        }
        sick
    };
    assert_eq!(reached().await, 0);
    layer.handle().stop();
    assert!(reached().await > 0);
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_holds_no_service_up() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::not_ready())
        .shadow(true)
        .build()
        .unwrap();
    layer.handle().start_for(Duration::MAX);
    let mut service = layer.layer(echo());
    service.ready().now_or_never().unwrap().unwrap();
    assert_eq!(layer.handle().snapshot().would_inject["not_ready"], 1);
}
