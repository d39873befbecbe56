//! Waiters in order of arrival, for anything that can be acquired: units of a rate limit, places of
//! a bulkhead.
//!
//! Why not let each waiter sleep for its hint and ask again? The hints of a hundred waiters are the
//! same moment, at which one is admitted and 99 ask in vain: 400 waiters take 45 000 polls where
//! 800 do. And why not reserve a time of departure for each, once for all? A slot whose owner is
//! cancelled then stays empty, or lets those behind it bunch.
//!
//! So a waiter takes nothing before its turn, and its turn is decided by *the one that pumps*: the
//! queue is pumped by each poll, cancellation and release, and pumping acquires for the head, and
//! for the next head, for as long as that succeeds. The one that pumps sets the timer of the head
//! to its turn, and those of the next two to a little later. A waiter's own timer, set when it
//! joins, is later than its turn by 10 ms for each that is ahead of it. So a waiter is polled when
//! it joins and when its turn has come, also if a stall puts off all turns: timers that rang at the
//! old ones would have woken everybody in vain. A head that is never polled holds those behind it
//! up by no more than these 10 ms.
//!
//! Those that acquire at the same moment are sent in order. One that is polled before others that
//! acquired before it is woken once more behind them. A newcomer joins behind those that have
//! acquired and are about to be polled.
//!
//! **Locks.** The mutex is taken only when somebody has to wait; a caller that finds the queue
//! empty reads one word. Nothing foreign runs under it: a resource may be a user's own limit, and a
//! waker runs anything. The resource is asked between two locks, by one thread at a time, and who
//! comes meanwhile leaves a note for that one to go round once more.
//!
//! **Order.** By class, and by arrival within a class. A class never overtakes a waiter that has
//! waited for over half of its time. A queue for which that is asked serves the newest of the
//! highest class first, and drops the old ones, while [it does not drain](crate::algorithm::CoDel).
//!
//! **Cost.** A timer and its handle are allocated for a waiter. Joining, leaving and cancelling one
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
pub(crate) use shares::{Share, ShareTicket, Total};
pub(crate) use wait_queue::{WaitQueue, WaitQueueOf};
