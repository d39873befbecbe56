//! The waiters, under the lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::Waker,
};

use super::{
    resource::{Blocked, CLASSES, Turn, Units},
    setting::Setting,
    timer::Timer,
};
use crate::algorithm::CoDel;

#[derive(Debug)]
pub(super) struct Queue<U: Units> {
    /// The waiters whose turn has not come, by ticket number.
    pub(super) waiters: BTreeMap<u64, Waiter<U>>,
    /// The ticket numbers of the same waiters, by class.
    pub(super) by_class: [BTreeSet<u64>; CLASSES],
    /// The ends of waits whose tickets have not been polled since.
    pub(super) settled: BTreeMap<u64, WaitEnd>,
    /// The turns of waiters that have acquired, were woken, and are about to poll.
    pub(super) expected: BTreeSet<u64>,
    pub(super) next_turn: u64,
    pub(super) next_number: u64,
    /// The units of all waiters that ever joined.
    pub(super) joined_units: U::Sum,
    /// If true, a thread is asking the resource now.
    pub(super) pumping: bool,
    /// Set if the resource changed while the pumping thread was deciding: it must pump again, at
    /// this time or later.
    pub(super) again: Option<u64>,
    /// `None` if waiters are always served in order of class and arrival.
    pub(super) codel: Option<CoDel>,
}

#[derive(Debug)]
pub(super) struct Waiter<U: Units> {
    pub(super) class: u8,
    pub(super) units: U,
    /// The units of all waiters that joined before it.
    pub(super) before: U::Sum,
    pub(super) joined_at: u64,
    /// The expected time of its turn. `None` if only a release can bring it.
    pub(super) ready_at: Option<u64>,
    /// The setting of its timer, once it has polled.
    pub(super) timer: Option<u64>,
    pub(super) latest: u64,
    /// The number of times that its timer was set.
    pub(super) edition: u64,
    /// `None` until it polls for the first time.
    pub(super) waker: Option<Waker>,
    /// `None` where only its waker can be used.
    pub(super) alarm: Option<Arc<Timer>>,
}

/// The wakers to wake and the timers to set, without the lock.
#[derive(Default)]
pub(super) struct Wakeups {
    wake: Option<Waker>,
    set: [Option<(Arc<Timer>, Setting)>; TIMED],
}

/// The end of a wait, until its ticket is polled.
#[derive(Debug)]
pub(super) struct WaitEnd {
    settled: Settled,
    /// Its place in the order of all ends.
    turn: u64,
    /// If true, it has let others go first.
    has_yielded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Acquired,
    TooLate,
    Never,
}

/// The waiter that is served next, while its turn is decided.
#[derive(Clone, Copy)]
pub(super) struct Head<U> {
    pub(super) number: u64,
    pub(super) units: U,
    pub(super) ready_at: Option<u64>,
    pub(super) latest: u64,
    /// If true, it has waited too long in a queue that does not drain.
    pub(super) dropped: bool,
}

impl<U: Units> Default for Queue<U> {
    fn default() -> Self {
        Self {
            waiters: BTreeMap::new(),
            by_class: [const { BTreeSet::new() }; CLASSES],
            settled: BTreeMap::new(),
            expected: BTreeSet::new(),
            next_turn: 0,
            next_number: 0,
            joined_units: U::NONE,
            pumping: false,
            again: None,
            codel: None,
        }
    }
}

