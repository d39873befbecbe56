//! Those who wait for their turn, in order of arrival.
//!
//! Why not let each waiter sleep for its hint and ask again? The hints of a hundred waiters are the same moment, at
//! which one is admitted and 99 ask in vain: 400 waiters take 45 000 polls where 800 do. And why not reserve a time of
//! departure for each, once for all? A slot whose owner is cancelled then stays empty, or lets those behind it bunch.
//!
//! So a waiter takes nothing until its turn has come. It knows its turn beforehand, since all that is ahead of it is in
//! the line, and sets its own timer for it: one wake. Only who is first may acquire. Whoever leaves the line, admitted or
//! cancelled, wakes the new first if that one's turn has come sooner than its timer says.
//!
//! The mutex is taken only when somebody has to wait; a caller that finds the line empty reads one word.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use crate::{
    algorithm::{Denied, Limit},
    rate_limit::state::nanos,
};

#[derive(Debug, Default)]
pub(super) struct Line {
    /// How many wait. Relaxed: it only tells newcomers to go to the mutex, which orders all else. One that misses the
    /// first waiter came at the same time, and may as well be first.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In order of tickets.
    waiters: VecDeque<Waiter>,
    /// The sum of their costs.
    units: u64,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    cost: u32,
    due: u64,
    /// `None` until it is polled for the first time.
    waker: Option<Waker>,
}

/// A place in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    ticket: u64,
    /// The latest that its turn may come.
    pub(super) until: u64,
}

/// What a waiter finds when it looks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its units are taken, and its place is gone.
    Come,
    /// Not before this time; it will be woken if it comes sooner.
    Due(u64),
}

impl Line {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Joins at the end, unless the turn would come after `until`, or `most` wait already.
    ///
    /// # Errors
    /// How long until that turn.
    pub(super) fn join(&self, limit: &dyn Limit, cost: u32, until: u64, most: usize, now: u64) -> Result<Place, u64> {
        let mut queue = self.lock();
        let wait = nanos(limit.wait_for(cost, queue.units, now));
        let due = now.saturating_add(wait);
        if due > until || queue.waiters.len() >= most {
            return Err(wait);
        }
        let place = Place { ticket: queue.next_ticket, until };
        queue.next_ticket += 1;
        queue.units += u64::from(cost);
        queue.waiters.push_back(Waiter { ticket: place.ticket, cost, due, waker: None });
        self.waiting.store(queue.waiters.len(), Ordering::Relaxed);
        Ok(place)
    }

    /// Looks whether the turn has come, and if not, keeps the waker.
    pub(super) fn look(&self, limit: &dyn Limit, place: Place, waker: &Waker, now: u64) -> Turn {
        let mut queue = self.lock();
        let Ok(index) = queue.find(place.ticket) else { return Turn::Come };
        let first = index == 0;
        let waiter = &mut queue.waiters[index];
        if !first {
            waiter.keep(waker);
            return Turn::Due(waiter.due);
        }
        match limit.acquire_late(waiter.cost, waiter.due, now) {
            Ok(()) => {
                let woken = self.leave(queue, index, limit, now);
                woken.into_iter().for_each(Waker::wake);
                Turn::Come
            }
            Err(denied) => {
                let wait = match denied {
                    Denied::Until { wait } => nanos(wait),
                    // The burst has been lowered below it since it joined: it waits until its time is up.
                    Denied::CostAboveBurst => u64::MAX,
                };
                waiter.due = now.saturating_add(wait);
                waiter.keep(waker);
                Turn::Due(waiter.due)
            }
        }
    }

    /// Gives up a place; nothing was taken, so nothing is lost.
    pub(super) fn cancel(&self, limit: &dyn Limit, place: Place, now: u64) {
        let queue = self.lock();
        if let Ok(index) = queue.find(place.ticket) {
            let woken = self.leave(queue, index, limit, now);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Something but a departure has changed the limit: the first looks again.
    pub(super) fn look_again(&self) {
        if !self.is_empty() {
            let woken = self.lock().waiters.front_mut().and_then(|first| first.waker.take());
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Takes one out, and returns whom to wake once the lock is released.
    fn leave(&self, mut queue: MutexGuard<'_, Queue>, index: usize, limit: &dyn Limit, now: u64) -> Option<Waker> {
        let left = queue.waiters.remove(index)?;
        queue.units -= u64::from(left.cost);
        self.waiting.store(queue.waiters.len(), Ordering::Relaxed);
        let first = queue.waiters.front_mut().filter(|_| index == 0)?;
        // Its timer has rung in vain, or is set too late; or else it will ring in time and wake it for the first time.
        let turn = now.saturating_add(nanos(limit.wait_for(first.cost, 0, now)));
        if first.due <= now || turn < first.due { first.waker.take() } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics half-way: a poisoned queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn find(&self, ticket: u64) -> Result<usize, usize> {
        self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket)
    }
}

impl Waiter {
    fn keep(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}
