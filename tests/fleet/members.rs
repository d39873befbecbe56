//! Limits over the number of members, without a store.

use tokio::{sync::watch, time::sleep};
use tower_keep::rate_limit::{Rate, RateLimitLayer};

use crate::support::{admitted, ms};

#[tokio::test(start_paused = true)]
async fn a_limit_is_divided_by_the_number_of_members() {
    let (replicas, members) = watch::channel(4);
    let layers = [(); 4].map(|()| {
        let rate = Rate::per_second(100).shared_by(members.clone()).unwrap();
        RateLimitLayer::with(rate.burst(40).unwrap())
            .build()
            .unwrap()
    });
    for layer in &layers {
        assert_eq!(admitted(layer, 100).await, 10);
    }
    sleep(ms(1000)).await;
    assert_eq!(layers[0].handle().snapshot().available, 10);
    sleep(ms(1)).await;
    // when two leave, the others' parts are twice as large.
    replicas.send(2).unwrap();
    assert_eq!(admitted(&layers[0], 100).await, 20);
    assert_eq!(layers[0].handle().snapshot().rate, Rate::per_second(50));
    // when the number of members is lost, the last one holds.
    drop(replicas);
    sleep(ms(1000)).await;
    assert_eq!(admitted(&layers[0], 100).await, 20);
}

#[tokio::test(start_paused = true)]
async fn an_update_changes_the_whole() {
    let (_replicas, members) = watch::channel(0);
    let rate = Rate::per_second(100).shared_by(members).unwrap();
    let layer = RateLimitLayer::with(rate).build().unwrap();
    assert_eq!(
        layer.handle().snapshot().rate,
        Rate::per_second(100),
        "0 counts as 1"
    );
    layer.handle().set_rate(Rate::per_second(10), 5).unwrap();
    assert_eq!(admitted(&layer, 100).await, 5);
    assert!(layer.handle().set_rate(Rate::per_second(10), 0).is_err());
    let (_replicas, members) = watch::channel(3);
    assert!(Rate::per_second(0).shared_by(members).is_err());
}
