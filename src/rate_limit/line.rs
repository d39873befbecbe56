//! Those who wait for their turn, in order of arrival.
//!
//! Why not let each waiter sleep for its hint and ask again? The hints of a hundred waiters are the
//! same moment, at which one is admitted and 99 ask in vain: 400 waiters take 45 000 polls where
//! 800 do. And why not reserve a time of departure for each, once for all? A slot whose owner is
//! cancelled then stays empty, or lets those behind it bunch.
//!
//! So a waiter takes nothing until its turn has come. It knows its turn beforehand, since all that
//! is ahead of it is in the line, and sets its own timer for it: one wake. Only who is first may
//! acquire. Whoever leaves the line, admitted or cancelled, wakes the new first if that one's turn
//! has come sooner than its timer says.
//!
//! The mutex is taken only when somebody has to wait; a caller that finds the line empty reads one
//! word.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering, fence},
    },
    task::Waker,
    time::Duration,
};

use crate::{
    algorithm::{Limit, OverLimit, TIMER_TICK},
    rate_limit::state::nanos,
};

#[derive(Debug, Default)]
pub(super) struct Line {
    /// How many wait. Relaxed: it only tells newcomers to go to the mutex, which orders all else.
    /// One that misses the first waiter came at the same time, and may as well be first.
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
    /// The latest that its turn may come.
    latest: u64,
    /// Its timer has rung while others were ahead: whoever makes it the first wakes it. Not to be
    /// seen by `due`: the clock of who leaves may have been read before that of who has rung.
    rang: bool,
    /// `None` until it is polled for the first time.
    waker: Option<Waker>,
}

/// A place in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    ticket: u64,
    /// The latest that its turn may come.
    pub(super) latest: u64,
}

/// What a waiter finds when it looks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its units are taken, and its place is gone.
    Come,
    /// Its place is gone: it is too late, or will be by the time that its turn can come.
    Never(OverLimit),
    /// Not before this time; it will be woken if it comes sooner.
    Due(u64),
}

