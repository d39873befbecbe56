//! What hedges do to one server that all clients share, and that is well: nothing.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::{
    algorithm::RetryBudget,
    hedge::{HedgeBuilder, HedgeLayer},
    protocol::{Always, Chosen, ErrIsFailure, Plain},
};

type Builder = HedgeBuilder<Chosen<Plain<ErrIsFailure, Always>>>;

/// Works through its queue in order, a millisecond for each call, also for callers that have left.
#[derive(Clone)]
struct Server {
    free: Arc<Mutex<Instant>>,
    calls: Arc<AtomicUsize>,
}

impl Server {
    async fn answer(self) -> Result<(), io::Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let departs = {
            let mut free = self.free.lock().unwrap();
            *free = (*free).max(Instant::now()) + Duration::from_millis(1);
            *free
        };
        sleep_until(departs).await;
        Ok(())
    }
}

/// A sequence that is uniform enough, and the same in each run.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The time to the next of 700 calls a second.
    fn pause(&mut self) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        Duration::from_secs_f64(-(1.0 - share).ln() / 700.0)
    }
}

/// The share of calls that are answered in 100 ms, and how many are sent for each, at 70 % load.
async fn drill(clients: u64, builder: impl Fn() -> Builder) -> (f64, f64) {
    let count = u32::try_from(clients * 60).unwrap().max(20_000);
    let server = Server {
        free: Arc::new(Mutex::new(Instant::now())),
        calls: Arc::default(),
    };
    let services: Vec<_> = (0..clients)
        .map(|_| {
            let server = server.clone();
            let upstream = service_fn(move |(): ()| server.clone().answer());
            builder().build().unwrap().layer(upstream)
        })
        .collect();
    let (mut draws, mut at) = (Draws(0x9E37_79B9_7F4A_7C15), Instant::now());
    let mut calls = JoinSet::new();
    for _ in 0..count {
        at += draws.pause();
        sleep_until(at).await;
        let client = usize::try_from(draws.next() % clients).unwrap();
        let call = services[client].clone().oneshot(());
        calls.spawn(timeout(Duration::from_millis(100), call));
    }
    let answered = calls.join_all().await;
    let good = answered.iter().filter(|answer| answer.is_ok()).count();
    let share = |part: usize| f64::from(u32::try_from(part).unwrap()) / f64::from(count);
    (share(good), share(server.calls.load(Ordering::Relaxed)))
}

fn hedge() -> Builder {
    HedgeLayer::builder().protocol(Plain::new().idempotent())
}

#[tokio::test(start_paused = true)]
async fn hedges_by_default_do_no_harm_to_a_healthy_server() {
    for clients in [50, 1000] {
        let (answered, sent) = drill(clients, hedge).await;
        assert!(answered >= 0.985, "{clients}: {answered}, {sent} sent");
        assert!(sent < 1.05, "{clients}: {answered}, {sent} sent");
    }
}

#[tokio::test(start_paused = true)]
async fn stored_tokens_are_what_harms_it() {
    let budget = |store, ratio| move || hedge().budget(RetryBudget::new(store, ratio).unwrap());
    // Though hedging stops while most calls are late: each client has to see that for itself.
    let (many_stored, sent) = drill(1000, budget(10, 0.02)).await;
    assert!(many_stored < 0.96 && sent > 1.05, "{many_stored}, {sent}");
    let (high_ratio, sent) = drill(1000, budget(1, 0.1)).await;
    assert!(high_ratio >= 0.985, "{high_ratio}, {sent}");
}
