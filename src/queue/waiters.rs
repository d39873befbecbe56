//! The waiters, as they are under the lock.

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
    /// Those whose turn has not come, by the number of their ticket.
    pub(super) waiters: BTreeMap<u64, Waiter<U>>,
    /// The same by class: the numbers of their tickets.
    pub(super) by_class: [BTreeSet<u64>; CLASSES],
    /// What became of those that have not polled since.
    pub(super) settled: BTreeMap<u64, End>,
    /// The turns of those that have acquired, were woken, and are about to poll.
    pub(super) expected: BTreeSet<u64>,
    pub(super) next_turn: u64,
    pub(super) next_number: u64,
    /// The units of all that ever joined.
    pub(super) joined_units: U::Sum,
    /// Whether a thread is asking the resource just now.
    pub(super) pumping: bool,
    /// What that thread is to go round for once more: a change, seen at this time.
    pub(super) again: Option<u64>,
    /// `None` if waiters are always served in order of arrival.
    pub(super) codel: Option<CoDel>,
}

#[derive(Debug)]
pub(super) struct Waiter<U: Units> {
    pub(super) class: u8,
    pub(super) units: U,
    /// The units of all that joined before it.
    pub(super) before: U::Sum,
    pub(super) joined_at: u64,
    /// When its turn is expected; `None` if only a release can tell.
    pub(super) ready_at: Option<u64>,
    /// What its timer is set to, once it has polled.
    pub(super) timer: Option<u64>,
    pub(super) latest: u64,
    /// How often its timer was set.
    pub(super) edition: u64,
    /// `None` until it polls for the first time.
    pub(super) waker: Option<Waker>,
    /// `None` where its waker is all that can be used.
    pub(super) alarm: Option<Arc<Timer>>,
}

/// What waiters are to be told without the lock.
#[derive(Default)]
pub(super) struct Calls {
    wake: Option<Waker>,
    set: [Option<(Arc<Timer>, Setting)>; TIMED],
}

/// The end of a wait, until its waiter polls.
#[derive(Debug)]
pub(super) struct End {
    settled: Settled,
    /// Its place in the order of all ends.
    turn: u64,
    /// It has let others go first.
    has_yielded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Acquired,
    TooLate,
    Never,
}

