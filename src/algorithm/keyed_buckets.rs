//! A token bucket for each key, in memory that never grows.
//!
//! A map that keeps an entry for each key it has seen grows without bound under clients that invent
//! keys. A bounded cache that evicts the least recently used key is worse: a flood of new keys
//! evicts those in debt, and so resets their limits. But a bucket that is full again equals a fresh
//! one, so evicting *it* loses nothing. Hence the table:
//!
//! - A key has two buckets of four slots, by its hash. A slot is a fingerprint (the hash) and a
//!   theoretical arrival time (TAT, see the [token bucket](super::token_bucket)), 16 bytes.
//! - A slot whose TAT has passed may be taken over. A slot in debt never is.
//! - A key that finds all its eight slots in debt overflows: by default to one of a few cells that
//!   new keys share.
//!
//! **Taking over.** The thread that moves a key in marks the slot as leaving, while `print` keeps
//! the old key. It then writes the TAT back unchanged if the slot is still idle, and then stores
//! its own key. An admission writes the TAT, then reads `print` again. The two writes of the TAT
//! have an order. If the admission was first, the mover finds a debt and restores the owner. If it
//! was second, the admission finds the slot leaving, undoes its write and looks the key up again.
//!
//! **Moving in.** Two threads with the same new key may each choose another slot, so a slot is
//! first taken tentatively. A thread that then finds the key in another slot too withdraws. If both
//! wrote before they searched, at least one of them finds the other's slot.
//!
//! **Guarantee.** Each key keeps its own limit exactly while it has a slot. Keys share a limit only
//! if their 62-bit hashes are equal, or in the overflow. A key that is being moved overflows too,
//! if it is looked up in vain a hundred times: only a thread that was stopped between two steps
//! takes so long. For that time the key is rejected ([`Overflow::Reject`]), or it has the shared
//! limit on top of its own (otherwise, even with [`Overflow::Allow`]).
//!
//! **Cost.** Two cache lines at most, and the cost of a token bucket.

use std::{convert::Infallible, time::Duration};

use crate::{
    algorithm::{
        OverLimit, Rate,
        keyed_buckets::slots::{Found, Slots, index, resident},
        token_bucket::{
            narrow,
            quota::{AtomicQuota, Pace},
            tat::{Tat, TatChange},
        },
    },
    config::ConfigError,
    sync::Ordering,
};

#[cfg(all(test, keep_loom))]
mod loom_model;
mod slots;
#[cfg(all(test, not(keep_loom)))]
mod tests;

/// Token buckets by key, all with one rate and burst. A key is given as its hash. Seed the hash,
/// and let all its bits depend on the whole key: an attacker able to choose hashes could choose
/// which keys to share slots with.
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
    quota: AtomicQuota,
    slots: Slots,
    shared: Box<[Tat]>,
    overflow: Overflow,
}

/// The treatment of a new key when all the slots it could use are in debt. Keys that have slots
/// keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Overflow {
    /// The key shares one of 64 limits with other new keys. Each has the rate and burst of one key.
    /// A flood of keys may cause false rejections here, but gains nothing.
    #[default]
    Shared,
    /// The key is rejected until a slot is free. The rejection names the time of one unit as the
    /// wait.
    Reject,
    /// The key is admitted without a limit, for limits that are a courtesy. Keys that have slots
    /// keep their limits.
    Allow,
}

impl KeyedBuckets {
    /// Creates a table with room for `keys` keys in debt at once, at 20 to 40 bytes each.
    ///
    /// # Errors
    /// The errors of [`TokenBucket::new`](super::TokenBucket::new), and room for no key, for more
    /// than 2^28, or for more than fit in memory.
    pub fn new(
        rate: Rate,
        burst: u32,
        keys: usize,
        overflow: Overflow,
    ) -> Result<Self, ConfigError> {
        let refused = |fix| Err(ConfigError::new("max_keys", keys, fix));
        if keys == 0 {
            return refused("make room for the keys that are active at once; 100 000 take 2 MiB");
        }
        if keys > 1 << 28 {
            return refused(
                "make room for 268 million at most, which take 8 GiB, and let the others overflow",
            );
        }
        let Some(slots) = Slots::new(keys) else {
            return refused("make room for fewer: there is not so much memory");
        };
        Ok(Self {
            quota: AtomicQuota::new(rate, burst)?,
            slots,
            shared: (0..SHARED).map(|_| Tat::full()).collect(),
            overflow,
        })
    }

