//! Permits with a guaranteed share per key and a total over all keys.
//!
//! A call is admitted if its key is below its share, or if there is room in the total. So a waiting
//! call may be served for either of two reasons, and it waits for both at once, in two queues. Its
//! key's queue waits for the key's next free permit. The one queue of the total holds the calls of
//! all keys by arrival. The call takes whichever comes first, and leaves the other queue.
//!
//! Why not one queue for all? Its head may be of a key that has more than its share, and would
//! block a call behind it whose key has less. A greedy key could then take a guarantee away. And
//! why not one check after the other, as with a rate limit and its total? Those must *both* admit a
//! call, and here one is enough.
//!
//! **Guarantee.** Calls admitted for the total never exceed it, and calls that a key is admitted
//! for its share never exceed the share. So no more calls run than the total and all shares
//! together.
//!
//! **Order.** By arrival among the calls of a key, and among all calls that wait for the total. A
//! waiter may be given both permits before it polls. It then keeps its key's and passes the other
//! on at once, so a permit is idle for no longer than a woken task takes to run.

use std::{sync::Arc, task::Waker};

use super::{
    resource::{Blocked, Bounds, Overdue, Resource, Ticket, Turn},
    wait_queue::WaitQueue,
};
use crate::algorithm::InFlight;

/// The number in flight of all keys together, and the calls that wait for the total.
#[derive(Debug)]
pub(crate) struct Total {
    pub(crate) places: InFlight,
    pub(crate) queue: WaitQueue,
    /// The overdue permits of all keys, if those are taken back.
    pub(crate) overdue: Option<Arc<dyn Overdue>>,
}

/// The share of one key.
#[derive(Clone, Copy)]
pub(crate) struct KeyShare<'a> {
    /// All calls of the key in flight, for whichever reason they were admitted. The limit is the
    /// share.
    pub(crate) places: &'a InFlight,
    pub(crate) queue: &'a WaitQueue,
    pub(crate) total: &'a Total,
}

/// A place in both queues.
#[derive(Debug)]
pub(crate) struct ShareTicket {
    pub(super) of_key: Ticket,
    of_total: Ticket,
}

/// The permits of a total, as its queue sees them. A permit acquired here enters the key's count
/// only when its waiter polls, because the queue does not know the waiter's key. Until then the
/// key's count is too low by one. That never admits more for the share than the share.
struct OfTotal<'a>(&'a Total);

/// The permits of a share, as the key's queue sees them.
struct OfKey<'a>(KeyShare<'a>);

impl Total {
    pub(crate) fn new(limit: usize, queue: WaitQueue) -> Self {
        Self {
            places: InFlight::new(limit),
            queue,
            overdue: None,
        }
    }

    /// Takes back the permits that are overdue, if that is enabled.
    fn take_back(&self, now: u64) -> Option<(usize, u64)> {
        let overdue = self.overdue.as_ref();
        overdue.map(|overdue| overdue.take_back(now))
    }

    /// Notifies the queue of a change of the total. After a raise, waiters are admitted.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn notify(&self, now: impl FnOnce() -> u64) {
        self.queue.notify(&OfTotal(self), now);
    }

    fn pump_after_leave(&self, now: impl FnOnce() -> u64) {
        if self.queue.has_waiters_after_leave() {
            self.queue.pump_now(&OfTotal(self), now());
        }
    }
}