/// The one to be served next, while its turn is decided.
#[derive(Clone, Copy)]
pub(super) struct Head<U> {
    pub(super) number: u64,
    pub(super) units: U,
    pub(super) ready_at: Option<u64>,
    pub(super) latest: u64,
    /// It has waited too long in a queue that does not drain.
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
    /// The one to be served next: the first of the highest class, unless one of a lower class that
    /// came before it has waited for over half of its time. In a queue that does not drain it is
    /// the last of that class, once those that have waited too long are dropped.
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
    pub(super) fn insert(&mut self, number: u64, waiter: Waiter<U>) {
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

    pub(super) fn remove(&mut self, number: u64) -> Option<Waiter<U>> {
        let removed = self.waiters.remove(&number)?;
        self.of_class(removed.class).remove(&number);
        Some(removed)
    }

    /// Enters what became of a waiter that is removed.
    pub(super) fn settle(&mut self, removed: &Waiter<U>, number: u64, settled: Settled) {
        let turn = self.next_turn;
        self.next_turn += 1;
        let has_yielded = false;
        self.settled.insert(
            number,
            End {
                settled,
                turn,
                has_yielded,
            },
        );
        if settled == Settled::Acquired && removed.waker.is_some() {
            self.expected.insert(turn);
        }
    }

    /// Returns whether a waiter that has acquired lets others go first, once: they acquired before
    /// it, and are about to poll. It is expected with them then.
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

    /// What became of a waiter, told once.
    pub(super) fn take_settled(&mut self, number: u64) -> Option<Settled> {
        let end = self.settled.remove(&number)?;
        self.expected.remove(&end.turn);
        Some(end.settled)
    }

    /// Returns whether nobody waits, and nobody has yet to learn that its wait is over.
    pub(super) fn is_unused(&self) -> bool {
        self.waiters.is_empty() && self.settled.is_empty()
    }

    /// How many wait, and how many have acquired and are about to poll, as one word.
    pub(super) fn word(&self) -> u64 {
        (self.expected.len() as u64) << 32 | self.waiters.len() as u64
    }

    /// The units of those ahead, and of those that were and have been cancelled since. It errs
    /// towards a later turn; a waiter that becomes the head sooner than that is woken.
    pub(super) fn units_before(&self, number: u64) -> U::Sum {
        let first = self
            .waiters
            .first_key_value()
            .map(|(_, waiter)| waiter.before);
        let own = self.waiters.get(&number).map(|waiter| waiter.before);
        own.zip(first)
            .map_or(U::NONE, |(own, first)| U::between(first, own))
    }

    /// Says when a waiter is to poll again, and remembers it.
    pub(super) fn arm(&mut self, number: u64) -> (Turn, u64) {
        let ahead = self.ahead_of(number);
        let before = self.waiters.range(..number).next_back();
        let before = before.and_then(|(_, waiter)| waiter.timer);
        let Some(waiter) = self.waiters.get_mut(&number) else {
            // Its turn has come since it looked: it polls once more, at once.
            return (Turn::Queued(Some(0)), 0);
        };
        waiter.set_timer(ahead, before);
        (Turn::Queued(waiter.timer), waiter.edition)
    }

    /// How many are ahead of a waiter whose timers ring for it too. If that is more than a few,
    /// those count that have gone since, which only makes its own timer later.
    fn ahead_of(&self, number: u64) -> u64 {
        let ahead = self.waiters.range(..number);
        match ahead.clone().nth(TIMED).zip(ahead.clone().next()) {
            Some((_, (first, _))) => number - first,
            None => ahead.map(|(_, waiter)| waiter.polled()).sum(),
        }
    }

    /// The head goes on waiting. Sets its timer to its turn, and those of the next few to a little
    /// later. For waiters whose turns can be forecast, which are served in order of arrival, and
    /// where something may be overdue, so that one of them looks. The one that polls just now,
    /// `own`, sets its timer itself.
    pub(super) fn postpone(&mut self, blocked: Blocked, own: Option<u64>, now: u64) -> Calls {
        let mut calls = Calls::default();
        let (Blocked::For(wait) | Blocked::UntilOverdue(wait)) = blocked else {
            return calls;
        };
        let turn = now.saturating_add(wait);
        let first = self.waiters.iter_mut().take(TIMED).zip(&mut calls.set);
        let (mut is_head, mut ahead) = (true, 0);
        for ((number, waiter), set) in first {
            // Nobody's turn is before the head's.
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

impl Calls {
    pub(super) fn wake(waker: Option<Waker>) -> Self {
        Self {
            wake: waker,
            ..Self::default()
        }
    }

    /// Wakes tasks, so it is called without the lock.
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
    /// Returns whether it has waited for over half of the time that it may.
    fn is_half_over(&self, now: u64) -> bool {
        let most = self.latest.saturating_sub(self.joined_at);
        now.saturating_sub(self.joined_at) > most / 2
    }

    /// 1 if it has polled, so that its own timer rings.
    fn polled(&self) -> u64 {
        u64::from(self.waker.is_some())
    }

    /// Sets its timer for its turn, or for the moment at which that is too late. If others are
    /// `ahead` it is later by so many gaps: they set it in time, if they are polled. After a stall
    /// timers ring in the order of the waiters, since none is set to before the one `before` it.
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

    /// Keeps a waker, and hands out the one to drop without the lock.
    pub(super) fn keep(&mut self, waker: Waker) -> Option<Waker> {
        match &self.waker {
            Some(kept) if kept.will_wake(&waker) => Some(waker),
            _ => self.waker.replace(waker),
        }
    }
}

/// How many timers the one that pumps sets: the head's, and two more in case that nobody polls the
/// head.
const TIMED: usize = 3;
/// By how many nanoseconds a waiter's own timer is later than its turn, for each that is ahead of
/// it: after a stall, the timers of few have rung in vain.
const GAP: u64 = 10_000_000;
