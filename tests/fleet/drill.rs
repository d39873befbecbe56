//! A drill of a fleet: three processes of one limit, of which some are cut off from the store for a
//! while, by seeds. What a process may do meanwhile is stated for each mode, and is checked here.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower_keep::{rate_limit::Outage, store::Memory};

use crate::{
    bounds::{draw, excess, ones, seeds},
    support::{call, ms, over},
};

/// Milliseconds from the start: when a process is cut off, and when it is connected again.
type Cut = Option<(u64, u64)>;

/// The calls of a drill.
#[derive(Default)]
struct Calls {
    admitted: Vec<Duration>,
    offered: usize,
    /// Calls that came when their process knew that the store was down.
    while_down: usize,
    rejected_while_down: usize,
    /// How long each process took the store for down, in milliseconds.
    down: [u64; 3],
}

/// Three processes of 100/s and a burst of 100, each of which offers 70 to 125 calls a second.
fn drill(seed: u64, outage: Outage, lasting: Duration, cuts: [Cut; 3]) -> Calls {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Memory::seeded(seed).delay(ms(0), ms(1 + draw(seed, 1, 20)));
        let (calls, started) = (Arc::new(Mutex::new(Calls::default())), Instant::now());
        let mut processes = Vec::new();
        for (number, cut) in cuts.into_iter().enumerate() {
            let (link, calls) = (store.link(), calls.clone());
            let gap = 8 + draw(seed, 10 + number as u64, 7);
            processes.push(tokio::spawn(async move {
                let layer = over(&link, outage);
                let (mut sent, fleet) = (tokio::task::JoinSet::new(), layer.handle().fleet());
                let fleet = fleet.unwrap();
                let mut step = 0_u64;
                while started.elapsed() < lasting {
                    let is_down = fleet.snapshot().down_since.is_some();
                    link.cut_off(cut.is_some_and(|(from, to)| (from..to).contains(&step)));
                    calls.lock().unwrap().down[number] += u64::from(is_down);
                    if step % gap == 0 {
                        let (layer, calls) = (layer.clone(), calls.clone());
                        sent.spawn(async move {
                            let is_admitted = call(&layer).await.is_ok();
                            let mut calls = calls.lock().unwrap();
                            calls.offered += 1;
                            calls.while_down += usize::from(is_down);
                            calls.rejected_while_down += usize::from(is_down && !is_admitted);
                            if is_admitted {
                                calls.admitted.push(started.elapsed());
                            }
                        });
                    }
                    while sent.try_join_next().is_some() {}
                    step += 1;
                    sleep(ms(1)).await;
                }
                sent.join_all().await;
            }));
        }
        for process in processes {
            process.await.unwrap();
        }
        std::mem::take(&mut *calls.lock().unwrap())
    })
}

/// A cut of 200 ms to 2.2 s, from between 0.8 and 2 s on.
fn cut(seed: u64, place: u64) -> Cut {
    let from = 800 + draw(seed, place, 1200);
    Some((from, from + 200 + draw(seed, place + 1, 2000)))
}

/// What was admitted without the store is owed: later calls wait for it, so that in the end no more
/// was admitted than the limit allows.
#[test]
fn open_admits_all_while_down_and_pays_it_off() {
    let (mut while_down, mut rejected) = (0, 0);
    for seed in 0..seeds().div_ceil(30) {
        let cuts = [None, cut(seed, 20), cut(seed, 30)];
        let calls = drill(seed, Outage::Open, ms(20_000), cuts);
        let admitted = calls.admitted.len();
        assert!(admitted <= 100 + 20 * 100, "seed {seed}: {admitted}");
        assert!(
            admitted >= 17 * 100,
            "seed {seed}: {admitted} of {}",
            calls.offered
        );
        while_down += calls.while_down;
        rejected += calls.rejected_while_down;
    }
    assert!(while_down > 100, "{while_down}");
    // Those that waited behind others when it was found to be down.
    assert!(rejected * 50 <= while_down, "{rejected} of {while_down}");
}

/// The bound of the guide, with the time for which the process was in fact without the store.
#[test]
fn one_that_is_cut_off_adds_its_own_share_alone() {
    let share = 0.25;
    for seed in 0..seeds().div_ceil(15) {
        let outage = Outage::Local { share };
        let calls = drill(seed, outage, ms(6000), [None, cut(seed, 20), None]);
        let [first, down, last] = calls.down;
        assert_eq!(
            (first, last),
            (0, 0),
            "seed {seed}: the others notice nothing"
        );
        let down = Duration::from_millis(down + 2).as_secs_f64();
        let most = 100.0 + share * (100.0 + 100.0 * down);
        let level = excess(ones(calls.admitted), 100.0);
        assert!(
            level <= most + 1e-6,
            "seed {seed}: {level} of {most}, down for {down} s"
        );
    }
}

/// One process is cut off and admits nothing after its leases. The others have all of the limit.
#[test]
fn closed_leaves_the_limit_to_the_others() {
    for seed in 0..seeds().div_ceil(30) {
        let calls = drill(
            seed,
            Outage::Closed,
            ms(6000),
            [Some((1000, 6000)), None, None],
        );
        let level = excess(ones(calls.admitted.clone()), 100.0);
        assert!(level <= 100.0 + 1e-6, "seed {seed}: {level}");
        let steady = |time: &&Duration| **time > ms(3000);
        let steady = calls.admitted.iter().filter(steady).count();
        assert!(steady >= 270, "seed {seed}: {steady} of 3 s");
    }
}