impl<U: Units> Queue<U> {
    /// Returns the waiter to be served next. In order, it is the first of the highest class, unless
    /// an earlier waiter of a lower class has waited for over half of its time. In a queue that
    /// does not drain, it is the last of the highest class, once those that have waited too long
    /// are dropped.
    pub(super) fn head(&self, now: u64) -> Option<Head<U>> {
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

    /// Checks only the first of each class: within a class the order is that of arrival.
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

    /// Adds a waiter at the end of its class.
    pub(super) fn insert(&mut self, number: u64, waiter: Waiter<U>) {
        self.of_class(waiter.class).insert(number);
        self.waiters.insert(number, waiter);
    }

    fn of_class(&mut self, class: u8) -> &mut BTreeSet<u64> {
        &mut self.by_class[usize::from(class).min(CLASSES - 1)]
    }

    /// Updates CoDel's view of whether the queue drains.
    pub(super) fn look(&mut self, now: u64) {
        if let Some(codel) = &mut self.codel {
            let oldest = self.waiters.first_key_value();
            codel.look(
                oldest.map(|(_, waiter)| now.saturating_sub(waiter.joined_at)),
                now,
            );
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Waiter<U>> {
        let removed = self.waiters.remove(&number)?;
        self.of_class(removed.class).remove(&number);
        Some(removed)
    }

    /// Records the end of a removed waiter.
    pub(super) fn settle(&mut self, removed: &Waiter<U>, number: u64, settled: Settled) {
        let turn = self.next_turn;
        self.next_turn += 1;
        let has_yielded = false;
        self.settled.insert(
            number,
            WaitEnd {
                settled,
                turn,
                has_yielded,
            },
        );
        if settled == Settled::Acquired && removed.waker.is_some() {
            self.expected.insert(turn);
        }
    }

    /// Returns whether a waiter that has acquired lets others go first, which it does once. Those
    /// acquired before it, and are about to poll. It is then expected like them.
    pub(super) fn yields(&mut self, number: u64) -> bool {
        let Some(end) = self.settled.get_mut(&number) else {
            return false;
        };
        let is_behind = self.expected.first().is_some_and(|first| *first < end.turn);
        let yields = is_behind && !end.has_yielded && end.settled == Settled::Acquired;
        if yields {
            end.has_yielded = true;
            self.expected.insert(end.turn);
        }
        yields
    }

    /// Takes the end of a wait, which is returned once.
    pub(super) fn take_settled(&mut self, number: u64) -> Option<Settled> {
        let end = self.settled.remove(&number)?;
        self.expected.remove(&end.turn);
        Some(end.settled)
    }

    /// Returns whether there are no waiters, and no ticket that has yet to learn that its wait is
    /// over.
    pub(super) fn is_unused(&self) -> bool {
        self.waiters.is_empty() && self.settled.is_empty()
    }

    /// Returns one word of two counts: the waiters, and those that have acquired and are about to
    /// poll.
    pub(super) fn word(&self) -> u64 {
        (self.expected.len() as u64) << 32 | self.waiters.len() as u64
    }

    /// Returns the units of the waiters ahead, and of those that were ahead and have been cancelled
    /// since. This errs towards a later turn. A waiter that becomes the head sooner is woken.
    pub(super) fn units_before(&self, number: u64) -> U::Sum {
        let first = self
            .waiters
            .first_key_value()
            .map(|(_, waiter)| waiter.before);
        let own = self.waiters.get(&number).map(|waiter| waiter.before);
        own.zip(first)
            .map_or(U::NONE, |(own, first)| U::between(first, own))
    }

    /// Sets when a waiter is to poll again, and returns it.
    pub(super) fn arm(&mut self, number: u64) -> (Turn, u64) {
        let ahead = self.ahead_of(number);
        let before = self.waiters.range(..number).next_back();
        let before = before.and_then(|(_, waiter)| waiter.timer);
        let Some(waiter) = self.waiters.get_mut(&number) else {
            // Its turn has come since the pump: it polls again at once.
            return (Turn::Queued(Some(0)), 0);
        };
        waiter.set_timer(ahead, before);
        (Turn::Queued(waiter.timer), waiter.edition)
    }

    /// Returns how many waiters ahead of this one have timers, which pump for it too. If they are
    /// more than a few, the count includes those that have gone since. That only makes this
    /// waiter's own timer later.
    fn ahead_of(&self, number: u64) -> u64 {
        let ahead = self.waiters.range(..number);
        match ahead.clone().nth(TIMED).zip(ahead.clone().next()) {
            Some((_, (first, _))) => number - first,
            None => ahead.map(|(_, waiter)| waiter.polled()).sum(),
        }
    }

    /// Lets the head continue to wait. Sets its timer to its turn, and those of the next few to a
    /// little later. For waiters whose turns can be forecast, which are served in order of arrival.
    /// Also where units may be overdue, so that one of these waiters polls then. The waiter that is
    /// polling now, `own`, sets its timer itself.
    pub(super) fn postpone(&mut self, blocked: Blocked, own: Option<u64>, now: u64) -> Wakeups {
        let mut calls = Wakeups::default();
        let (Blocked::For(wait) | Blocked::UntilOverdue(wait)) = blocked else {
            return calls;
        };
        let turn = now.saturating_add(wait);
        let first = self.waiters.iter_mut().take(TIMED).zip(&mut calls.set);
        let (mut is_head, mut ahead) = (true, 0);
        for ((number, waiter), set) in first {
            // No turn is before the head's.
            let expected = waiter.ready_at.filter(|_| !is_head).unwrap_or(turn);
            waiter.ready_at = Some(expected.max(turn));
            if let Some(before) = waiter.timer.filter(|_| own != Some(*number)) {
                let setting = waiter.set_timer(ahead, None);
                match (&waiter.alarm, setting) {
                    (_, Some(Setting { at, .. })) if at == before => {}
                    (Some(alarm), Some(setting)) => *set = Some((alarm.clone(), setting)),
                    (None, Some(Setting { at, .. })) if at < before && is_head => {
                        calls.wake = waiter.waker.take();
                    }
                    _ => {}
                }
            }
            is_head = false;
            ahead += waiter.polled();
        }
        calls
    }
}

impl Wakeups {
    pub(super) fn wake(waker: Option<Waker>) -> Self {
        Self {
            wake: waker,
            ..Self::default()
        }
    }

    /// Wakes tasks and sets timers. Called without the lock.
    pub(super) fn make(self) {
        if let Some(waker) = self.wake {
            waker.wake();
        }
        for (alarm, setting) in self.set.into_iter().flatten() {
            alarm.set(setting);
        }
    }
}

impl<U: Units> Waiter<U> {
    /// Returns whether it has waited for over half of its time.
    fn is_half_over(&self, now: u64) -> bool {
        let most = self.latest.saturating_sub(self.joined_at);
        now.saturating_sub(self.joined_at) > most / 2
    }

    /// Returns 1 if it has polled, so that its own timer rings.
    fn polled(&self) -> u64 {
        u64::from(self.waker.is_some())
    }

    /// Sets its timer to its turn, or to the moment at which that is too late. If others are
    /// `ahead`, it is later by one gap for each. They serve it in time, if they are polled. After a
    /// stall, timers ring in the order of the waiters, since none is set to before the one `before`
    /// it.
    fn set_timer(&mut self, ahead: u64, before: Option<u64>) -> Option<Setting> {
        let expiry = self.latest.checked_add(1);
        let before = before.unwrap_or(0);
        let backup = |turn: u64| turn.saturating_add(ahead.saturating_mul(GAP)).max(before);
        self.timer = match (self.ready_at.map(backup), expiry) {
            (Some(backup), Some(expiry)) => Some(backup.min(expiry)),
            (backup, expiry) => backup.or(expiry),
        };
        self.edition += 1;
        let edition = self.edition;
        self.timer.map(|at| Setting { edition, at })
    }

    /// Keeps a waker. Returns the one to drop without the lock.
    pub(super) fn keep(&mut self, waker: Waker) -> Option<Waker> {
        match &self.waker {
            Some(kept) if kept.will_wake(&waker) => Some(waker),
            _ => self.waker.replace(waker),
        }
    }
}

/// The number of timers that a pumping thread sets: the head's, and two more in case the head is
/// never polled.
const TIMED: usize = 3;
/// The nanoseconds by which a waiter's own timer is later than its turn, for each waiter ahead of
/// it. After a stall, few timers have rung in vain.
const GAP: u64 = 10_000_000;
