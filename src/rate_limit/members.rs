//! A limit divided by the number of processes, without a store.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    ConfigError,
    algorithm::{Limit, OverLimit, Rate, TokenBucket},
    rate_limit::one_second_of,
};

/// A process's part of a limit: the whole divided by the number of members. Made by
/// [`Rate::shared_by`].
#[derive(Debug)]
pub struct SharedRate {
    bucket: TokenBucket,
    members: watch::Receiver<usize>,
    /// The time of the last read of the number of members. Relaxed: it is read again a millisecond
    /// later.
    read_at: AtomicU64,
    /// Locked to change the part, at most once a millisecond.
    part: Mutex<MemberPart>,
}

#[derive(Debug, Clone, Copy)]
struct MemberPart {
    rate: Rate,
    burst: u32,
    members: u32,
}

impl Rate {
    /// Divides the rate by the number of processes. `members` holds that number, from a membership
    /// protocol or another source that knows how many replicas run. A fleet then needs no store.
    ///
    /// In any window of `t`, all processes together admit at most `burst + rate * t`. That holds
    /// while all know the same number, and if the burst is at least as large as that number. A
    /// process with more traffic than others gets no larger part. A change is seen within a
    /// millisecond. 0 counts as 1, and once the sender is dropped, the last number stays. The burst
    /// is one second's worth of the whole rate, unless [set](SharedRate::burst).
    ///
    /// ```
    /// use tokio::sync::watch;
    /// use tower_keep::rate_limit::{Rate, RateLimitLayer};
    ///
    /// let (replicas, members) = watch::channel(4);
    /// let limit = RateLimitLayer::with(Rate::per_minute(6000).shared_by(members)?).build()?;
    /// assert_eq!(limit.handle().snapshot().rate, Rate::per_second(25));
    /// # replicas.send(2).unwrap();
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`TokenBucket::new`](crate::algorithm::TokenBucket::new) for the part.
    pub fn shared_by(self, members: watch::Receiver<usize>) -> Result<SharedRate, ConfigError> {
        SharedRate::new(self, one_second_of(self), members)
    }
}

impl SharedRate {
    fn new(rate: Rate, burst: u32, members: watch::Receiver<usize>) -> Result<Self, ConfigError> {
        // Also checks the whole. Without this, a later part with other numbers could be rejected.
        TokenBucket::new(rate, burst)?;
        let part = MemberPart {
            rate,
            burst,
            members: count(&members),
        };
        let (own, own_burst) = part.own();
        Ok(Self {
            bucket: TokenBucket::new(own, own_burst)?,
            members,
            read_at: AtomicU64::new(0),
            part: Mutex::new(part),
        })
    }

    /// Sets the burst of the whole. This process gets its part of it, at least one unit.
    ///
    /// # Errors
    /// The errors of [`TokenBucket::new`](crate::algorithm::TokenBucket::new).
    pub fn burst(self, burst: u32) -> Result<Self, ConfigError> {
        let rate = self.part().rate;
        Self::new(rate, burst, self.members)
    }

    /// Returns the bucket. First reads the number of members again, if the last read is a
    /// millisecond old.
    #[inline]
    fn bucket(&self, now: u64) -> &TokenBucket {
        if now.saturating_sub(self.read_at.load(Ordering::Relaxed)) >= AGAIN {
            self.read(now);
        }
        &self.bucket
    }

    #[cold]
    fn read(&self, now: u64) {
        self.read_at.store(now, Ordering::Relaxed);
        let members = count(&self.members);
        let mut part = self.part();
        if part.members != members {
            part.members = members;
            let (rate, burst) = part.own();
            // If the new part is too small for a token bucket, the last one stays.
            let _ = self.bucket.update(rate, burst);
        }
    }

    fn part(&self) -> std::sync::MutexGuard<'_, MemberPart> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemberPart {
    fn own(&self) -> (Rate, u32) {
        let per = self.rate.per().saturating_mul(self.members);
        let burst = (self.burst / self.members).max(1);
        (Rate::new(self.rate.count(), per), burst)
    }
}

fn count(members: &watch::Receiver<usize>) -> u32 {
    u32::try_from(*members.borrow()).unwrap_or(u32::MAX).max(1)
}

impl Limit for SharedRate {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.bucket(now).acquire(cost, now)
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        self.bucket(now).acquire_late(cost, due, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.bucket(now).wait(units, now)
    }

    fn refund(&self, cost: u32, now: u64) {
        self.bucket(now).refund(cost, now);
    }

    fn charge(&self, cost: u32, now: u64) {
        self.bucket(now).charge(cost, now);
    }

    fn close_until(&self, until: u64, now: u64) {
        self.bucket(now).close_until(until, now);
    }

    fn reset(&self, now: u64) {
        self.bucket(now).reset(now);
    }

    fn available(&self, now: u64) -> u32 {
        self.bucket(now).available(now)
    }

    /// Returns the burst of this process's part.
    fn burst(&self) -> u32 {
        self.bucket.burst()
    }

    /// Returns the rate of this process's part.
    fn rate(&self) -> Rate {
        self.bucket.rate()
    }

    fn begin(&self, at: u64) -> u64 {
        self.bucket.begin(at)
    }

    /// Changes the whole. Each process gets its part of it.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        TokenBucket::new(rate, burst)?;
        let mut part = self.part();
        let next = MemberPart {
            rate,
            burst,
            ..*part
        };
        let (own, own_burst) = next.own();
        self.bucket.update(own, own_burst)?;
        *part = next;
        Ok(())
    }
}

/// The time until the number of members is read again, in nanoseconds.
const AGAIN: u64 = 1_000_000;
