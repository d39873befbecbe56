//! Polls of a place in a queue, with its timer.
#![cfg(not(keep_loom))]

use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use super::{
    resource::{Resource, TicketOf, Turn, Units},
    setting::Setting,
    shares::{Share, ShareTicket},
    timer::Timer,
    wait_queue::WaitQueueOf,
};
use crate::ambient::clock::Clock;

impl<U: Units> WaitQueueOf<U> {
    /// As [`poll`](Self::poll), with a timer for the waiter, which this task is woken by.
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

impl Share<'_> {
    /// As [`WaitQueueOf::poll_timed`], in either queue.
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

/// The timer of a ticket, made for its first poll.
fn timer_of<U>(ticket: &mut TicketOf<U>, clock: &Clock) -> Arc<Timer> {
    let timer = || Arc::new(Timer::new(*clock));
    ticket.alarm.get_or_insert_with(timer).clone()
}

/// Ready when a poll ends the wait. Polls again when the timer rings.
fn poll_until(
    timer: &Timer,
    cx: &mut Context<'_>,
    (clock, mut now): (&Clock, u64),
    mut poll: impl FnMut(&Waker, u64) -> (Turn, u64),
) -> Poll<Turn> {
    loop {
        match poll(cx.waker(), now) {
            (Turn::Queued(None), _) => return Poll::Pending,
            // Its turn has come meanwhile.
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
