//! The keys of a limit that processes share: a bounded map.
//!
//! A limit of this process alone keeps one word for a key, and its table is allocated at once. A
//! key of a fleet has a lease, debts and a history of its rate, some 600 bytes. So its entry is
//! made at the key's first call, and the number of keys is bounded. A key is never evicted while it
//! has a live lease or a debt. Evicting an idle key loses nothing, because the store knows all
//! about it.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use papaya::{HashMap, ResizeMode};

use crate::{
    ConfigError,
    algorithm::{OverLimit, Overflow, Rate},
    ambient::chance::Hashing,
    rate_limit::{
        fleet::{Fleet, FleetLimit, Granted, Quotas},
        key_hash::{KeyHash, KeyHashing},
    },
};

#[derive(Debug)]
pub(in crate::rate_limit) struct Keys {
    fleet: Arc<Fleet>,
    quotas: Arc<Quotas>,
    map: HashMap<KeyHash, FleetLimit, Hashing>,
    max_keys: usize,
    overflow: Overflow,
    /// Locked to make room. Holds the time of the last attempt that found none. No user code runs
    /// while it is locked.
    crowded_at: Mutex<u64>,
    /// Relaxed: a statistic.
    evictions: AtomicU64,
    granted: OnceLock<Weak<dyn Granted>>,
}

impl Keys {
    pub(in crate::rate_limit) fn new(
        fleet: Arc<Fleet>,
        quotas: Quotas,
        max_keys: usize,
        overflow: Overflow,
    ) -> Result<Self, ConfigError> {
        if max_keys == 0 {
            let fix = "make room for the keys that are active at once; each takes some 600 bytes";
            return Err(ConfigError::new("max_keys", max_keys, fix));
        }
        let map = HashMap::builder()
            .hasher(Hashing::new())
            .resize_mode(ResizeMode::Blocking)
            .build();
        let keys = Self {
            fleet,
            quotas: Arc::new(quotas),
            map,
            max_keys,
            overflow,
            crowded_at: Mutex::new(0),
            evictions: AtomicU64::new(0),
            granted: OnceLock::new(),
        };
        // Checks the share of an outage too.
        keys.make(KeyHash::default())?;
        Ok(keys)
    }

    /// Sets the gate that is notified of granted units. Only the first call has an effect.
    pub(in crate::rate_limit) fn on_grant(&self, granted: Weak<dyn Granted>) {
        let _ = self.granted.set(granted);
    }

    /// Returns the hash function of keys, which is the same in all processes.
    pub(in crate::rate_limit) fn hashing(&self) -> KeyHashing {
        KeyHashing::Fleet(self.fleet.secret)
    }

    pub(in crate::rate_limit) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    #[inline]
    pub(in crate::rate_limit) fn acquire(
        &self,
        hash: KeyHash,
        cost: u32,
        now: u64,
    ) -> Result<(), OverLimit> {
        if cost == 0 {
            return Ok(());
        }
        match self.map.pin().get(&hash) {
            Some(limit) => limit.acquire(cost, now),
            None => self
                .with(hash, now, |limit| limit.acquire(cost, now))
                .unwrap_or_else(|| match self.overflow {
                    Overflow::Allow => Ok(()),
                    _ => Err(OverLimit::until(CROWDED)),
                }),
        }
    }

    /// Applies an operation to the limit of a key, and makes the limit if there is none. `None` if
    /// there is no room.
    pub(in crate::rate_limit) fn with<R>(
        &self,
        hash: KeyHash,
        now: u64,
        act: impl FnOnce(&FleetLimit) -> R,
    ) -> Option<R> {
        let map = self.map.pin();
        if let Some(limit) = map.get(&hash) {
            return Some(act(limit));
        }
        let hash = if self.has_room(now) {
            hash
        } else if self.overflow == Overflow::Shared {
            // One of 64 entries that newcomers share, the same in all processes. They are in the
            // map beyond its bound.
            KeyHash::new([hash.index() & 63, 0])
        } else {
            return None;
        };
        if let Some(limit) = map.get(&hash) {
            return Some(act(limit));
        }
        // A limit of the same quota was made before, so this cannot fail.
        let limit = self.make(hash).ok()?;
        Some(act(map.get_or_insert(hash, limit)))
    }

    pub(in crate::rate_limit) fn rate(&self) -> Rate {
        self.quotas.get().rate
    }

    pub(in crate::rate_limit) fn burst(&self) -> u32 {
        self.quotas.get().burst
    }

    pub(in crate::rate_limit) fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.fleet.outage.local(rate, burst)?;
        self.quotas.set(rate, burst)?;
        let map = self.map.pin();
        map.iter()
            .try_for_each(|(_, limit)| limit.follow(rate, burst))
    }

    /// Counts the keys that hold units or owe some.
    pub(in crate::rate_limit) fn active(&self, now: u64) -> usize {
        let map = self.map.pin();
        map.iter()
            .filter(|(_, limit)| !limit.entry.is_idle(now))
            .count()
    }

    pub(in crate::rate_limit) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    pub(in crate::rate_limit) fn bytes(&self) -> usize {
        let entry = size_of::<super::entry::Entry>() + size_of::<(KeyHash, FleetLimit)>();
        self.map.len() * entry
    }

    fn make(&self, hash: KeyHash) -> Result<FleetLimit, ConfigError> {
        let key = format!("{}:{hash}", self.fleet.name);
        let limit = FleetLimit::new(&self.fleet, key.into(), hash, self.quotas.clone())?;
        if let Some(granted) = self.granted.get() {
            limit.entry.on_grant(granted.clone());
        }
        Ok(limit)
    }

    /// Makes room for one more by evicting idle keys. An attempt that found none is not repeated
    /// for a while. Without that, a flood of new keys would walk the map with each call.
    fn has_room(&self, now: u64) -> bool {
        if self.map.len() < self.max_keys {
            return true;
        }
        let mut crowded_at = self
            .crowded_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *crowded_at > 0 && now.saturating_sub(*crowded_at) < CROWDED {
            return false;
        }
        let map = self.map.pin();
        let idle: Vec<KeyHash> = map
            .iter()
            .filter(|(_, limit)| limit.entry.is_idle(now))
            .map(|(hash, _)| *hash)
            .take(self.max_keys / 8 + 1)
            .collect();
        let evicted = idle
            .iter()
            .filter(|hash| map.remove(*hash).is_some())
            .count();
        self.evictions.fetch_add(evicted as u64, Ordering::Relaxed);
        let is_crowded = self.map.len() >= self.max_keys;
        *crowded_at = if is_crowded { now.max(1) } else { 0 };
        !is_crowded
    }
}

/// The wait of a key that found no room, in nanoseconds.
const CROWDED: u64 = 100_000_000;