    /// Takes `cost` units of the key's own limit, or none.
    ///
    /// # Errors
    /// [`OverLimit`], with the time until the call fits.
    #[inline]
    pub fn acquire(&self, hash: u64, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.acquire_late(hash, cost, now, now)
    }

    /// Takes `cost` units for a waiter that was due at `due`, and was woken a little late: see
    /// [`Limit::acquire_late`](super::Limit::acquire_late).
    ///
    /// # Errors
    /// [`OverLimit`] if another call has come first.
    pub fn acquire_late(&self, hash: u64, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        if cost == 0 {
            return Ok(());
        }
        let pace = self.quota.pace();
        match self.step(hash, now, |tat, now| {
            tat.take_late(pace, cost.into(), due, now)
        }) {
            Ok(decision) => decision.map(|_| ()),
            Err(why) => self.overflow(why, hash, pace, cost, now),
        }
    }

    /// Gives back units that a key acquired and did not use. Units from the overflow are not given
    /// back.
    pub fn refund(&self, hash: u64, cost: u32, now: u64) {
        let key = resident(hash);
        if let Found::Resident(slot) = self.slots.find(key) {
            slot.tat
                .refund_if(self.quota.pace(), cost.into(), now, || slot.holds(key));
        }
    }

    /// Returns how many units a key could take now. For a key in the overflow, these are the units
    /// of the limit that it shares.
    #[must_use]
    pub fn available(&self, hash: u64, now: u64) -> u32 {
        let pace = self.quota.pace();
        let free = pace.capacity.saturating_sub(self.ahead(hash, pace, now)) / pace.interval;
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// Returns how long until a key could take so many units, one after the other, if no other call
    /// arrives.
    #[must_use]
    pub fn wait(&self, hash: u64, units: u64, now: u64) -> Duration {
        let pace = self.quota.pace();
        let ahead = self
            .ahead(hash, pace, now)
            .saturating_add(units.saturating_mul(pace.interval));
        Duration::from_nanos(pace.scale.nanos(ahead.saturating_sub(pace.capacity)))
    }

    /// Returns the rate of each key.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.quota.pace().rate()
    }

