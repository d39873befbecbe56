//! What the global recorder gets, whose handles are kept: of one process, so of one file.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{bulkhead::BulkheadLayer, observe::Registry};

/// Remembers its counters, and can forget them as exporters do that let idle series go.
#[derive(Clone, Default)]
struct Memory {
    counters: Arc<Mutex<HashMap<Key, Arc<Count>>>>,
    asked: Arc<AtomicU64>,
}

#[derive(Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

impl Recorder for Memory {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut counters = self.counters.lock().unwrap();
        Counter::from_arc(counters.entry(key.clone()).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Memory {
    /// Calls of the layer of this name that succeeded.
    fn successes(&self, name: &str) -> Option<u64> {
        let counters = self.counters.lock().unwrap();
        let found = counters.iter().find(|(key, _)| {
            let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
            key.name() == "tower_keep_calls_total" && labels == [name, "bulkhead", "success"]
        });
        found.map(|(_, count)| count.0.load(Ordering::Relaxed))
    }

    fn asked(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

/// One test for all of it: the global recorder and the registry are the process's own.
#[tokio::test(start_paused = true)]
async fn only_handles_of_the_global_recorder_are_cached() {
    let global = Memory::default();
    let layer = BulkheadLayer::builder(2).name("one").build().unwrap();
    let service = layer.layer(service_fn(async |call: u32| Ok::<_, BoxError>(call)));
    let publish = || Registry::global().publish();
    service.clone().oneshot(1).await.unwrap();
    publish(); // to nobody
    assert!(metrics::set_global_recorder(global.clone()).is_ok());

    publish();
    assert_eq!(global.successes("one"), Some(1));
    assert!(global.asked() > 0);

    // Handles are kept: the recorder is asked once in many publications.
    service.clone().oneshot(1).await.unwrap();
    (0..8).for_each(|_| publish());
    assert_eq!(global.successes("one"), Some(2));
    let series = global.counters.lock().unwrap().len() as u64;
    assert!(global.asked() <= series, "each at most once in 16");

    // Local recorders come and go, at the same place: each gets all, and the global one nothing.
    service.clone().oneshot(1).await.unwrap();
    for _ in 0..3 {
        let local = Memory::default();
        metrics::with_local_recorder(&local, publish);
        assert_eq!(local.successes("one"), Some(3));
    }
    assert_eq!((global.successes("one"), global.asked()), (Some(2), 0));

    // What the recorder forgot comes back.
    global.counters.lock().unwrap().clear();
    (0..16).for_each(|_| publish());
    assert_eq!(global.successes("one"), Some(3));
}
