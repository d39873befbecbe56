//! The wait queue.

use std::{sync::PoisonError, task::Waker};

use super::{
    resource::{Blocked, Bounds, Resource, TicketOf, Turn, Units},
    waiters::{Head, Queue, Settled, Waiter, Wakeups},
};
use crate::algorithm::CoDel;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, after_seq_cst_write, fence};

#[derive(Debug)]
pub(crate) struct WaitQueueOf<U: Units> {
    /// The number of waiters in the low 32 bits. Above them, the number of calls that have acquired
    /// and are about to poll. Relaxed but for the fences of [`join`](Self::join) and
    /// [`notify`](Self::notify): it only sends newcomers to the mutex, which orders everything
    /// else. A newcomer that misses the first waiter arrived at the same time, and may as well be
    /// first.
    waiting: AtomicU64,
    queue: Mutex<Queue<U>>,
}

/// A queue for units of one kind.
pub(crate) type WaitQueue = WaitQueueOf<u32>;

impl<U: Units> Default for WaitQueueOf<U> {
    fn default() -> Self {
        Self {
            waiting: AtomicU64::new(0),
            queue: Mutex::new(Queue::default()),
        }
    }
}

impl<U: Units> WaitQueueOf<U> {
    /// Creates a queue that serves the newest waiter first while it does not drain. Only for single
    /// units that only a release can free: it has no forecast of turns.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn with_codel(codel: CoDel) -> Self {
        let queue = Queue {
            codel: Some(codel),
            ..Queue::default()
        };
        Self {
            waiting: AtomicU64::new(0),
            queue: Mutex::new(queue),
        }
    }

    /// Returns whether no call is before a newcomer: none waits, and none has acquired that is yet
    /// to be sent.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Returns the number of waiters.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        waiters(self.waiting.load(Ordering::Relaxed))
    }

    /// Returns whether there are no waiters, and no ticket that has yet to learn that its wait is
    /// over.
    pub(crate) fn is_unused(&self) -> bool {
        self.lock().is_unused()
    }

    /// Joins at the end of the waiter's class. Poll the ticket next.
    ///
    /// # Errors
    /// The queue is full, or the turn would come too late. The error is the wait in nanoseconds,
    /// where that is known.
    pub(crate) fn join(
        &self,
        resource: &dyn Resource<U>,
        units: U,
        bounds: Bounds,
        now: u64,
    ) -> Result<TicketOf<U>, Option<u64>> {
        // Asked before the lock is taken. Others may join meanwhile, so the wait is an estimate.
        let wait = resource.ready_in(units, self.units(), now);
        if wait.is_some_and(|wait| now.saturating_add(wait) > bounds.until) || now > bounds.until {
            return Err(wait);
        }
        let mut queue = self.lock();
        if queue.waiters.len() >= bounds.max_waiting {
            return Err(wait);
        }
        let latest = bounds.until.saturating_add(bounds.grace);
        let ticket = TicketOf {
            number: queue.next_number,
            units,
            latest,
            alarm: None,
        };
        let waiter = Waiter {
            class: bounds.class,
            units,
            before: queue.joined_units,
            joined_at: now,
            ready_at: wait.map(|wait| now.saturating_add(wait)),
            timer: None,
            latest,
            edition: 0,
            waker: None,
            alarm: None,
        };
        queue.next_number += 1;
        queue.joined_units = units.add_to(queue.joined_units);
        queue.insert(ticket.number, waiter);
        self.publish(&queue);
        drop(queue);
        // Partner of the fence in `notify`. A release that does not see this waiter is seen by the
        // attempt of its first poll. Without the fences both could miss each other.
        fence(Ordering::SeqCst);
        Ok(ticket)
    }

    /// Returns whether the turn has come. If not, keeps the waker.
    ///
    /// A waiter that has acquired lets others go first that acquired before it and are yet to be
    /// sent: it is woken after them, and then sent.
    pub(crate) fn poll(
        &self,
        resource: &dyn Resource<U>,
        ticket: &TicketOf<U>,
        waker: &Waker,
        now: u64,
    ) -> Turn {
        self.poll_once(resource, ticket, waker, now).0
    }

    /// Polls as [`poll`](Self::poll) does. Returns also the edition of the time that the timer is
    /// to be set to.
    pub(super) fn poll_once(
        &self,
        resource: &dyn Resource<U>,
        ticket: &TicketOf<U>,
        waker: &Waker,
        now: u64,
    ) -> (Turn, u64) {
        // Cloned before the lock is taken, because a waker's clone is user code.
        let waker = waker.clone();
        self.pump(resource, Some(ticket.number), now);
        let late = now > ticket.latest;
        let mut queue = self.lock();
        if queue.yields(ticket.number) {
            self.publish(&queue);
            drop(queue);
            waker.wake();
            return (Turn::Queued(None), 0);
        }
        if let Some(settled) = queue.take_settled(ticket.number) {
            self.publish(&queue);
            drop(queue);
            let turn = match settled {
                Settled::Acquired => Turn::Acquired,
                Settled::TooLate => Turn::TooLate(resource.ready_in(ticket.units, U::NONE, now)),
                Settled::Never => Turn::Never,
            };
            return (turn, 0);
        }
        if late {
            let removed = queue.remove(ticket.number);
            self.publish(&queue);
            drop(queue);
            drop(removed);
            return (
                Turn::TooLate(resource.ready_in(ticket.units, U::NONE, now)),
                0,
            );
        }
        let before = queue.units_before(ticket.number);
        let Some(waiter) = queue.waiters.get_mut(&ticket.number) else {
            return (Turn::Never, 0);
        };
        let kept = waiter.keep(waker);
        if waiter.alarm.is_none() {
            waiter.alarm.clone_from(&ticket.alarm);
        }
        let due = waiter.ready_at.is_some_and(|ready_at| ready_at <= now);
        if due {
            // Its time has come, and others are still ahead: the rate was lowered, or a penalty was
            // set. Asks for the new forecast without the lock.
            drop(queue);
            let wait = resource.ready_in(ticket.units, before, now);
            queue = self.lock();
            if let Some(waiter) = queue.waiters.get_mut(&ticket.number) {
                waiter.ready_at = wait.map(|wait| now.saturating_add(wait.max(1)));
            }
        }
        let turn = queue.arm(ticket.number);
        drop(queue);
        // Dropped after unlocking, because a waker's drop is user code.
        drop(kept);
        turn
    }

    /// Gives up a place, or what was acquired for it. Costs O(log n).
    pub(crate) fn cancel(&self, resource: &dyn Resource<U>, ticket: &TicketOf<U>, now: u64) {
        let mut queue = self.lock();
        let was_head = queue
            .head(now)
            .is_some_and(|head| head.number == ticket.number);
        let removed = queue.remove(ticket.number);
        let settled = queue.take_settled(ticket.number);
        self.publish(&queue);
        drop(queue);
        drop(removed);
        let acquired = matches!(settled, Some(Settled::Acquired));
        if acquired {
            resource.give_back(ticket.units, now);
        }
        if acquired || was_head {
            self.pump(resource, None, now);
        }
    }

    /// Pumps after a change of the resource outside the queue: units came back, or the rate
    /// changed. Costs a fence and one load if there are no waiters.
    #[inline]
    pub(crate) fn notify(&self, resource: &dyn Resource<U>, now: impl FnOnce() -> u64) {
        // Partner of the fence in `join`: the change was made before it.
        fence(Ordering::SeqCst);
        if self.waiting() > 0 {
            self.pump(resource, None, now());
        }
    }

    /// Returns whether there are waiters for what a `SeqCst` write has just given back. Checks what
    /// [`notify`](Self::notify) checks, without its fence, which costs as much as the write.
    #[inline(always)]
    pub(crate) fn has_waiters_after_leave(&self) -> bool {
        after_seq_cst_write();
        // SeqCst: in the total order this load follows the write. If it misses a waiter, the write
        // is before the fence of `join`, and the attempt after that fence sees the write.
        waiters(self.waiting.load(Ordering::SeqCst)) > 0
    }

    /// Decides the turns of the first waiters.
    pub(crate) fn pump_now(&self, resource: &dyn Resource<U>, now: u64) {
        self.pump(resource, None, now);
    }

    /// Returns the units of all waiters.
    pub(crate) fn units(&self) -> U::Sum {
        if self.waiting() == 0 {
            return U::NONE;
        }
        let queue = self.lock();
        let first = queue
            .waiters
            .first_key_value()
            .map(|(_, waiter)| waiter.before);
        first.map_or(U::NONE, |before| U::between(before, queue.joined_units))
    }

    /// Decides the head's turn, and the next one's, until a head continues to wait. The waiter
    /// `own` is polling now and need not be woken.
    fn pump(&self, resource: &dyn Resource<U>, own: Option<u64>, now: u64) {
        let mut now = now;
        loop {
            let Some(head) = self.begin(now) else { return };
            let mut pumping = Pumping(Some(self));
            let decision = if now > head.latest || head.dropped {
                Ok(Settled::TooLate)
            } else {
                let ready_at = head.ready_at.map_or(now, |ready_at| ready_at.min(now));
                match resource.acquire(head.units, ready_at, now) {
                    Ok(()) => Ok(Settled::Acquired),
                    Err(Blocked::Forever) => Ok(Settled::Never),
                    Err(Blocked::For(wait)) if now.saturating_add(wait) > head.latest => {
                        Ok(Settled::TooLate)
                    }
                    Err(blocked) => Err(blocked),
                }
            };
            pumping.0 = None;
            let step = self.end(head, decision, own, now);
            match step.run(resource, head, now) {
                Some(then) => now = now.max(then),
                None => return,
            }
        }
    }

    /// Takes the right to decide on the head, or leaves a note to the thread that has it.
    fn begin(&self, now: u64) -> Option<Head<U>> {
        let mut queue = self.lock();
        queue.look(now);
        let head = queue.head(now)?;
        if queue.pumping {
            queue.again = Some(queue.again.map_or(now, |again| again.max(now)));
            return None;
        }
        queue.pumping = true;
        Some(head)
    }

    /// Records the decision on the head.
    fn end(
        &self,
        head: Head<U>,
        decision: Result<Settled, Blocked>,
        own: Option<u64>,
        now: u64,
    ) -> Step {
        let mut queue = self.lock();
        queue.pumping = false;
        let again = queue.again.take();
        let settled = match decision {
            Ok(settled) => settled,
            Err(blocked) => {
                return Step {
                    again,
                    ..Step::to(queue.postpone(blocked, own, now))
                };
            }
        };
        let removed = queue.remove(head.number);
        let is_own = own == Some(head.number);
        if let Some(waiter) = &removed {
            queue.settle(waiter, head.number, settled);
        }
        self.publish(&queue);
        drop(queue);
        let Some(mut waiter) = removed else {
            // The head was cancelled during the decision.
            return Step {
                lost: settled == Settled::Acquired,
                again: Some(again.unwrap_or(now)),
                ..Step::to(Wakeups::default())
            };
        };
        let waker = waiter.waker.take().filter(|_| !is_own);
        Step {
            again: Some(again.unwrap_or(now)),
            ..Step::to(Wakeups::wake(waker))
        }
    }

    fn publish(&self, queue: &Queue<U>) {
        self.waiting.store(queue.word(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<U>> {
        // No panic can occur between two changes that belong together, so a poisoned queue is
        // consistent.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the number of waiters in a word made by [`Queue::word`].
#[inline]
fn waiters(word: u64) -> usize {
    // The number has 32 bits. On machines where it does not fit `usize`, it saturates: too many
    // waiters, never too few.
    usize::try_from(word & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

/// The remaining steps after a decision, taken without the lock.
struct Step {
    calls: Wakeups,
    /// If true, what was acquired has no owner any more.
    lost: bool,
    /// The least time to pump again with, if the queue must be pumped again.
    again: Option<u64>,
}

impl Step {
    fn to(calls: Wakeups) -> Self {
        Self {
            calls,
            lost: false,
            again: None,
        }
    }

    /// Returns the time to pump again with.
    fn run<U: Units>(self, resource: &dyn Resource<U>, head: Head<U>, now: u64) -> Option<u64> {
        if self.lost {
            resource.give_back(head.units, now);
        }
        self.calls.make();
        self.again
    }
}

/// A guard that gives up the right to pump, also if the resource panics.
struct Pumping<'a, U: Units>(Option<&'a WaitQueueOf<U>>);

impl<U: Units> Drop for Pumping<'_, U> {
    fn drop(&mut self) {
        if let Some(queue) = self.0 {
            queue.lock().pumping = false;
        }
    }
}
