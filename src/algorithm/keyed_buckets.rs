//! A token bucket for each key, in memory that never grows.
//!
//! A map that keeps an entry for each key it has seen is a gift to whoever can invent keys. A
//! bounded cache that evicts the least recently used is worse: a flood of new keys evicts those in
//! debt, and so resets their limits. But a bucket that is full again is as good as new, so
//! forgetting *it* loses nothing. Hence the table:
//!
//! - A key has two buckets of four slots, by its hash. A slot is a fingerprint (the hash) and a
//!   theoretical arrival time (TAT, see the [token bucket](super::token_bucket)), 16 bytes.
//! - A slot whose TAT has passed may be taken over. One that is in debt never is.
//! - A key that finds all its eight slots in debt overflows: by default to one of a few cells that
//!   strangers share.
//!
//! **Taking over.** The thief marks the slot as leaving (`print` keeps the old key), then writes
//! the TAT back to itself if it is still idle, then puts its own key in. An admission writes the
//! TAT, then reads `print` again. The two writes of the TAT have an order. If the admission was
//! first, the thief finds a debt and restores the owner; if the thief was, the admission finds the
//! slot leaving, undoes and looks again. **Moving in.** Two threads with the same new key may each
//! choose another slot. A slot is first taken tentatively; whoever then sees the key elsewhere too
//! goes back, and of two that both have written before they looked, at least one does see.
//!
//! **Guarantee.** Each key keeps its own limit exactly while it has a slot; keys share a limit only
//! if their 62-bit hashes are the same, or by overflow. While a key is being moved it overflows
//! too, if it is looked for in vain a hundred times: only a thread that was stopped between two
//! steps takes so long. Then it is denied ([`Overflow::Reject`]) or has the shared limit for that
//! time, on top of its own (else, and even with [`Overflow::Allow`]). **Cost.** Two cache lines at
//! most, and what a token bucket costs.

use std::{convert::Infallible, time::Duration};

use crate::{
    algorithm::{
        OverLimit, Rate,
        token_bucket::{
            quota::{Pace, Quota, Scale},
            tat::{Change, Tat},
        },
    },
    config::ConfigError,
    sync::{AtomicU64, Ordering, fence},
};

#[cfg(all(test, keep_loom))]
mod loom_model;
#[cfg(all(test, not(keep_loom)))]
mod tests;

/// Token buckets by key, all of one rate and burst. A key is given as its hash, which should be
/// seeded, and all of whose bits should depend on all of the key: an attacker who could choose
/// hashes could choose whom to share slots with.
///
/// ```
/// use tower_keep::algorithm::{KeyedBuckets, Overflow, Rate};
///
/// let tenants = KeyedBuckets::new(Rate::per_second(10), 2, 1000, Overflow::Shared)?;
/// let (alice, bob, now) = (0x8a5c_d789_635d_2dff, 0x1d72_1ff0_9a3e_44cd, 0);
/// assert!(tenants.acquire(alice, 2, now).is_ok());
/// assert!(tenants.acquire(alice, 1, now).is_err());
/// assert!(tenants.acquire(bob, 1, now).is_ok());
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct KeyedBuckets {
    quota: Quota,
    /// A power of two.
    buckets: Box<[Bucket]>,
    shared: Box<[Tat]>,
    /// The latest `now` that an eviction was decided by, and so the time as of which a key without
    /// a slot has a full bucket. A thread whose `now` is older would else let the key earn the time
    /// in between twice.
    evicted: AtomicU64,
    overflow: Overflow,
}

/// What becomes of a new key when all the slots it could use are in debt. Those that have slots
/// keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// It shares one of 64 limits, each that of one key, with other newcomers: a flood may deny
    /// them falsely, and gains nothing.
    #[default]
    Shared,
    /// It is denied until a slot is free, for about as long as one unit takes.
    Reject,
    /// It is admitted without a limit: for limits that are a courtesy. Keys that have slots are
    /// never without.
    Allow,
}

/// One cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket([Slot; SLOTS]);

