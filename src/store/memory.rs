//! A store within the process, with the faults of a network.

use std::{
    collections::HashMap,
    future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    algorithm::Prepaid,
    ambient::{
        chance::{GOLDEN, scrambled},
        clock::Clock,
    },
    store::{Ask, Grant, Store, StoreError},
};

/// A store in memory, for tests and drills. It delays, loses and repeats messages by a seed, and
/// can be cut off.
///
/// A clone is the same link to the same store. [`link`](Self::link) makes the link of another
/// process: the units are shared, and it is cut off separately. It follows tokio's clock, so a test
/// on a paused clock drives it. A message that was sent arrives even if its sender no longer waits.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::store::Memory;
///
/// let (from, to) = (Duration::from_millis(1), Duration::from_millis(20));
/// let store = Memory::seeded(7).delay(from, to).loss(0.1);
/// let other = store.link();
/// other.cut_off(true); // a partition: this link alone
/// ```
#[derive(Debug, Clone)]
pub struct Memory {
    units: Arc<Units>,
    link: Arc<Link>,
    network: Network,
}

/// The state that all links share.
#[derive(Debug)]
struct Units {
    keys: Mutex<HashMap<Arc<str>, Prepaid>>,
    clock: Clock,
    seed: Mutex<u64>,
}

#[derive(Debug, Default)]
struct Link {
    /// Relaxed: a switch for tests.
    cut_off: AtomicBool,
    /// Relaxed, for the same reason.
    failing: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Network {
    /// The shortest and the longest delay of each direction, in nanoseconds.
    delay: (u64, u64),
    /// The shares of messages, from 0 to 1.
    loss: f64,
    repeat: f64,
}

/// The faults of one batch.
struct Fate {
    there: Duration,
    back: Duration,
    asks_lost: bool,
    answers_lost: bool,
    repeated: bool,
}

impl Memory {
    /// Makes a store that answers at once, and loses nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// Makes a store whose faults follow from a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let units = Units {
            keys: Mutex::default(),
            clock: Clock::start(),
            seed: Mutex::new(seed),
        };
        Self {
            units: Arc::new(units),
            link: Arc::default(),
            network: Network {
                delay: (0, 0),
                loss: 0.0,
                repeat: 0.0,
            },
        }
    }

    /// Delays each message, in both directions, by a time in this range. Default: none.
    #[must_use]
    pub fn delay(mut self, from: Duration, to: Duration) -> Self {
        let nanos = crate::ambient::clock::nanos;
        self.network.delay = (nanos(from), nanos(to.max(from)));
        self
    }

    /// Loses this share of the messages, from 0 to 1, in both directions. Default: none.
    #[must_use]
    pub fn loss(mut self, share: f64) -> Self {
        self.network.loss = share;
        self
    }

    /// Delivers this share of the batches twice, from 0 to 1. Default: none.
    #[must_use]
    pub fn repeat(mut self, share: f64) -> Self {
        self.network.repeat = share;
        self
    }

    /// Makes another process's link to the same units.
    #[must_use]
    pub fn link(&self) -> Self {
        Self {
            units: self.units.clone(),
            link: Arc::default(),
            network: self.network,
        }
    }

    /// Cuts off this link and its clones, or connects them. While cut off, nothing arrives and
    /// nothing answers.
    pub fn cut_off(&self, cut_off: bool) {
        self.link.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// Makes this link and its clones fail at once, like a port on which nothing listens.
    pub fn fail(&self, failing: bool) {
        self.link.failing.store(failing, Ordering::Relaxed);
    }

    /// Forgets all keys, like a server that starts empty. At most one burst of each is granted
    /// twice.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Forgets one key, like a server that evicts it.
    pub fn evict(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Returns the keys that it holds.
    #[must_use]
    pub fn keys(&self) -> Vec<Arc<str>> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Prepaid>> {
        // A panic leaves no key's state half changed: nothing in an exchange panics.
        self.units
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, asks: &[Ask]) -> Vec<Grant> {
        let now = START + self.units.clock.now() / 1000;
        let mut keys = self.lock();
        asks.iter()
            .map(|ask| ask.put_to(keys.entry(ask.key.clone()).or_default(), now))
            .collect()
    }

    /// Draws the faults in the order in which batches are sent.
    fn fate(&self) -> Fate {
        let mut seed = self
            .units
            .seed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut word = || {
            *seed = seed.wrapping_add(GOLDEN);
            scrambled(*seed)
        };
        let (from, to) = self.network.delay;
        let [there, back] = [word(), word()].map(|word| from + word % (to - from + 1));
        let [asks, answers, repeated] = [word(), word(), word()].map(share);
        Fate {
            there: Duration::from_nanos(there),
            back: Duration::from_nanos(back),
            asks_lost: asks < self.network.loss,
            answers_lost: answers < self.network.loss,
            repeated: repeated < self.network.repeat,
        }
    }

    fn is_cut_off(&self) -> bool {
        self.link.cut_off.load(Ordering::Relaxed)
    }

    async fn deliver(self, asks: Vec<Ask>, fate: Fate, answers: oneshot::Sender<Vec<Grant>>) {
        pause(fate.there).await;
        if fate.asks_lost || self.is_cut_off() {
            return;
        }
        let mut grants = self.answer(&asks);
        if fate.repeated {
            grants = self.answer(&asks);
        }
        pause(fate.back).await;
        if !(fate.answers_lost || self.is_cut_off()) {
            // Its sender may no longer wait.
            let _ = answers.send(grants);
        }
    }
}

impl Store for Memory {
    async fn exchange(&self, asks: &[Ask]) -> Vec<Result<Grant, StoreError>> {
        if self.link.failing.load(Ordering::Relaxed) {
            let failed = StoreError::new("the store in memory was told to fail");
            return asks.iter().map(|_| Err(failed.clone())).collect();
        }
        let (fate, (sender, answers)) = (self.fate(), oneshot::channel());
        // A task of its own: a sent message arrives even if its sender no longer waits.
        tokio::spawn(self.clone().deliver(asks.to_vec(), fate, sender));
        match answers.await {
            Ok(grants) => grants.into_iter().map(Ok).collect(),
            // Lost: no answer ever arrives.
            Err(_) => future::pending().await,
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Returns a number from 0 to 1, exclusive.
fn share(word: u64) -> f64 {
    let high = u32::try_from(word >> 32).unwrap_or(u32::MAX);
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

/// The start of time in microseconds: as far from 0 as a real server's.
const START: u64 = 1_700_000_000_000_000;
