//! Bulkheads by key: which limit a key has, and which keys are kept.

use std::{collections::HashMap, pin::Pin};

use futures::{FutureExt, future::pending};
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{
    bulkhead::{BulkheadBuilder, BulkheadLayer, KeyedBulkheadHandle, LimitByKey},
    keyed::KeyFn,
};

type Call = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type Key = &'static str;
type Find = fn(&Key) -> Option<Key>;

/// Calls that hang.
struct Bench {
    service: BoxCloneSyncService<Key, (), BoxError>,
    handle: KeyedBulkheadHandle<Key>,
}

fn builder() -> BulkheadBuilder<LimitByKey<KeyFn<Find, Key>>> {
    let find: Find = |key| Some(*key);
    BulkheadLayer::builder(3).keyed_by(find)
}

fn bench(builder: BulkheadBuilder<LimitByKey<KeyFn<Find, Key>>>) -> Bench {
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
fn an_update_of_all_keys_keeps_the_keys_own_limits() {
    let bench = bench(builder().limit_for(|key| (*key == "payments").then_some(5)));
    let _calls = ["payments", "other"].map(|key| bench.start(key).unwrap());
    bench.handle.set_limit(2).unwrap();
    assert_eq!(bench.limit("payments"), Some(5));
    assert_eq!(bench.limit("other"), Some(2));
    assert_eq!(bench.fill("new").len(), 2);
    bench.handle.key(&"payments").unwrap().set_limit(6).unwrap();
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
fn listed_limits_are_checked_when_they_are_given() {
    let error = |builder: BulkheadBuilder<LimitByKey<KeyFn<Find, Key>>>| {
        builder.name("peers").build().unwrap_err().to_string()
    };
    let listed = [("payments", 3), ("search", 2)];
    let text = error(builder().within(4).limits(listed));
    assert_eq!(
        text,
        "bulkhead (peers): `limits` is 5: guarantee at most the total of `within` to all keys of \
         the list together"
    );
    let text = error(builder().limits([("none", 0)]));
    assert!(text.contains("`limit` is 0"), "{text}");
    assert!(builder().within(5).limits(listed).build().is_ok());
    let huge = [("a", usize::MAX), ("b", usize::MAX)];
    assert!(builder().limits(huge).build().is_ok());
    assert!(builder().within(9).limits(huge).build().is_err());
}

#[test]
fn listed_limits_precede_a_closures_and_the_default() {
    let builder = builder().limit_for(|key| (key.len() > 1).then_some(2));
    let bench = bench(builder.limits([("payments", 5)]));
    let calls = ["payments", "search", "x"].map(|key| bench.fill(key));
    assert_eq!(calls.map(|calls| calls.len()), [5, 2, 3]);
}

#[test]
fn all_listed_shares_fit_into_the_total() {
    let listed = [("payments", 3), ("search", 2)];
    let bench = bench(builder().within(5).limits(listed));
    let mut calls = bench.fill("payments");
    calls.extend(bench.fill("search"));
    // The first had all of the total, and so the second has its share on top of that.
    assert_eq!((calls.len(), bench.handle.total()), (7, Some((7, 5))));
    drop(calls);
    let mut calls: Vec<_> = (0..3).map(|_| bench.start("payments").unwrap()).collect();
    calls.extend(bench.fill("search"));
    assert_eq!((calls.len(), bench.handle.total()), (5, Some((5, 5))));
}

#[test]
fn a_share_above_the_total_finds_no_place() {
    let bench = bench(
        builder()
            .within(4)
            .limit_for(|key| (*key == "large").then_some(5)),
    );
    let _calls = bench.fill("large");
    assert_eq!(bench.limit("large"), None);
    assert_eq!(bench.handle.shared().snapshot().in_flight, 4);
}

/// Which keys will come is not known, so what they are guaranteed is not refused.
#[test]
fn unlisted_shares_are_added_to_the_total() {
    let bench = bench(builder().within(4).limit_for(|_: &Key| 4));
    let calls = ["a", "b", "c"].map(|key| bench.fill(key));
    assert_eq!(calls.map(|calls| calls.len()), [4, 4, 4]);
}

#[test]
fn no_change_of_all_guarantees_more_than_the_total() {
    let bench = bench(builder().within(6).limits([("payments", 5)]));
    let text = bench.handle.set_limit(7).unwrap_err().to_string();
    assert!(text.contains("`limit` is 7"), "{text}");
    let text = bench.handle.set_total(4).unwrap_err().to_string();
    assert!(text.contains("`within` is 4"), "{text}");
    let changed = bench.handle.set_total(7).unwrap();
    assert!(changed.to_string().ends_with("to 7"), "{changed}");
    bench.handle.set_limit(7).unwrap();
    assert_eq!(bench.handle.shared().snapshot().limit, 7);
    assert!(bench.handle.set_total(6).is_err());
}

#[test]
fn a_limit_that_was_changed_by_hand_is_not_evicted() {
    let bench = bench(builder().max_keys(2));
    for key in ["changed", "free"] {
        drop(bench.start(key).unwrap());
    }
    bench.handle.key(&"changed").unwrap().set_limit(7).unwrap();
    for key in ["a", "b", "c", "d"] {
        drop(bench.start(key).unwrap());
    }
    assert_eq!(bench.limit("changed"), Some(7));
    assert_eq!((bench.limit("free"), bench.limit("d")), (None, Some(3)));
    // The newest change holds, and then the key is one of all.
    bench.handle.set_limit(2).unwrap();
    assert_eq!(bench.limit("changed"), Some(2));
    for key in ["a", "b", "c", "d"] {
        drop(bench.start(key).unwrap());
    }
    assert_eq!(bench.limit("changed"), None);
}
