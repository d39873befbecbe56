//! The recorder, and what a replay reads of it.

use std::{convert::Infallible, fs, time::Duration};

use tokio::time::sleep;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    bulkhead::BulkheadLayer,
    gate::GateLayer,
    protocol::Plain,
    replay::{Call, End, Log, LogOptions, RecorderBuilder, RecordingWriter},
};

use crate::reading::Temporary;

fn calls(path: &std::path::Path) -> (Log, Vec<Call>) {
    let log = Log::read([path], &LogOptions::default(), &mut |_| {}).unwrap();
    let mut calls = Vec::new();
    log.calls.each(&mut |call| calls.push(*call)).unwrap();
    (log, calls)
}

async fn upstream(millis: u64) -> Result<u64, BoxError> {
    sleep(Duration::from_millis(millis)).await;
    if millis % 2 == 1 {
        Err("odd".into())
    } else {
        Ok(millis)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_recorded_with_its_time_and_end() {
    let file = Temporary::new("calls");
    let recorder = RecorderBuilder::new(&file.0)
        .key(|millis: &u64| Some(millis % 10))
        .host(|_: &u64| Some("shop"))
        .protocol(Plain::new())
        .build()
        .unwrap();
    let (service, handle) = (recorder.layer(service_fn(upstream)), recorder.handle());
    for millis in [20, 31, 40] {
        let _ = service.clone().oneshot(millis).await;
    }
    drop(tokio::time::timeout(Duration::from_millis(5), service.clone().oneshot(50)).await);
    handle.flush();
    let (_, calls) = calls(&file.0);
    let facts: Vec<_> = calls
        .iter()
        .map(|call| (call.duration / 1_000_000, call.end))
        .collect();
    let expected = [
        (20, End::Success),
        (31, End::Failure),
        (40, End::Success),
        (5, End::Cancelled),
    ];
    assert_eq!(facts, expected);
    assert_eq!(calls[1].start - calls[0].start, 20_000_000);
    assert_eq!(calls[0].key, calls[2].key);
    assert!(calls[0].key != calls[1].key && calls[0].host != 0);
    let snapshot = handle.snapshot();
    assert_eq!(
        (snapshot.written, snapshot.lost, snapshot.error),
        (4, 0, None)
    );
    let bytes = fs::metadata(&file.0).unwrap().len();
    assert_eq!(bytes, 32 + 4 * 32, "32 bytes a call");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_behind_the_recorder_is_one() {
    let file = Temporary::new("calls");
    let recorder = RecorderBuilder::new(&file.0).gate().unwrap();
    let handle = recorder.handle();
    let bulkhead = BulkheadLayer::builder(1).gate().unwrap();
    let layer = GateLayer::new((recorder, bulkhead)).protocol(Plain::new());
    let service = layer.layer(service_fn(upstream));
    let (first, second) = tokio::join!(service.clone().oneshot(20), service.oneshot(20));
    assert!(first.is_ok() && second.is_err());
    handle.flush();
    let mut ends: Vec<_> = calls(&file.0).1.iter().map(|call| call.end).collect();
    ends.sort_by_key(|end| end.as_str());
    assert_eq!(ends, [End::Rejected, End::Success]);
}

#[tokio::test]
async fn seeds_make_recordings_agree_on_keys() {
    let keys = async |seed: Option<u64>| {
        let file = Temporary::new("calls");
        let mut builder = RecorderBuilder::new(&file.0).key(|_: &()| Some("tenant"));
        if let Some(seed) = seed {
            builder = builder.seed(seed);
        }
        let recorder = builder.protocol(Plain::new()).build().unwrap();
        let service = recorder.layer(service_fn(async |()| Ok::<_, Infallible>(())));
        service.oneshot(()).await.unwrap();
        recorder.handle().flush();
        calls(&file.0).1[0].key
    };
    assert_eq!(keys(Some(7)).await, keys(Some(7)).await);
    assert_ne!(keys(None).await, keys(None).await);
}

#[tokio::test]
async fn what_does_not_fit_is_lost_and_told() {
    let file = Temporary::new("calls");
    let builder = RecorderBuilder::new(&file.0).max_calls(3);
    let recorder = builder.protocol(Plain::new()).build().unwrap();
    let service = recorder.layer(service_fn(async |()| Ok::<_, Infallible>(())));
    for _ in 0..10 {
        service.clone().oneshot(()).await.unwrap();
    }
    recorder.handle().flush();
    recorder.handle().flush();
    let (log, calls) = calls(&file.0);
    assert_eq!((calls.len(), log.lines.lost), (3, 7));
    assert_eq!(recorder.handle().snapshot().lost, 7);
}

#[test]
fn a_recording_is_continued_and_a_torn_end_mended() {
    let file = Temporary::new("calls");
    let append = |start: u64| {
        let mut writer = RecordingWriter::open(&file.0).unwrap();
        writer.write(&Call::new(start, 5)).unwrap();
        writer.flush().unwrap();
    };
    append(10);
    let mut torn = fs::read(&file.0).unwrap();
    torn.extend([1; 17]);
    fs::write(&file.0, &torn).unwrap();
    let (log, whole) = calls(&file.0);
    assert_eq!((whole.len(), log.lines.broken), (1, 1));
    append(20);
    let (log, whole) = calls(&file.0);
    assert_eq!((whole.len(), log.lines.broken), (2, 0));
    fs::write(&file.0, "something else").unwrap();
    let error = RecordingWriter::open(&file.0).unwrap_err().to_string();
    assert!(error.contains("no recording"), "{error}");
    assert_eq!(fs::read(&file.0).unwrap(), b"something else");
}

#[tokio::test]
async fn the_thread_ends_with_the_last_service() {
    let file = Temporary::new("calls");
    let recorder = RecorderBuilder::new(&file.0)
        .protocol(Plain::new())
        .build()
        .unwrap();
    let service = recorder.layer(service_fn(async |()| Ok::<_, Infallible>(())));
    service.oneshot(()).await.unwrap();
    drop(recorder);
    // Written by the thread at its end, which comes by itself.
    for _ in 0..10_000 {
        if fs::metadata(&file.0).unwrap().len() == 64 {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("nothing was written");
}
