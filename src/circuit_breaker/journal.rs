//! What has happened: the last transition, and all of them for those who follow.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use crate::algorithm::Transition;

/// Transitions in the order in which they were made.
///
/// The algorithm hands each to the one caller that made it, and two such callers may come here in
/// either order. The lock is taken on transitions and by readers of snapshots, never by calls that
/// change nothing.
#[derive(Debug)]
pub(super) struct Journal {
    pages: Mutex<Pages>,
    subscribers: broadcast::Sender<Transition>,
}

#[derive(Debug)]
struct Pages {
    last: Option<Transition>,
    /// The generation that follows on the last one.
    next: u32,
    /// What came before its turn.
    early: Vec<Transition>,
    /// What is to be sent next, in order.
    unsent: VecDeque<Transition>,
    /// Whether a thread is sending just now. It sends what others enter meanwhile.
    sending: bool,
}

/// A circuit's transitions from the moment of subscribing on, in order.
///
/// It cannot hold the circuit up: of more than 64 unread ones the oldest are dropped, which shows
/// as a gap between two [generations](Transition::generation).
#[derive(Debug)]
pub struct Transitions {
    receiver: broadcast::Receiver<Transition>,
}

impl Journal {
    pub(super) fn new() -> Self {
        let pages = Pages {
            last: None,
            next: 1,
            early: Vec::new(),
            unsent: VecDeque::new(),
            sending: false,
        };
        Self {
            pages: Mutex::new(pages),
            subscribers: broadcast::Sender::new(UNREAD),
        }
    }

    /// Sends without the lock, because subscribers' wakers run foreign code, and one at a time,
    /// because the order counts.
    pub(super) fn enter(&self, transition: Transition) {
        let mut pages = self.lock();
        pages.early.push(transition);
        while let Some(place) = pages
            .early
            .iter()
            .position(|early| early.generation == pages.next)
        {
            let transition = pages.early.swap_remove(place);
            pages.last = Some(transition);
            pages.next = (pages.next + 1) % GENERATIONS;
            pages.unsent.push_back(transition);
        }
        if pages.sending {
            return;
        }
        while let Some(transition) = pages.unsent.pop_front() {
            pages.sending = true;
            drop(pages);
            let sending = Sending(self);
            // An error says that nobody listens.
            let _ = self.subscribers.send(transition);
            drop(sending);
            pages = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last(&self) -> Option<Transition> {
        self.lock().last
    }

    pub(super) fn subscribe(&self) -> Transitions {
        Transitions {
            receiver: self.subscribers.subscribe(),
        }
    }
}

impl Transitions {
    /// The next transition; `None` once the circuit is gone. Dropped while waiting, it loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Transition> {
        loop {
            match self.receiver.recv().await {
                Ok(transition) => return Some(transition),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next transition, if there is one unread.
    pub fn try_next(&mut self) -> Option<Transition> {
        loop {
            match self.receiver.try_recv() {
                Ok(transition) => return Some(transition),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Lets the next one send, also if a waker panics.
struct Sending<'a>(&'a Journal);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.lock().sending = false;
    }
}

/// As many as a subscriber may leave unread.
const UNREAD: usize = 64;
/// After this many they start over.
const GENERATIONS: u32 = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{Breaker, BreakerConfig, BreakerState, Cause};

    fn transitions(count: usize) -> Vec<Transition> {
        let breaker = Breaker::new(&BreakerConfig::default(), 1, 0).unwrap();
        (0..count).filter_map(|_| breaker.reset()).collect()
    }

    #[test]
    fn transitions_entered_out_of_turn_are_told_in_order() {
        let journal = Journal::new();
        let mut reader = journal.subscribe();
        let made = transitions(4);
        for place in [2, 0, 3] {
            journal.enter(made[place]);
        }
        assert_eq!(
            (reader.try_next(), reader.try_next()),
            (Some(made[0]), None)
        );
        assert_eq!(journal.last(), Some(made[0]));
        journal.enter(made[1]);
        assert_eq!(
            std::iter::from_fn(|| reader.try_next()).collect::<Vec<_>>(),
            made[1..]
        );
        assert_eq!(journal.last(), Some(made[3]));
    }

    #[test]
    fn a_slow_reader_misses_the_oldest_and_holds_nobody_up() {
        let journal = Journal::new();
        let mut reader = journal.subscribe();
        for transition in transitions(100) {
            journal.enter(transition);
        }
        let read: Vec<_> = std::iter::from_fn(|| reader.try_next())
            .map(|transition| transition.generation)
            .collect();
        assert_eq!(read, (37..=100).collect::<Vec<_>>());
    }

    #[test]
    fn the_journal_goes_on_when_generations_start_over() {
        let journal = Journal::new();
        let mut made = transitions(1)[0];
        assert_eq!(
            (made.from, made.to, made.cause),
            (BreakerState::Closed, BreakerState::Closed, Cause::ByHand)
        );
        for generation in (1..GENERATIONS).chain([0, 1]) {
            made.generation = generation;
            journal.enter(made);
        }
        assert_eq!(journal.last().unwrap().generation, 1);
    }
}