#[derive(Debug)]
struct Slot {
    /// `hash:62 | state:2`; 0 while it has never been used. Acquire and Release pair an eviction's
    /// steps with the admission's second look at it, by way of the TAT.
    print: AtomicU64,
    tat: Tat,
}

impl KeyedBuckets {
    /// Room for `keys` that are in debt at once, at 16 to 40 bytes each.
    ///
    /// # Errors
    /// What [`TokenBucket::new`](super::TokenBucket::new) refuses; room for no key, for more than
    /// 2^28, or for more than there is memory.
    pub fn new(
        rate: Rate,
        burst: u32,
        keys: usize,
        overflow: Overflow,
    ) -> Result<Self, ConfigError> {
        let refused = |fix| Err(ConfigError::new("max_keys", keys, fix));
        if keys == 0 {
            return refused("make room for the keys that are active at once; 100 000 take 4 MiB");
        }
        if keys > 1 << 28 {
            return refused(
                "make room for 268 million at most, which take 8 GiB, and let the others overflow",
            );
        }
        // A quarter more than asked for: the slots do not fill evenly.
        let buckets = (keys + keys / 4).div_ceil(SLOTS).next_power_of_two().max(2);
        let mut table = Vec::new();
        if table.try_reserve_exact(buckets).is_err() {
            return refused("make room for fewer: there is not so much memory");
        }
        let slot = |_| Slot {
            print: AtomicU64::new(0),
            tat: Tat::full(),
        };
        table.resize_with(buckets, || Bucket(std::array::from_fn(slot)));
        Ok(Self {
            quota: Quota::new(rate, burst)?,
            buckets: table.into(),
            shared: (0..SHARED).map(|_| Tat::full()).collect(),
            evicted: AtomicU64::new(0),
            overflow,
        })
    }

    /// Takes `cost` units of the key's own limit, or none.
    ///
    /// # Errors
    /// [`OverLimit`], and when to come back.
    #[inline]
    pub fn acquire(&self, hash: u64, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.acquire_late(hash, cost, now, now)
    }

    /// Takes `cost` units for a caller whose turn was at `due`, and who has waited and was woken a
    /// little late: see [`Limit::acquire_late`](super::Limit::acquire_late).
    ///
    /// # Errors
    /// [`OverLimit`]: another call has come first.
    pub fn acquire_late(&self, hash: u64, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        let pace = self.quota.pace();
        match self.step(hash, now, |tat, now| tat.take_late(pace, cost, due, now)) {
            Ok(decision) => decision.map(|_| ()),
            Err(homeless) => self.overflow(homeless, hash, pace, cost, now),
        }
    }

    /// Gives back units that a key acquired and did not use. Those of an overflow are not given
    /// back.
    pub fn refund(&self, hash: u64, cost: u32, now: u64) {
        let key = hash & !STATES | RESIDENT;
        if let Found::Resident(slot) = self.find(key) {
            let owned = || {
                // Pairs with the admission that wrote the TAT just read: if it was another key's,
                // the look that follows finds that key's print, and its debt is not reduced.
                fence(Ordering::Acquire);
                slot.print.load(Ordering::Acquire) == key
            };
            slot.tat.refund_if(self.quota.pace(), cost, now, owned);
        }
    }

    /// How many units of its limit a key could take now; one in the overflow, of the limit that it
    /// shares.
    #[must_use]
    pub fn available(&self, hash: u64, now: u64) -> u32 {
        let pace = self.quota.pace();
        let free = pace.capacity.saturating_sub(self.ahead(hash, pace, now)) / pace.interval;
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// How long until a key could take so many units, one after the other, if nobody else does.
    #[must_use]
    pub fn wait(&self, hash: u64, units: u64, now: u64) -> Duration {
        let pace = self.quota.pace();
        let ahead = self
            .ahead(hash, pace, now)
            .saturating_add(units.saturating_mul(pace.interval));
        Duration::from_nanos(pace.scale.nanos(ahead.saturating_sub(pace.capacity)))
    }

    /// How much in how long, for each key.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.quota.pace().rate()
    }

