//! The future events, in the order of their times.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::jobs::JobId;

/// An event with a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AgendaEvent {
    /// A trouble of this upstream begins or ends.
    Change(usize),
    /// A worker is done with a call.
    Depart(JobId),
    /// This source makes a call.
    Ask(usize),
    /// The circuits are read, for a picture.
    Look,
    /// The caller of a call runs out of patience.
    Leave { place: usize, number: u64 },
}

/// The events by their time, in nanoseconds, and then in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BinaryHeap<Reverse<(u64, u64, AgendaEvent)>>,
    entered: u64,
}

impl Agenda {
    pub(super) fn enter(&mut self, at: u64, event: AgendaEvent) {
        // An event that never happens would only grow the heap.
        if at < u64::MAX {
            self.entered += 1;
            self.events.push(Reverse((at, self.entered, event)));
        }
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    /// Removes the next event, if its time has come.
    pub(super) fn pop(&mut self, now: u64) -> Option<(u64, AgendaEvent)> {
        if self.next_at()? > now {
            return None;
        }
        self.events.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
