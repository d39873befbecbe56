//! Places of which each key has a guaranteed share, and all keys together have a total.
//!
//! A call is admitted if its key is below its share, or if there is room in the total. So a call
//! that waits may be served for either of two reasons, and it waits for both at once, in two
//! queues: that of its key, for the key's next place to come free, and the one queue of the total,
//! in which the calls of all keys stand by their arrival. Whichever comes first is taken, and the
//! other place is given up.
//!
//! Why not one queue for all? Its head may be of a key that has more than its share, and would
//! hold up a call behind it whose key has less: a guarantee that a greedy neighbour can take away.
//! And why not first the one and then the other, as with a rate limit and its total? Those must
//! *both* admit a call, and here one is enough.
//!
//! **Guarantee.** What is admitted for the total never passes it, and what a key is admitted for
//! its share never passes that. So no more run than the total and all shares together.
//!
//! **Order.** By arrival among the calls of a key, and among all that wait for the total. A waiter
//! may be given both before it polls. It keeps its key's and hands the other on at once, so that a
//! place is idle for no longer than a woken task takes to run.

use std::{sync::Arc, task::Waker};

use super::{
    resource::{Blocked, Bounds, Overdue, Resource, Ticket, Turn},
    wait_queue::WaitQueue,
};
use crate::algorithm::InFlight;

/// What all keys together have in flight, and the calls that wait for that.
#[derive(Debug)]
pub(crate) struct Total {
    pub(crate) places: InFlight,
    pub(crate) queue: WaitQueue,
    /// What of all keys is held too long, if that is taken back.
    pub(crate) overdue: Option<Arc<dyn Overdue>>,
}

/// The share of one key.
#[derive(Clone, Copy)]
pub(crate) struct Share<'a> {
    /// All calls of the key, for whichever reason they were admitted; the limit is the share.
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

/// The places of a total, as its queue sees them. What is acquired here is entered in the key's
/// count when its waiter polls: the queue does not know whose it is. Until then the key's count is
/// low by that, which admits no more for its share than the share.
struct OfTotal<'a>(&'a Total);

/// The places of a share, as the key's queue sees them.
struct OfKey<'a>(Share<'a>);

impl Total {
    pub(crate) fn new(limit: usize, queue: WaitQueue) -> Self {
        Self {
            places: InFlight::new(limit),
            queue,
            overdue: None,
        }
    }

    /// Takes back what is held too long, if that is done here.
    fn take_back(&self, now: u64) -> Option<(usize, u64)> {
        let overdue = self.overdue.as_ref();
        overdue.map(|overdue| overdue.take_back(now))
    }

    /// The total has changed. After a raise, those that wait come in.
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

impl Share<'_> {
    /// Enters for the key's share, or for the total where nobody waits for that. Nobody of the key
    /// may be waiting.
    pub(crate) fn enter(self, percent: u8) -> bool {
        // Each counter decides by itself, in one step, and the other one follows.
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

    /// Gives a place back, and admits those that wait for it: of the key first, which may be below
    /// its share now.
    pub(crate) fn leave(self, now: impl Fn() -> u64) {
        self.places.leave();
        self.total.places.leave();
        if self.queue.has_waiters_after_leave() {
            self.queue.pump_now(&OfKey(self), now());
        }
        self.total.pump_after_leave(now);
    }

    /// The key's share has changed.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn notify(self, now: impl Fn() -> u64) {
        self.queue.notify(&OfKey(self), &now);
    }

    /// Joins both queues. At most so many as the bounds say wait in that of the key, and
    /// `max_total` in that of the total.
    /// `None` if there are more, or if the bounds have passed.
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

    /// Returns whether the turn has come, in either queue, and the edition of the time to wait for.
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
                    // Before the key's queue is left: that may admit another of the key.
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

    /// The key's queue goes on by itself; that of the total has to be told, because what was
    /// acquired here counted there too.
    fn give_back(&self, _: u32, now: u64) {
        self.0.places.leave();
        self.0.total.places.leave();
        self.0.total.pump_after_leave(|| now);
    }
}