    /// The most that each key can take at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.quota.pace().burst
    }

    /// Takes units that a key has used already, whether or not they fit: a debt that its later
    /// calls wait for. A key in the overflow puts it on the limit that it shares, if it shares one.
    pub fn charge(&self, hash: u64, cost: u32, now: u64) {
        let pace = self.quota.pace();
        self.burden(hash, now, |tat, now| tat.charge(pace, cost, now));
    }

    /// Admits nothing of a key before `until`. A key in the overflow closes the limit that it
    /// shares, if it shares one.
    pub fn close_until(&self, hash: u64, until: u64, now: u64) {
        let pace = self.quota.pace();
        self.burden(hash, now, |tat, now| tat.close_until(pace, until, now));
    }

    /// Changes rate and burst for all keys in one step. What they have used stays used.
    ///
    /// # Errors
    /// What [`new`](Self::new) refuses.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.quota.update(rate, burst)
    }

    /// How many keys have used some of their burst. Walks the whole table.
    #[must_use]
    pub fn indebted(&self, now: u64) -> usize {
        let scale = self.quota.scale();
        self.buckets
            .iter()
            .flat_map(|bucket| &bucket.0)
            .filter(|slot| slot.tat.ahead(scale, now) > 0)
            .count()
    }

    /// The memory that it takes, from beginning to end.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + size_of_val(&*self.shared)
    }

    /// How far ahead of `now` the TAT lies that the key would be counted by.
    fn ahead(&self, hash: u64, pace: Pace, now: u64) -> u64 {
        let key = hash & !STATES | RESIDENT;
        match (self.find(key), self.overflow) {
            (Found::Resident(slot), _) => slot.tat.ahead(pace.scale, now),
            _ if self
                .slots(key)
                .any(|slot| slot.tat.ahead(pace.scale, now) == 0) =>
            {
                0
            }
            (_, Overflow::Shared) => self.shared(hash).ahead(pace.scale, now),
            (_, Overflow::Reject) => pace.capacity,
            (_, Overflow::Allow) => 0,
        }
    }

    /// Changes the key's own bucket, after giving it one if it has none.
    fn step<E>(
        &self,
        hash: u64,
        now: u64,
        change: impl Fn(&Tat, u64) -> Result<Change, E>,
    ) -> Result<Result<Change, E>, Homeless> {
        let (key, mut now) = (hash & !STATES | RESIDENT, now);
        for _ in 0..ATTEMPTS {
            match self.find(key) {
                Found::Resident(slot) => {
                    let changed = change(&slot.tat, now);
                    if slot.print.load(Ordering::Acquire) == key {
                        return Ok(changed);
                    }
                    // Being evicted since: what was taken would be lost with it, and a denial may
                    // be another key's.
                    if let Ok(change) = changed {
                        slot.tat.undo(change);
                    }
                }
                // Another thread is between two steps with it.
                Found::Moving => std::hint::spin_loop(),
                // If the key was evicted, its bucket was full by then, and not earlier.
                Found::Nowhere if self.move_in(key, now) => {
                    now = now.max(self.evicted.load(Ordering::Relaxed));
                }
                Found::Nowhere => return Err(Homeless::Full),
            }
        }
        Err(Homeless::Moving)
    }

    fn burden(&self, hash: u64, now: u64, change: impl Fn(&Tat, u64) -> Change) {
        let changed = self.step(hash, now, |tat, now| Ok::<_, Infallible>(change(tat, now)));
        if changed.is_err_and(|homeless| self.shares(homeless)) {
            change(self.shared(hash), now);
        }
    }

    fn find(&self, key: u64) -> Found<'_> {
        let mut found = Found::Nowhere;
        for slot in self.slots(key) {
            let print = slot.print.load(Ordering::Acquire);
            if print == key {
                return Found::Resident(slot);
            }
            if print & !STATES == key & !STATES && print & STATES != 0 {
                found = Found::Moving;
            }
        }
        found
    }

    /// Gives the key a slot, if one of its eight is idle, unless another thread does so too.
    /// Returns whether to look again.
    fn move_in(&self, key: u64, now: u64) -> bool {
        let tentative = key & !STATES | TENTATIVE;
        let Some(slot) = self
            .slots(key)
            .find(|slot| slot.clear(tentative, &self.evicted, self.quota.scale(), now))
        else {
            return false;
        };
        // Between this thread's write of its slot and its look at the others; the same in the other
        // thread. Without it both could look before either write is seen, and the key would have
        // two limits.
        fence(Ordering::SeqCst);
        let elsewhere = self.slots(key).any(|other| {
            !std::ptr::eq(other, slot) && {
                let print = other.print.load(Ordering::Acquire);
                print & !STATES == key & !STATES && print & STATES != 0
            }
        });
        // Whoever finds the key here before this thread takes anything may have an older time, and
        // would count from that.
        let evicted = self.evicted.load(Ordering::Relaxed);
        slot.tat.full_since(self.quota.scale(), evicted);
        // Nobody else changes a tentative slot.
        slot.print
            .store(if elsewhere { 0 } else { key }, Ordering::Release);
        true
    }

    fn overflow(
        &self,
        homeless: Homeless,
        hash: u64,
        pace: Pace,
        cost: u32,
        now: u64,
    ) -> Result<(), OverLimit> {
        match self.overflow {
            _ if self.shares(homeless) => self.shared(hash).acquire(pace, cost, now),
            Overflow::Allow => Ok(()),
            _ => Err(OverLimit::until(pace.scale.nanos(pace.interval))),
        }
    }

    /// Whether it uses one of the shared limits. If newcomers are let through without a limit, one
    /// that has or gets a slot does: the thread that moves it may be stopped for long.
    fn shares(&self, homeless: Homeless) -> bool {
        match self.overflow {
            Overflow::Shared => true,
            Overflow::Reject => false,
            Overflow::Allow => matches!(homeless, Homeless::Moving),
        }
    }

    fn shared(&self, hash: u64) -> &Tat {
        &self.shared[index(hash >> 40, self.shared.len())]
    }

    /// The slots that a key may have, in its own order: two buckets, by independent bits of the
    /// hash.
    fn slots(&self, key: u64) -> impl Iterator<Item = &Slot> {
        let first = index(key >> 2, self.buckets.len());
        // Never the same: an odd distance, in a table of at least two.
        let second = index((first as u64) ^ (key >> 33 | 1), self.buckets.len());
        self.buckets[first].0.iter().chain(&self.buckets[second].0)
    }
}

