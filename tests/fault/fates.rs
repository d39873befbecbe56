//! Whom a fault hits: the same calls under any schedule.

use std::{collections::BTreeSet, thread};

use futures::FutureExt;
use proptest::prelude::*;
use tower::Layer;
use tower_keep::{
    fault::{Fault, FaultLayer},
    protocol::Plain,
};

use crate::{REASON, ask, echo, secs};

/// The requests of 0 to 399 that fail, made by so many threads.
fn failed_by_key(seed: u64, threads: u32) -> BTreeSet<u32> {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(
            Fault::error(|_: &u32| "injected")
                .share(0.3)
                .by_key(|n: &u32| Some(*n)),
        )
        .max_active(usize::MAX)
        .seed(seed)
        .build()
        .unwrap();
    layer.handle().start_for(secs(3600));
    let of_thread = |thread: u32| {
        let service = layer.layer(echo());
        let requests = (0..400).filter(move |n| n % threads == thread);
        requests.filter(move |n| ask(&service, *n).now_or_never().unwrap().is_err())
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || of_thread(thread).collect::<Vec<_>>()))
            .collect();
        let failed = running.into_iter().map(|thread| thread.join().unwrap());
        failed.flatten().collect()
    })
}

/// How many of 400 calls fail that have no key, made by so many threads.
fn failed_by_number(seed: u64, threads: u32) -> u64 {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::error(|_: &u32| "injected").share(0.3))
        .max_active(usize::MAX)
        .seed(seed)
        .build()
        .unwrap();
    layer.handle().start_for(secs(3600));
    thread::scope(|scope| {
        for _ in 0..threads {
            let service = layer.layer(echo());
            scope.spawn(move || {
                for n in 0..400 / threads {
                    let _ = ask(&service, n).now_or_never().unwrap();
                }
            });
        }
    });
    layer.handle().snapshot().injected["error"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn fates_do_not_depend_on_threads(seed: u64) {
        let alone = failed_by_key(seed, 1);
        prop_assert_eq!(&failed_by_key(seed, 4), &alone);
        prop_assert!((60..180).contains(&alone.len()), "{}", alone.len());
        prop_assert_eq!(failed_by_number(seed, 4), failed_by_number(seed, 1));
    }

    #[test]
    fn a_fault_more_changes_no_other_fate(seed: u64) {
        let failed = |with_another: bool| {
            let layer = FaultLayer::builder(REASON)
                .protocol(Plain::new())
                .fault(Fault::delay(secs(0)).share(if with_another { 0.5 } else { 0.0 }))
                .fault(Fault::error(|_: &u32| "injected").share(0.3))
                .seed(seed)
                .build()
                .unwrap();
            layer.handle().start_for(secs(3600));
            let service = layer.layer(echo());
            let fails = |n: &u32| ask(&service, *n).now_or_never().unwrap().is_err();
            (0..200).filter(fails).collect::<Vec<_>>()
        };
        prop_assert_eq!(failed(true), failed(false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_run_hits_the_same_calls() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Plain::new())
        .fault(Fault::error(|_: &u32| "injected").share(0.5))
        .build()
        .unwrap();
    let service = layer.layer(echo());
    let run = async || {
        layer.handle().start_for(secs(60));
        let mut failed = Vec::new();
        for n in 0..100 {
            failed.push(ask(&service, n).await.is_err());
        }
        failed
    };
    assert_eq!(run().await, run().await);
}

#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn the_seed_of_a_test_decides_fates_too() {
    let failed = |seed| {
        tower_keep::testing::seeded(seed, || {
            let layer = FaultLayer::builder(REASON)
                .protocol(Plain::new())
                .fault(Fault::error(|_: &u32| "injected").share(0.5))
                .build()
                .unwrap();
            layer.handle().start_for(secs(60));
            let service = layer.layer(echo());
            let fails = |n: &u32| ask(&service, *n).now_or_never().unwrap().is_err();
            (0..100).filter(fails).collect::<Vec<_>>()
        })
    };
    assert_eq!(failed(1), failed(1));
    assert_ne!(failed(1), failed(2));
}
