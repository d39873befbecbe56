//! The keys of a limit that processes share: a bounded map.
//!
//! A local limit keeps one word for a key, and its table is made at once. A key of a fleet has a
//! lease, debts and a history of its rate, some 600 bytes. So it is made when the key's first call
//! comes, and the map is bounded in keys. A key whose lease lives, or that owes something, is never
//! evicted. One that is idle is known to the store alone, and evicting it loses nothing.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use papaya::{HashMap, ResizeMode};

use crate::{
    ConfigError,
    algorithm::{OverLimit, Overflow, Rate},
    ambient::chance::Hashing,
    rate_limit::fleet::{Fleet, FleetLimit, Granted, Quotas},
};

#[derive(Debug)]
pub(in crate::rate_limit) struct Keys {
    fleet: Arc<Fleet>,
    quotas: Arc<Quotas>,
    map: HashMap<u64, FleetLimit, Hashing>,
    max_keys: usize,
    overflow: Overflow,
    /// Held to make room, and the moment at which that was last in vain. Nothing else runs under
    /// it.
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
        keys.make(0)?;
        Ok(keys)
    }

    /// Sets what is done when units have come, once.
    pub(in crate::rate_limit) fn on_grant(&self, granted: Weak<dyn Granted>) {
        let _ = self.granted.set(granted);
    }

    /// Hashes keys alike in all processes: see [`Hashing::shared`].
    pub(in crate::rate_limit) fn hashing(&self) -> Hashing {
        Hashing::shared(self.fleet.name)
    }

    pub(in crate::rate_limit) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    #[inline]
    pub(in crate::rate_limit) fn acquire(
        &self,
        hash: u64,
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

    /// Does something to the limit of a key, which is made if there is none. `None` if there is no
    /// room.
    pub(in crate::rate_limit) fn with<R>(
        &self,
        hash: u64,
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
            // Of 64 that newcomers share, in all processes alike. They are in the map beyond its
            // bound.
            hash >> 40 & 63
        } else {
            return None;
        };
        if let Some(limit) = map.get(&hash) {
            return Some(act(limit));
        }
        // It was made with the same quota once, and so can be made.
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
        let entry = size_of::<super::entry::Entry>() + size_of::<(u64, FleetLimit)>();
        self.map.len() * entry
    }

    fn make(&self, hash: u64) -> Result<FleetLimit, ConfigError> {
        let key = format!("{}:{hash:016x}", self.fleet.name);
        let limit = FleetLimit::new(&self.fleet, key.into(), hash, self.quotas.clone())?;
        if let Some(granted) = self.granted.get() {
            limit.entry.on_grant(granted.clone());
        }
        Ok(limit)
    }

    /// Makes room for one more by evicting idle keys. A walk that found none is not repeated for a
    /// while: a flood of new keys would else walk the map with each call.
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
        let idle: Vec<u64> = map
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

/// The wait of a key that found no room.
const CROWDED: u64 = 100_000_000;
