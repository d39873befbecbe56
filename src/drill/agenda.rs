//! The events to come, in the order of their moments.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::jobs::JobId;

/// Something that happens at its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A trouble of the upstream of this number begins or ends.
    Change(usize),
    /// A worker is done with a call.
    Depart(JobId),
    /// The source of this number asks.
    Ask(usize),
    /// The circuits are looked at, for a picture.
    Look,
    /// The caller of a call loses patience.
    Leave { place: usize, number: u64 },
}

/// Events by their moment, in nanoseconds, and then as they were entered.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    entered: u64,
}

impl Agenda {
    pub(super) fn enter(&mut self, at: u64, event: Event) {
        // What never comes would only grow the heap.
        if at < u64::MAX {
            self.entered += 1;
            self.events.push(Reverse((at, self.entered, event)));
        }
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next event, if its moment has come.
    pub(super) fn pop(&mut self, now: u64) -> Option<(u64, Event)> {
        if self.next_at()? > now {
            return None;
        }
        self.events.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
