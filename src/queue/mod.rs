//! Wait queues in order of arrival, for anything that can be acquired: units of a rate limit,
//! permits of a bulkhead.
//!
//! Why not let each waiter sleep for its hint and ask again? The hints of a hundred waiters are the
//! same moment, at which one is admitted and 99 ask in vain: 400 waiters take 45 000 polls where
//! 800 do. And why not reserve a time of departure for each waiter, once and for all? A slot whose
//! owner is cancelled then stays empty, or lets the waiters behind it bunch.
//!
//! So a waiter acquires nothing before its turn, and a *pumping thread* decides its turn. Each
//! poll, cancellation and release pumps the queue. Pumping acquires for the head, then for the next
//! head, for as long as that succeeds. The pumping thread sets the timer of the head to its turn,
//! and those of the next two to a little later. A waiter's own timer, set when it joins, is later
//! than its turn by 10 ms for each waiter ahead of it. So a waiter is polled when it joins and when
//! its turn has come, also if a stall postpones all turns. Timers set to the old turns would have
//! woken every waiter in vain. A head that is never polled delays the waiters behind it by no more
//! than these 10 ms.
//!
//! Waiters that acquire at the same moment are sent in order. A waiter that is polled before others
//! that acquired earlier is woken once more, behind them. A newcomer joins behind the waiters that
//! have acquired and are about to be polled.
//!
//! **Locks.** The mutex is taken only when a call has to wait. A caller that finds the queue empty
//! reads one word. No user code runs under the mutex: a resource may be a user's own limit, and a
//! waker may run anything. The resource is asked between two critical sections, by one thread at a
//! time. A thread that arrives meanwhile leaves a note, and the pumping thread pumps again.
//!
//! **Order.** By class, and by arrival within a class. A class never overtakes a waiter that has
//! waited for over half of its time. A queue with CoDel serves the newest waiter of the highest
//! class first, and drops old ones, while [it does not drain](crate::algorithm::CoDel).
//!
//! **Cost.** A timer and its handle are allocated per waiter. Joining, leaving and cancelling one
//! of n waiters is O(log n).

mod by_key;
#[cfg(all(test, keep_loom))]
mod loom_model;
#[cfg(any(not(keep_loom), test))]
mod queue_count;
mod resource;
mod setting;
mod shares;
#[cfg(all(test, not(keep_loom)))]
mod tests;
mod timed;
#[cfg(not(keep_loom))]
mod timer;
#[cfg(keep_loom)]
#[path = "no_timer.rs"]
mod timer;
mod wait_queue;
mod waiters;

#[cfg(not(keep_loom))]
pub(crate) use by_key::QueuesByKey;
pub(crate) use resource::{Blocked, Bounds, ONE_CLASS, Overdue, Resource, Ticket, TicketOf, Turn};
pub(crate) use shares::{KeyShare, ShareTicket, Total};
pub(crate) use wait_queue::{WaitQueue, WaitQueueOf};