/// Why a key has no slot of its own.
#[derive(Debug, Clone, Copy)]
enum Homeless {
    /// All that it could have are in debt.
    Full,
    /// Another thread was moving it each time it was looked for.
    Moving,
}

enum Found<'a> {
    Resident(&'a Slot),
    /// It moves in or out.
    Moving,
    Nowhere,
}

impl Slot {
    /// Puts a tentative key in place of one that is not in debt, or of none.
    fn clear(&self, tentative: u64, evicted: &AtomicU64, scale: Scale, now: u64) -> bool {
        let old = self.print.load(Ordering::Acquire);
        let (leaving, unused) = (old & !STATES | LEAVING, old == 0);
        if !(unused || old & STATES == RESIDENT) || self.tat.ahead(scale, now) > 0 {
            return false;
        }
        // The loser leaves the slot to the winner and goes on to the next.
        if self
            .print
            .compare_exchange(old, leaving, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        let idle = self.tat.confirm_idle(scale, now);
        if idle && !unused {
            // Relaxed: the store of `print` that follows publishes it to whoever finds the old key
            // gone.
            evicted.fetch_max(now, Ordering::Relaxed);
        }
        // Nobody else changes a leaving slot.
        self.print
            .store(if idle { tentative } else { old }, Ordering::Release);
        idle
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "below the length, which is a power of two"
)]
fn index(hash: u64, length: usize) -> usize {
    hash as usize & (length - 1)
}

const SLOTS: usize = 4;
const SHARED: usize = 64;
/// How often to look before taking the overflow: so many times another thread was just moving this
/// key. Few under loom, which tries every interleaving of each.
const ATTEMPTS: usize = if cfg!(keep_loom) { 2 } else { 100 };
const STATES: u64 = 3;
const RESIDENT: u64 = 1;
const TENTATIVE: u64 = 2;
const LEAVING: u64 = 3;
