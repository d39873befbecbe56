//! The bounds, as invariants over seeds: delays, losses, resends, partitions and deaths.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower_keep::{rate_limit::Outage, store::Memory};

use crate::support::{call, ms, over, process};

/// The seeds that each invariant is tried with. `scripts/fleet` sets more: 500 in CI.
pub(crate) fn seeds() -> u64 {
    std::env::var("FLEET_SEEDS")
        .ok()
        .map_or(60, |seeds| seeds.parse().unwrap())
}

/// A number that follows from a seed and a place.
pub(crate) fn draw(seed: u64, place: u64, below: u64) -> u64 {
    let word =
        (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ place).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (word ^ word >> 29).wrapping_mul(0x94D0_49BB_1331_11EB) % below
}

type Admitted = Arc<Mutex<Vec<Duration>>>;

/// Three processes of 100/s and a burst of 100, over a bad network. One dies, one is cut off for a
/// while.
fn run(seed: u64, outage: Outage) -> (Vec<Duration>, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let slowest = 1 + draw(seed, 1, 150);
        let store = Memory::seeded(seed)
            .delay(ms(0), ms(slowest))
            .loss(f64::from(u32::try_from(draw(seed, 2, 4)).unwrap()) * 0.05)
            .repeat(0.1);
        let (admitted, started) = (Admitted::default(), Instant::now());
        let cut = (400 + draw(seed, 3, 800), 200 + draw(seed, 4, 1200));
        let mut processes = Vec::new();
        for number in 0..3 {
            let (link, admitted) = (store.link(), admitted.clone());
            let gap = 1 + draw(seed, 10 + number, 12);
            let layer = over(&link, outage);
            processes.push(tokio::spawn(async move {
                let mut calls = tokio::task::JoinSet::new();
                while started.elapsed() < ms(2500) {
                    let (layer, admitted) = (layer.clone(), admitted.clone());
                    calls.spawn(async move {
                        if call(&layer).await.is_ok() {
                            admitted.lock().unwrap().push(started.elapsed());
                        }
                    });
                    sleep(ms(gap)).await;
                    if number == 1 {
                        let now = started.elapsed();
                        link.cut_off(now > ms(cut.0) && now < ms(cut.0 + cut.1));
                    }
                }
                calls.join_all().await;
            }));
        }
        sleep(ms(300 + draw(seed, 5, 1500))).await;
        processes.remove(2).abort();
        for process in processes {
            let _ = process.await;
        }
        let times = std::mem::take(&mut *admitted.lock().unwrap());
        (times, ms(cut.1))
    })
}

/// The most by which any window holds more units than `rate * t`.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(crate) fn excess(mut units: Vec<(Duration, u64)>, per_second: f64) -> f64 {
    units.sort_unstable();
    let (mut level, mut most, mut before) = (0.0_f64, 0.0_f64, Duration::ZERO);
    for (time, units) in units {
        level = (level - (time - before).as_secs_f64() * per_second).max(0.0) + units as f64;
        most = most.max(level);
        before = time;
    }
    most
}

/// Calls of one unit each.
pub(crate) fn ones(times: Vec<Duration>) -> Vec<(Duration, u64)> {
    times.into_iter().map(|time| (time, 1)).collect()
}

#[test]
fn closed_keeps_the_bound_in_every_window() {
    let mut total = 0;
    for seed in 0..seeds() {
        let (times, _) = run(seed, Outage::Closed);
        total += times.len() as u64;
        let most = excess(ones(times), 100.0);
        assert!(most <= 100.0 + 1e-6, "seed {seed}: {most}");
    }
    assert!(
        total > seeds() * 100,
        "they admit most of what they may: {total}"
    );
}

/// A lost message is a failure as well: each of the processes may be without the store for all of
/// the time.
#[test]
fn a_local_share_passes_the_bound_by_its_part_at_most() {
    for seed in 0..seeds() / 2 {
        let (times, _) = run(seed, Outage::Local { share: 0.25 });
        let most = excess(ones(times), 100.0 + 3.0 * 0.25 * 100.0);
        assert!(
            most <= 100.0 + 3.0 * 0.25 * 100.0 + 1e-6,
            "seed {seed}: {most}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn steady_demand_gets_the_limit() {
    let store = Memory::new().delay(ms(1), ms(4));
    let (admitted, started) = (Admitted::default(), Instant::now());
    let processes = [(); 3].map(|()| {
        let (layer, admitted) = (
            process(&store, 1000, 1000).build().unwrap(),
            admitted.clone(),
        );
        tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            while started.elapsed() < ms(14_000) {
                let (layer, admitted) = (layer.clone(), admitted.clone());
                calls.spawn(async move {
                    if call(&layer).await.is_ok() {
                        admitted.lock().unwrap().push(started.elapsed());
                    }
                });
                while calls.try_join_next().is_some() {}
                sleep(ms(2)).await;
            }
        })
    });
    for process in processes {
        process.await.unwrap();
    }
    let times = admitted.lock().unwrap();
    let steady = times.iter().filter(|time| **time > ms(4000)).count();
    // Units that were leased before the ten seconds may be spent in them: those of a horizon.
    assert!(
        (9_700..=10_100).contains(&steady),
        "{steady} of 10 s at 1000/s"
    );
}