    /// Returns the most units that each key can take at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        narrow(self.quota.pace().burst)
    }

    /// Takes units that a key has used already, whether or not they fit. They may become a debt,
    /// which its later calls wait for. A key in the overflow charges the limit that it shares, if
    /// it shares one.
    pub fn charge(&self, hash: u64, cost: u32, now: u64) {
        let pace = self.quota.pace();
        self.burden(hash, now, |tat, now| tat.charge(pace, cost.into(), now));
    }

    /// Admits nothing for a key before `until`. A key in the overflow closes the limit that it
    /// shares, if it shares one.
    pub fn close_until(&self, hash: u64, until: u64, now: u64) {
        let pace = self.quota.pace();
        self.burden(hash, now, |tat, now| tat.close_until(pace, until, now));
    }

    /// Clears what a key has used, what it owes and until when it is closed. A key in the overflow
    /// has no state of its own to clear.
    pub fn reset(&self, hash: u64, now: u64) {
        let (key, scale) = (resident(hash), self.quota.scale());
        if let Found::Resident(slot) = self.slots.find(key) {
            slot.tat.reset_if(scale, now, || slot.holds(key));
        }
    }

    /// Changes rate and burst for all keys in one step. Used units stay used.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new) for the rate and the burst.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.quota.update(rate, burst)
    }

    /// Returns how many keys have used some of their burst. Walks the whole table.
    #[must_use]
    pub fn indebted(&self, now: u64) -> usize {
        let scale = self.quota.scale();
        self.slots
            .iter()
            .filter(|slot| slot.tat.ahead(scale, now) > 0)
            .count()
    }

    /// Returns how many keys have lost their slot to another key. None of them was in debt.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.slots.evictions()
    }

    /// Returns the memory of the table in bytes, all of it allocated at the start.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.bytes() + size_of_val(&*self.shared)
    }

    /// Returns how far ahead of `now` the TAT that counts for this key lies.
    fn ahead(&self, hash: u64, pace: Pace, now: u64) -> u64 {
        let key = resident(hash);
        match (self.slots.find(key), self.overflow) {
            (Found::Resident(slot), _) => slot.tat.ahead(pace.scale, now),
            _ if self
                .slots
                .of(key)
                .any(|slot| slot.tat.ahead(pace.scale, now) == 0) =>
            {
                0
            }
            (_, Overflow::Shared) => self.shared(hash).ahead(pace.scale, now),
            (_, Overflow::Reject) => pace.capacity,
            (_, Overflow::Allow) => 0,
        }
    }

    /// Changes the key's own bucket. A key without a bucket is given one first.
    fn step<E>(
        &self,
        hash: u64,
        now: u64,
        change: impl Fn(&Tat, u64) -> Result<TatChange, E>,
    ) -> Result<Result<TatChange, E>, NoSlot> {
        let (key, mut now) = (resident(hash), now);
        for _ in 0..ATTEMPTS {
            match self.slots.find(key) {
                Found::Resident(slot) => {
                    let changed = change(&slot.tat, now);
                    if slot.print.load(Ordering::Acquire) == key {
                        return Ok(changed);
                    }
                    // The key is being evicted: the units would be lost with it, and a rejection
                    // may be another key's.
                    if let Ok(change) = changed {
                        slot.tat.undo(change);
                    }
                }
                // Another thread is between two steps of moving it.
                Found::Moving => std::hint::spin_loop(),
                // If the key was evicted, its bucket was full at that moment, and not earlier.
                Found::Nowhere if self.slots.move_in(key, self.quota.scale(), now) => {
                    now = now.max(self.slots.evicted());
                }
                Found::Nowhere => return Err(NoSlot::Full),
            }
        }
        Err(NoSlot::Moving)
    }

    fn burden(&self, hash: u64, now: u64, change: impl Fn(&Tat, u64) -> TatChange) {
        let changed = self.step(hash, now, |tat, now| Ok::<_, Infallible>(change(tat, now)));
        if changed.is_err_and(|why| self.shares(why)) {
            change(self.shared(hash), now);
        }
    }

    fn overflow(
        &self,
        why: NoSlot,
        hash: u64,
        pace: Pace,
        cost: u32,
        now: u64,
    ) -> Result<(), OverLimit> {
        match self.overflow {
            _ if self.shares(why) => self.shared(hash).acquire(pace, cost.into(), now),
            Overflow::Allow => Ok(()),
            _ => Err(OverLimit::until(pace.scale.nanos(pace.interval))),
        }
    }

    /// Returns whether the key uses one of the shared limits. With [`Overflow::Allow`], a key that
    /// has or gets a slot does: the thread that moves it may be stopped for long.
    fn shares(&self, why: NoSlot) -> bool {
        match self.overflow {
            Overflow::Shared => true,
            Overflow::Reject => false,
            Overflow::Allow => matches!(why, NoSlot::Moving),
        }
    }

    fn shared(&self, hash: u64) -> &Tat {
        &self.shared[index(hash >> 40, self.shared.len())]
    }
}

/// The reason for which a key has no slot of its own.
#[derive(Debug, Clone, Copy)]
enum NoSlot {
    /// All slots that it could have are in debt.
    Full,
    /// Another thread was moving it at each lookup.
    Moving,
}

const SHARED: usize = 64;
/// The lookups before a key overflows: at each of them another thread was moving the key. Few under
/// loom, which tries every interleaving of each.
const ATTEMPTS: usize = if cfg!(keep_loom) { 2 } else { 100 };
