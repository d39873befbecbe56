//! One key of a limit that processes share, as this process knows it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    ConfigError,
    algorithm::{Lease, Rate, TokenBucket, prepaid::Terms},
    rate_limit::{
        fleet::{Outage, book::Book},
        key_hash::KeyHash,
    },
};

/// One key: its lease, and the units that calls have found missing. Some 600 bytes.
///
/// Apart from the lease, it is written only by calls that find too few units, and by the asking
/// task.
#[derive(Debug)]
pub(in crate::rate_limit) struct Entry {
    pub(super) lease: Lease,
    pub(super) key: Arc<str>,
    /// The hash of its queue.
    pub(super) hash: KeyHash,
    pub(super) quotas: Arc<Quotas>,
    pub(super) missing: Missing,
    /// Units that were used without a lease and that the store does not know yet. `SeqCst`, for the
    /// same reason as `is_listed`.
    pub(super) debt: AtomicU64,
    /// No call is admitted before this moment. Relaxed, as the next four: a call that misses a
    /// change is concurrent with it.
    pub(super) closed_until: AtomicU64,
    /// No ask is useful before this moment.
    pub(super) quiet_until: AtomicU64,
    /// The store's room at its last answer, and the time of that answer.
    pub(super) room: AtomicU32,
    pub(super) heard_at: AtomicU64,
    /// If true, the store has failed for this key.
    pub(super) is_down: AtomicBool,
    /// If true, the store has to forget what was used.
    pub(super) reset: AtomicBool,
    /// True while the asking task has the key. `SeqCst`, as are the counts of missing units. A call
    /// adds to the counts and then reads this flag. The task clears this flag and then reads the
    /// counts. In the total order one of the two sees the other.
    pub(super) is_listed: AtomicBool,
    /// The choice of what calls find while the store is down.
    pub(super) outage: Outage,
    /// This process's own limit while the store is down.
    pub(super) local: Option<Box<TokenBucket>>,
    /// Locked by the asking task. Only a handle may wait for it.
    book: Mutex<Book>,
    granted: OnceLock<Weak<dyn Granted>>,
}

/// Units that calls have found missing since the last check of the asking task.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Units of calls that arrived and found too few.
    pub(super) blocked: AtomicU64,
    /// Units of all waiters, as of the last waiter that computed its wait.
    pub(super) needed: AtomicU64,
    /// The cost of the dearest call of both.
    pub(super) least: AtomicU32,
}

/// The gate that is notified of granted units: its queue's head may be admitted.
pub(in crate::rate_limit) trait Granted: Send + Sync {
    fn granted(&self, hash: KeyHash);
}

/// A rate and burst that several keys share.
#[derive(Debug)]
pub(in crate::rate_limit) struct Quotas(Mutex<Quota>);

#[derive(Debug, Clone, Copy)]
pub(in crate::rate_limit) struct Quota {
    pub(super) terms: Terms,
    pub(in crate::rate_limit) rate: Rate,
    pub(in crate::rate_limit) burst: u32,
}

impl Quotas {
    pub(in crate::rate_limit) fn new(rate: Rate, burst: u32) -> Result<Self, ConfigError> {
        Ok(Self(Mutex::new(Quota::new(rate, burst)?)))
    }

    pub(in crate::rate_limit) fn get(&self) -> Quota {
        *self.lock()
    }

    pub(super) fn set(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        let quota = Quota::new(rate, burst)?;
        *self.lock() = quota;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Quota> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quota {
    fn new(rate: Rate, burst: u32) -> Result<Self, ConfigError> {
        let terms = Terms::new(rate, burst)?;
        Ok(Self { terms, rate, burst })
    }

    /// Returns the time that units take, in nanoseconds.
    pub(super) fn span(&self, units: u64) -> u64 {
        let (count, period) = self.terms.ratio();
        let micros = u128::from(units) * u128::from(period) / u128::from(count);
        u64::try_from(micros * 1000).unwrap_or(u64::MAX)
    }
}

impl Entry {
    pub(super) fn new(
        key: Arc<str>,
        hash: KeyHash,
        quotas: Arc<Quotas>,
        outage: Outage,
        now: u64,
    ) -> Result<Self, ConfigError> {
        let quota = quotas.get();
        Ok(Self {
            lease: Lease::new(),
            key,
            hash,
            missing: Missing::default(),
            debt: AtomicU64::new(0),
            closed_until: AtomicU64::new(0),
            quiet_until: AtomicU64::new(0),
            room: AtomicU32::new(0),
            heard_at: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            is_listed: AtomicBool::new(false),
            outage,
            local: outage.local(quota.rate, quota.burst)?.map(Box::new),
            book: Mutex::new(Book::new(now)),
            granted: OnceLock::new(),
            quotas,
        })
    }

    /// Sets the gate that is notified of granted units. Only the first call has an effect.
    pub(in crate::rate_limit) fn on_grant(&self, granted: Weak<dyn Granted>) {
        let _ = self.granted.set(granted);
    }

    pub(super) fn granted(&self) {
        if let Some(gate) = self.granted.get().and_then(Weak::upgrade) {
            gate.granted(self.hash);
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the missing units. A call that has just arrived adds its units to `blocked`. A
    /// waiter that computes its wait reports in `needed` its units and all before it.
    pub(super) fn lacks(&self, cost: u32, blocked: u32, needed: u64) {
        let Missing {
            blocked: all,
            needed: most,
            least,
        } = &self.missing;
        all.fetch_add(u64::from(blocked), Ordering::SeqCst);
        most.fetch_max(needed, Ordering::SeqCst);
        least.fetch_max(cost, Ordering::SeqCst);
    }

    /// Takes the units that waiters need, and forgets the dearest cost.
    pub(super) fn take_needed(&self) -> u64 {
        self.missing.least.store(0, Ordering::SeqCst);
        self.missing.needed.swap(0, Ordering::SeqCst)
    }

    pub(super) fn is_lacking(&self) -> bool {
        self.missing.blocked.load(Ordering::SeqCst) > 0
            || self.missing.needed.load(Ordering::SeqCst) > 0
            || self.debt.load(Ordering::SeqCst) > 0
            || self.reset.load(Ordering::SeqCst)
    }

    /// Returns whether a new entry in its place would decide the same.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.lease.units(now) == 0
            && !self.is_lacking()
            && !self.is_listed.load(Ordering::SeqCst)
            && self.closed_until.load(Ordering::Relaxed) <= now
    }

    /// Estimates the units that the store would grant by now. The whole capacity, if it was never
    /// asked.
    pub(super) fn room(&self, quota: &Quota, now: u64) -> u32 {
        let heard_at = self.heard_at.load(Ordering::Relaxed);
        let since = Duration::from_nanos(now.saturating_sub(heard_at)).as_micros();
        let since = u64::try_from(since)
            .unwrap_or(u64::MAX)
            .min(quota.terms.capacity());
        let most = quota.terms.units_in(quota.terms.capacity());
        if heard_at == 0 {
            return most;
        }
        let room = self.room.load(Ordering::Relaxed);
        room.saturating_add(quota.terms.units_in(since)).min(most)
    }
}