impl KeyShare<'_> {
    /// Enters for the key's share, or for the total if that has no waiters. The key itself must
    /// have no waiters.
    pub(crate) fn enter(self, percent: u8) -> bool {
        // Each counter decides by itself, in one step, and the other counter follows.
        if self.places.enter_within(percent) {
            self.total.places.enter_anyway();
            return true;
        }
        let entered = self.total.queue.is_empty() && self.total.places.enter_within(percent);
        if entered {
            self.places.enter_anyway();
        }
        entered
    }

    /// Gives a permit back, and admits waiters for it: first of this key, which may be below its
    /// share now.
    pub(crate) fn leave(self, now: impl Fn() -> u64) {
        self.places.leave();
        self.total.places.leave();
        if self.queue.has_waiters_after_leave() {
            self.queue.pump_now(&OfKey(self), now());
        }
        self.total.pump_after_leave(now);
    }

    /// Notifies the queue of a change of the key's share.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn notify(self, now: impl Fn() -> u64) {
        self.queue.notify(&OfKey(self), &now);
    }

    /// Joins both queues. The key's queue admits as many waiters as `bounds` allow, that of the
    /// total `max_total`. Returns `None` if either is full, or if the bounds have passed.
    pub(crate) fn join(self, bounds: Bounds, max_total: usize, now: u64) -> Option<ShareTicket> {
        let of_total = OfTotal(self.total);
        let of_key = self.queue.join(&OfKey(self), 1, bounds, now).ok()?;
        let bounds = Bounds {
            max_waiting: max_total,
            ..bounds
        };
        match self.total.queue.join(&of_total, 1, bounds, now) {
            Ok(of_total) => Some(ShareTicket { of_key, of_total }),
            Err(_) => {
                self.queue.cancel(&OfKey(self), &of_key, now);
                None
            }
        }
    }

    /// Polls both queues. Returns the turn, and the edition of the time to wait for.
    pub(super) fn poll_once(self, ticket: &ShareTicket, waker: &Waker, now: u64) -> (Turn, u64) {
        let ShareTicket { of_key, of_total } = ticket;
        let (key_wake, edition) = match self.queue.poll_once(&OfKey(self), of_key, waker, now) {
            (Turn::Queued(wake), edition) => (wake, edition),
            settled => {
                self.cancel_of_total(of_total, now);
                return settled;
            }
        };
        let resource = OfTotal(self.total);
        let turn = match self.total.queue.poll(&resource, of_total, waker, now) {
            Turn::Queued(wake) => Turn::Queued(match (key_wake, wake) {
                (Some(key), Some(total)) => Some(key.min(total)),
                (key, total) => key.or(total),
            }),
            settled => {
                if settled == Turn::Acquired {
                    // Before leaving the key's queue, which may admit another call of the key.
                    self.places.enter_anyway();
                }
                self.queue.cancel(&OfKey(self), of_key, now);
                settled
            }
        };
        (turn, edition)
    }

    /// Gives up the place in both queues, or what was acquired for it.
    pub(crate) fn cancel(self, ticket: &ShareTicket, now: u64) {
        self.queue.cancel(&OfKey(self), &ticket.of_key, now);
        self.cancel_of_total(&ticket.of_total, now);
    }

    fn cancel_of_total(self, ticket: &Ticket, now: u64) {
        let resource = OfTotal(self.total);
        self.total.queue.cancel(&resource, ticket, now);
    }
}

impl Resource for OfTotal<'_> {
    fn acquire(&self, _: u32, _: u64, now: u64) -> Result<(), Blocked> {
        let take_back = || self.0.take_back(now);
        Blocked::unless(|| self.0.places.enter(), take_back, now)
    }

    fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn give_back(&self, _: u32, _: u64) {
        self.0.places.leave();
    }
}

impl Resource for OfKey<'_> {
    fn acquire(&self, _: u32, _: u64, now: u64) -> Result<(), Blocked> {
        let take_back = || self.0.total.take_back(now);
        Blocked::unless(|| self.0.places.enter(), take_back, now)?;
        self.0.total.places.enter_anyway();
        Ok(())
    }

    fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
        None
    }

    /// Only the queue of the total must be pumped here, because what was acquired counted there
    /// too. The key's queue pumps itself.
    fn give_back(&self, _: u32, now: u64) {
        self.0.places.leave();
        self.0.total.places.leave();
        self.0.total.pump_after_leave(|| now);
    }
}
