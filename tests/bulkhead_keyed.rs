//! Bulkheads by key: which limit a key has, and which keys are kept.
#![cfg(feature = "layers")]

use std::{collections::HashMap, pin::Pin};

use futures::{FutureExt, future::pending};
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::bulkhead::{BulkheadBuilder, BulkheadLayer, KeyedBulkheadHandle, LimitByKey};

type Call = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type Key = &'static str;
type Find = fn(&Key) -> Option<Key>;

/// Calls that hang.
struct Bench {
    service: BoxCloneSyncService<Key, (), BoxError>,
    handle: KeyedBulkheadHandle<Key>,
}

fn builder() -> BulkheadBuilder<LimitByKey<Key, Find>> {
    let find: Find = |key| Some(*key);
    BulkheadLayer::builder(3).keyed_by(find)
}

fn bench(builder: BulkheadBuilder<LimitByKey<Key, Find>>) -> Bench {
    let layer = builder.build().unwrap();
    let hangs = service_fn(|_: Key| pending::<Result<(), BoxError>>());
    Bench {
        handle: layer.handle(),
        service: BoxCloneSyncService::new(layer.layer(hangs)),
    }
}

impl Bench {
    fn start(&self, key: Key) -> Option<Call> {
        let mut call: Call = Box::pin(self.service.clone().oneshot(key));
        call.as_mut().now_or_never().is_none().then_some(call)
    }

    /// As many as are admitted.
    fn fill(&self, key: Key) -> Vec<Call> {
        std::iter::from_fn(|| self.start(key)).collect()
    }

    fn limit(&self, key: Key) -> Option<usize> {
        let handle = self.handle.key(&key)?;
        Some(handle.snapshot().limit)
    }
}

#[test]
fn keys_that_are_known_have_limits_of_their_own() {
    let known = HashMap::from([("payments", 5), ("search", 1)]);
    let bench = bench(builder().limit_for(move |key| known.get(key).copied()));
    let calls = ["payments", "search", "other"].map(|key| bench.fill(key));
    assert_eq!(calls.map(|calls| calls.len()), [5, 1, 3]);
}

#[test]
fn an_update_of_all_leaves_the_limits_that_keys_have_of_their_own() {
    let bench = bench(builder().limit_for(|key| (*key == "payments").then_some(5)));
    let _calls = ["payments", "other"].map(|key| bench.start(key).unwrap());
    bench.handle.update(2).unwrap();
    assert_eq!(bench.limit("payments"), Some(5));
    assert_eq!(bench.limit("other"), Some(2));
    assert_eq!(bench.fill("new").len(), 2);
    bench.handle.key(&"payments").unwrap().update(6).unwrap();
    assert_eq!(bench.limit("payments"), Some(6));
}

#[test]
fn a_key_for_which_no_limit_is_allowed_finds_no_place() {
    let bench = bench(builder().limit_for(|key: &Key| usize::from(*key != "none")));
    let _call = bench.start("none").unwrap();
    assert_eq!(bench.limit("none"), None);
    assert_eq!(bench.handle.shared().snapshot().in_flight, 1);
}

#[test]
fn a_share_may_be_a_keys_own() {
    let own = |key: &Key| (*key == "large").then_some(3);
    let bench = bench(builder().within(4).limit_for(own));
    let mut calls = bench.fill("greedy");
    assert_eq!(calls.len(), 4);
    calls.extend(bench.fill("large"));
    assert_eq!(calls.len(), 7);
}

#[test]
fn a_limit_that_was_changed_by_hand_is_not_evicted() {
    let bench = bench(builder().max_keys(2));
    for key in ["changed", "free"] {
        drop(bench.start(key).unwrap());
    }
    bench.handle.key(&"changed").unwrap().update(7).unwrap();
    for key in ["a", "b", "c", "d"] {
        drop(bench.start(key).unwrap());
    }
    assert_eq!(bench.limit("changed"), Some(7));
    assert_eq!((bench.limit("free"), bench.limit("d")), (None, Some(3)));
    // The newest change holds, and then the key is one of all.
    bench.handle.update(2).unwrap();
    assert_eq!(bench.limit("changed"), Some(2));
    for key in ["a", "b", "c", "d"] {
        drop(bench.start(key).unwrap());
    }
    assert_eq!(bench.limit("changed"), None);
}
