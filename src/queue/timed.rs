//! Polls of a ticket together with its timer.
#![cfg(not(keep_loom))]

use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use super::{
    resource::{Resource, TicketOf, Turn, Units},
    setting::Setting,
    shares::{KeyShare, ShareTicket},
    timer::Timer,
    wait_queue::WaitQueueOf,
};
use crate::ambient::clock::Clock;

impl<U: Units> WaitQueueOf<U> {
    /// Polls as [`poll`](Self::poll) does, with a timer that wakes this task.
    pub(crate) fn poll_timed(
        &self,
        resource: &dyn Resource<U>,
        ticket: &mut TicketOf<U>,
        cx: &mut Context<'_>,
        (clock, now): (&Clock, u64),
    ) -> Poll<Turn> {
        let timer = timer_of(ticket, clock);
        poll_until(&timer, cx, (clock, now), |waker, now| {
            self.poll_once(resource, ticket, waker, now)
        })
    }
}

impl KeyShare<'_> {
    /// Polls both queues as [`WaitQueueOf::poll_timed`] does.
    pub(crate) fn poll_timed(
        self,
        ticket: &mut ShareTicket,
        cx: &mut Context<'_>,
        (clock, now): (&Clock, u64),
    ) -> Poll<Turn> {
        let timer = timer_of(&mut ticket.of_key, clock);
        poll_until(&timer, cx, (clock, now), |waker, now| {
            self.poll_once(ticket, waker, now)
        })
    }
}

/// Returns the timer of a ticket, created for its first poll.
fn timer_of<U>(ticket: &mut TicketOf<U>, clock: &Clock) -> Arc<Timer> {
    let timer = || Arc::new(Timer::new(*clock));
    ticket.alarm.get_or_insert_with(timer).clone()
}

/// Polls until the wait ends, and again each time the timer rings.
fn poll_until(
    timer: &Timer,
    cx: &mut Context<'_>,
    (clock, mut now): (&Clock, u64),
    mut poll: impl FnMut(&Waker, u64) -> (Turn, u64),
) -> Poll<Turn> {
    loop {
        match poll(cx.waker(), now) {
            (Turn::Queued(None), _) => return Poll::Pending,
            // The turn has come meanwhile.
            (Turn::Queued(Some(0)), _) => {}
            (Turn::Queued(Some(at)), edition) => {
                timer.want(Setting { edition, at });
                ready!(timer.poll(cx));
            }
            (turn, _) => return Poll::Ready(turn),
        }
        now = clock.now();
    }
}
