//! The task that asks: on whose runtime, and for how long.

use std::time::Duration;

use tokio::runtime::Builder;
use tower_keep::store::Memory;

use crate::support::{call, ms, process};

#[test]
fn the_task_starts_anew_when_its_runtime_has_ended() {
    let store = Memory::new();
    let layer = process(&store, 100, 100).build().unwrap();
    for _ in 0..3 {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::time::sleep(ms(2000)).await;
            assert!(call(&layer).await.is_ok());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_layer() {
    let store = Memory::new();
    let layer = process(&store, 100, 100).build().unwrap();
    assert!(call(&layer).await.is_ok());
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    assert_eq!(tasks(), 1);
    drop(layer);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_layer_does_not_ask() {
    let store = Memory::new();
    let layer = process(&store, 100, 100).build().unwrap();
    for _ in 0..50 {
        let _ = call(&layer).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let fleet = layer.handle().fleet().unwrap();
    let before = fleet.snapshot().exchanges;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fleet.snapshot().exchanges, before);
}