/// What becomes of the first when its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    Leaves,
    Stays,
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
    pub(super) fn join(
        &self,
        limit: &dyn Limit,
        cost: u32,
        until: u64,
        most: usize,
        now: u64,
    ) -> Result<Place, u64> {
        let mut queue = self.lock();
        let wait = nanos(limit.wait_for(cost, queue.units, now));
        let due = now.saturating_add(wait);
        if due > until || queue.waiters.len() >= most {
            return Err(wait);
        }
        // A timer's tick more is not later.
        let place = Place {
            ticket: queue.next_ticket,
            latest: until.saturating_add(TIMER_TICK),
        };
        queue.next_ticket += 1;
        queue.units += u64::from(cost);
        queue.waiters.push_back(Waiter {
            ticket: place.ticket,
            cost,
            due,
            latest: place.latest,
            rang: false,
            waker: None,
        });
        self.waiting.store(queue.waiters.len(), Ordering::Relaxed);
        // Whoever changes the limit after this was decided sees that somebody waits: see
        // `look_again`.
        fence(Ordering::SeqCst);
        Ok(place)
    }

    /// Looks whether the turn has come, and if not, keeps the waker.
    pub(super) fn look(&self, limit: &dyn Limit, place: Place, waker: &Waker, now: u64) -> Turn {
        self.look_as(limit, place, waker, now, |cost, due| {
            limit.acquire_late(cost, due, now)
        })
    }

    /// As [`look`](Self::look), but the first takes what it needs by `acquire`.
    pub(super) fn look_as(
        &self,
        limit: &dyn Limit,
        place: Place,
        waker: &Waker,
        now: u64,
        acquire: impl FnOnce(u32, u64) -> Result<(), OverLimit>,
    ) -> Turn {
        self.find(limit, place, waker, now, acquire, Afterwards::Leaves)
    }

    /// As [`look`](Self::look), but when its turn has come it takes nothing, stays the first, and
    /// is told when it came.
    ///
    /// # Errors
    /// What else it finds.
    pub(super) fn stand(
        &self,
        limit: &dyn Limit,
        place: Place,
        waker: &Waker,
        now: u64,
    ) -> Result<u64, Turn> {
        let mut since = now;
        let fits = |cost, due| {
            since = due;
            match limit.wait_for(cost, 0, now) {
                _ if cost > limit.largest_cost() => Err(OverLimit::CostAboveBurst),
                Duration::ZERO => Ok(()),
                wait => Err(OverLimit::Until { wait }),
            }
        };
        match self.find(limit, place, waker, now, fits, Afterwards::Stays) {
            Turn::Come => Ok(since),
            turn => Err(turn),
        }
    }

    fn find(
        &self,
        limit: &dyn Limit,
        place: Place,
        waker: &Waker,
        now: u64,
        acquire: impl FnOnce(u32, u64) -> Result<(), OverLimit>,
        afterwards: Afterwards,
    ) -> Turn {
        let mut queue = self.lock();
        if queue
            .waiters
            .front()
            .is_some_and(|first| first.latest < now && first.ticket != place.ticket)
        {
            drop(queue);
            self.put_out(limit, now);
            queue = self.lock();
        }
        // Not found if its time was over, and somebody has put it out for that.
        let index = match queue.index_of(place.ticket) {
            Ok(index) if now <= place.latest => index,
            Ok(index) => {
                let (cost, ahead) = (queue.waiters[index].cost, queue.units_ahead(index));
                leave(queue, &self.waiting, index, limit, now);
                return Turn::Never(OverLimit::Until {
                    wait: limit.wait_for(cost, ahead, now),
                });
            }
            Err(index) => {
                return Turn::Never(OverLimit::Until {
                    wait: limit.wait_for(1, queue.units_ahead(index), now),
                });
            }
        };
        let waiter = &mut queue.waiters[index];
        let turn = if index == 0 {
            waiter.turn(acquire, now)
        } else {
            waiter.rang = waiter.due <= now;
            Turn::Due(waiter.due)
        };
        if matches!(turn, Turn::Due(_)) || (turn == Turn::Come && afterwards == Afterwards::Stays) {
            let kept = waiter.keep(waker);
            drop(queue);
            // Whose it was may come back here when it is dropped.
            drop(kept);
        } else {
            leave(queue, &self.waiting, index, limit, now);
        }
        turn
    }

    /// Puts out the first ones if their time is over: nobody has polled them since, and they are to
    /// hold nobody up.
    ///
    /// Wakes, so not to be called under a lock.
    pub(super) fn put_out(&self, limit: &dyn Limit, now: u64) {
        while !self.is_empty() {
            let queue = self.lock();
            if queue
                .waiters
                .front()
                .is_none_or(|first| first.latest >= now)
            {
                return;
            }
            leave(queue, &self.waiting, 0, limit, now);
        }
    }

    /// How much all who wait need.
    pub(super) fn units(&self) -> u64 {
        if self.is_empty() {
            0
        } else {
            self.lock().units
        }
    }

    /// Gives up a place; nothing was taken, so nothing is lost.
    pub(super) fn cancel(&self, limit: &dyn Limit, place: Place, now: u64) {
        let queue = self.lock();
        if let Ok(index) = queue.index_of(place.ticket) {
            leave(queue, &self.waiting, index, limit, now);
        }
    }

    /// Something but a departure has changed the limit: the first looks again.
    pub(super) fn look_again(&self) {
        // Between the change of the limit and the look at who waits, as in `join` between the two
        // the other way round: else both could miss each other, and who waits would do so for
        // longer than it needs.
        fence(Ordering::SeqCst);
        if !self.is_empty() {
            let woken = self
                .lock()
                .waiters
                .front_mut()
                .and_then(|first| first.waker.take());
            woken.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics half-way: a poisoned queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one out and wakes the one whose turn that brings, both once the lock is released: wakers
/// are strangers' code.
fn leave(
    mut queue: MutexGuard<'_, Queue>,
    waiting: &AtomicUsize,
    index: usize,
    limit: &dyn Limit,
    now: u64,
) {
    let Some(left) = queue.waiters.remove(index) else {
        return;
    };
    queue.units -= u64::from(left.cost);
    waiting.store(queue.waiters.len(), Ordering::Relaxed);
    let next = queue
        .waiters
        .front_mut()
        .filter(|first| index == 0 && first.must_look(limit, now));
    let woken = next.and_then(|first| first.waker.take());
    drop(queue);
    drop(left);
    woken.into_iter().for_each(Waker::wake);
}

impl Queue {
    fn units_ahead(&self, index: usize) -> u64 {
        self.waiters
            .iter()
            .take(index)
            .map(|waiter| u64::from(waiter.cost))
            .sum()
    }

    fn index_of(&self, ticket: u64) -> Result<usize, usize> {
        self.waiters
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
    }
}

impl Waiter {
    /// What the first finds.
    fn turn(&mut self, acquire: impl FnOnce(u32, u64) -> Result<(), OverLimit>, now: u64) -> Turn {
        match acquire(self.cost, self.due) {
            Ok(()) => Turn::Come,
            Err(OverLimit::Until { wait }) => {
                self.due = now.saturating_add(nanos(wait));
                if self.due > self.latest {
                    Turn::Never(OverLimit::Until { wait })
                } else {
                    Turn::Due(self.due)
                }
            }
            // The burst has been lowered below it since it joined.
            Err(denied) => Turn::Never(denied),
        }
    }

    /// Whether one that has become the first must be woken: its timer has rung in vain, or is set
    /// too late, or would only tell it that it is too late. Else the timer will ring, and wake it
    /// for the first time.
    fn must_look(&self, limit: &dyn Limit, now: u64) -> bool {
        let turn = now.saturating_add(nanos(limit.wait_for(self.cost, 0, now)));
        self.rang || turn < self.due || turn > self.latest
    }

    /// Keeps a waker, and hands out the one that it kept.
    fn keep(&mut self, waker: &Waker) -> Option<Waker> {
        match &self.waker {
            Some(kept) if kept.will_wake(waker) => None,
            _ => self.waker.replace(waker.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Wake};

    use super::*;
    use crate::algorithm::{Rate, TokenBucket};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const MILLI: u64 = 1_000_000;

    /// A line of two for a bucket of a thousand a second that is used up.
    fn two() -> (TokenBucket, Line, [Place; 2]) {
        let (limit, line) = (
            TokenBucket::new(Rate::per_second(1000), 1).unwrap(),
            Line::default(),
        );
        limit.acquire(1, 0).unwrap();
        let places = [(); 2].map(|()| line.join(&limit, 1, u64::MAX, 9, 0).unwrap());
        (limit, line, places)
    }

    // The first reads the clock and is stopped before it has the mutex; meanwhile the second's
    // timer rings.
    #[test]
    fn who_rang_while_another_was_ahead_is_woken_even_by_one_with_an_older_clock() {
        let (limit, line, [first, second]) = two();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        assert_eq!(line.look(&limit, second, &waker, 0), Turn::Due(2 * MILLI));
        assert_eq!(
            line.look(&limit, second, &waker, 2 * MILLI + 1),
            Turn::Due(2 * MILLI)
        );
        assert_eq!(
            line.look(&limit, first, Waker::noop(), 1_900_000),
            Turn::Come
        );
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn who_becomes_the_first_before_its_timer_rings_is_not_woken_twice() {
        let (limit, line, [first, second]) = two();
        let count = Arc::new(Count::default());
        assert_eq!(
            line.look(&limit, second, &Waker::from(count.clone()), 0),
            Turn::Due(2 * MILLI)
        );
        assert_eq!(line.look(&limit, first, Waker::noop(), MILLI), Turn::Come);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_who_leaves_from_the_middle_wakes_nobody() {
        let (limit, line, [first, second]) = two();
        let count = Arc::new(Count::default());
        assert_eq!(
            line.look(&limit, first, &Waker::from(count.clone()), 0),
            Turn::Due(MILLI)
        );
        line.cancel(&limit, second, 5 * MILLI);
        assert_eq!((count.0.load(Ordering::Relaxed), line.len()), (0, 1));
    }

    // As that of a thread pool owns its task, and with it a future that has its own place in the
    // same line.
    #[test]
    fn a_waker_that_comes_back_when_it_is_dropped_may() {
        struct ComesBack(Arc<(TokenBucket, Line)>, Place);

        impl Wake for ComesBack {
            fn wake(self: Arc<Self>) {}
        }

        impl Drop for ComesBack {
            fn drop(&mut self) {
                self.0.1.cancel(&self.0.0, self.1, 0);
            }
        }

        let (limit, line, [first, second]) = two();
        let shared = Arc::new((limit, line));
        let (limit, line) = &*shared;
        line.look(
            limit,
            first,
            &Waker::from(Arc::new(ComesBack(shared.clone(), second))),
            0,
        );
        line.look(limit, first, Waker::noop(), 0);
        assert_eq!(line.len(), 1);
        let third = line.join(limit, 1, u64::MAX, 9, 0).unwrap();
        line.look(
            limit,
            first,
            &Waker::from(Arc::new(ComesBack(shared.clone(), third))),
            0,
        );
        line.cancel(limit, first, 0);
        assert!(line.is_empty());
    }
}
