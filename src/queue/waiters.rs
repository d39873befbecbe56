//! The waiters, as they are under the lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
};

use super::resource::{Blocked, CLASSES, Turn};
use crate::algorithm::CoDel;
use crate::sync::{AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Those whose turn has not come, by the number of their ticket.
    pub(super) waiters: BTreeMap<u64, Waiter>,
    /// The same by class: the numbers of their tickets.
    pub(super) by_class: [BTreeSet<u64>; CLASSES],
    /// What became of those that have not polled since.
    pub(super) settled: BTreeMap<u64, Settled>,
    pub(super) next_number: u64,
    /// The units of all that ever joined.
    pub(super) joined_units: u64,
    /// Whether a thread is asking the resource just now.
    pub(super) pumping: bool,
    /// What that thread is to go round for once more: a change, seen at this time.
    pub(super) again: Option<u64>,
    /// `None` if waiters are always served in order of arrival.
    pub(super) codel: Option<CoDel>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) class: u8,
    pub(super) units: u32,
    /// The units of all that joined before it.
    pub(super) before: u64,
    pub(super) joined_at: u64,
    /// When its turn is expected; `None` if only a release can tell.
    pub(super) ready_at: Option<u64>,
    /// What its timer is set to, once it has polled.
    pub(super) timer: Option<u64>,
    pub(super) latest: u64,
    /// `None` until it polls for the first time.
    pub(super) waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Settled {
    Acquired,
    TooLate,
    Never,
}

/// The one to be served next, while its turn is decided.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) units: u32,
    pub(super) ready_at: Option<u64>,
    pub(super) latest: u64,
    /// It has waited too long in a queue that does not drain.
    pub(super) dropped: bool,
}

impl Queue {
    /// The one to be served next: the first of the highest class, unless one of a lower class that
    /// came before it has waited for over half of its time. In a queue that does not drain it is
    /// the last of that class, once those that have waited too long are dropped.
    pub(super) fn head(&self, now: u64) -> Option<Head> {
        let oldest = self.waiters.first_key_value();
        let stands = self.codel.as_ref().filter(|codel| codel.is_standing());
        let dropped = stands
            .zip(oldest)
            .is_some_and(|(codel, (_, oldest))| codel.drops(now.saturating_sub(oldest.joined_at)));
        let number = if dropped {
            *oldest?.0
        } else if stands.is_some() {
            *self.by_class.iter().rev().find_map(BTreeSet::last)?
        } else {
            self.first_in_order(now)?
        };
        let waiter = self.waiters.get(&number)?;
        Some(Head {
            number,
            units: waiter.units,
            ready_at: waiter.ready_at,
            latest: waiter.latest,
            dropped,
        })
    }

    /// The first of each class is looked at: within a class the order is that of arrival.
    fn first_in_order(&self, now: u64) -> Option<u64> {
        let firsts = self.by_class.iter().rev().filter_map(BTreeSet::first);
        let mut firsts = firsts.copied();
        let highest = firsts.next()?;
        let overtaken = firsts.filter(|number| {
            let waiter = self.waiters.get(number);
            *number < highest && waiter.is_some_and(|waiter| waiter.is_half_over(now))
        });
        Some(overtaken.min().unwrap_or(highest))
    }

    /// A new waiter, at the end of its class.
    pub(super) fn insert(&mut self, number: u64, waiter: Waiter) {
        self.of_class(waiter.class).insert(number);
        self.waiters.insert(number, waiter);
    }

    fn of_class(&mut self, class: u8) -> &mut BTreeSet<u64> {
        &mut self.by_class[usize::from(class).min(CLASSES - 1)]
    }

    /// Looks whether the queue drains.
    pub(super) fn look(&mut self, now: u64) {
        if let Some(codel) = &mut self.codel {
            let oldest = self.waiters.first_key_value();
            codel.look(
                oldest.map(|(_, waiter)| now.saturating_sub(waiter.joined_at)),
                now,
            );
        }
    }

    pub(super) fn remove(&mut self, number: u64, waiting: &AtomicUsize) -> Option<Waiter> {
        let removed = self.waiters.remove(&number);
        if let Some(waiter) = &removed {
            self.of_class(waiter.class).remove(&number);
        }
        waiting.store(self.waiters.len(), Ordering::Relaxed);
        removed
    }

    /// The units of those ahead, and of those that were and have been cancelled since. It errs
    /// towards a later turn; a waiter that becomes the head sooner than that is woken.
    pub(super) fn units_before(&self, number: u64) -> u64 {
        let first = self
            .waiters
            .first_key_value()
            .map(|(_, waiter)| waiter.before);
        let own = self.waiters.get(&number).map(|waiter| waiter.before);
        own.zip(first)
            .map_or(0, |(own, first)| own.wrapping_sub(first))
    }

    /// Says when a waiter is to poll again, and remembers it.
    pub(super) fn arm(&mut self, number: u64) -> Turn {
        let Some(waiter) = self.waiters.get_mut(&number) else {
            // Its turn has come since it looked: it polls once more, at once.
            return Turn::Queued(Some(0));
        };
        let expiry = waiter.latest.checked_add(1);
        let timer = match (waiter.ready_at, expiry) {
            (Some(ready_at), Some(expiry)) => Some(ready_at.min(expiry)),
            (ready_at, expiry) => ready_at.or(expiry),
        };
        waiter.timer = timer;
        Turn::Queued(timer)
    }

    /// The head goes on waiting. Wakes it if its timer is set to later than its turn.
    pub(super) fn postpone(&mut self, number: u64, blocked: Blocked, now: u64) -> Option<Waker> {
        let Blocked::For(wait) = blocked else {
            return None;
        };
        let waiter = self.waiters.get_mut(&number)?;
        let ready_at = now.saturating_add(wait);
        waiter.ready_at = Some(ready_at);
        let sleeps_too_long = waiter.timer.is_some_and(|timer| timer > ready_at);
        if sleeps_too_long {
            waiter.waker.take()
        } else {
            None
        }
    }
}

impl Waiter {
    /// Returns whether it has waited for over half of the time that it may.
    fn is_half_over(&self, now: u64) -> bool {
        let most = self.latest.saturating_sub(self.joined_at);
        now.saturating_sub(self.joined_at) > most / 2
    }

    /// Keeps a waker, and hands out the one to drop without the lock.
    pub(super) fn keep(&mut self, waker: Waker) -> Option<Waker> {
        match &self.waker {
            Some(kept) if kept.will_wake(&waker) => Some(waker),
            _ => self.waker.replace(waker),
        }
    }
}
