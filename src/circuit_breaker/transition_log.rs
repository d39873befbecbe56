//! What has happened: the last transition, and all of them for those who follow.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_core::Stream;
use tokio::sync::broadcast;

use crate::algorithm::{BreakerState, Transition};

/// Transitions in the order in which they were made.
///
/// The algorithm hands each to the one caller that made it, and two such callers may come here in
/// either order. The lock is taken on transitions and by readers of snapshots, never by calls that
/// change nothing.
#[derive(Debug)]
pub(super) struct TransitionLog {
    pages: Mutex<Pages>,
    /// Made for the first subscriber: most circuits of most keys never have one.
    subscribers: OnceLock<broadcast::Sender<Transition>>,
}

#[derive(Debug)]
struct Pages {
    last: Option<Transition>,
    /// When the circuit left closed, and what it had rejected until then.
    opened: Option<(Duration, u64)>,
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
///
/// It also is a [`Stream`], which ends with the circuit.
pub struct Transitions {
    /// `None` while the next transition is waited for.
    receiver: Option<broadcast::Receiver<Transition>>,
    waiting: Option<Waiting>,
}

/// For a transition; it gives the receiver back.
type Waiting = Pin<
    Box<dyn Future<Output = (Option<Transition>, broadcast::Receiver<Transition>)> + Send + Sync>,
>;

impl TransitionLog {
    pub(super) fn new() -> Self {
        let pages = Pages {
            last: None,
            opened: None,
            next: 1,
            early: Vec::new(),
            unsent: VecDeque::new(),
            sending: false,
        };
        Self {
            pages: Mutex::new(pages),
            subscribers: OnceLock::new(),
        }
    }

    /// Sends without the lock, because subscribers' wakers run user code, and one at a time,
    /// because the order counts.
    pub(super) fn enter(&self, transition: Transition) {
        let mut pages = self.lock();
        pages.early.push(transition);
        while let Some(place) = pages
            .early
            .iter()
            .position(|early| early.generation == pages.next)
        {
            let mut transition = pages.early.swap_remove(place);
            pages.account(&mut transition);
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
            let _ = self
                .subscribers
                .get()
                .map(|subscribers| subscribers.send(transition));
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
            receiver: Some(
                self.subscribers
                    .get_or_init(|| broadcast::Sender::new(UNREAD))
                    .subscribe(),
            ),
            waiting: None,
        }
    }
}

impl Pages {
    /// A transition comes with all that the circuit has rejected, and leaves with what it rejected
    /// while it was not closed.
    fn account(&mut self, transition: &mut Transition) {
        let rejected = transition.rejected.take();
        match transition.to {
            BreakerState::Open | BreakerState::ForcedOpen if self.opened.is_none() => {
                self.opened = rejected.map(|rejected| (transition.at, rejected));
            }
            BreakerState::Closed => {
                if let Some((at, before)) = self.opened.take() {
                    transition.open_for = Some(transition.at.saturating_sub(at));
                    transition.rejected = rejected.map(|rejected| rejected.saturating_sub(before));
                }
            }
            _ => {}
        }
    }
}

impl Transitions {
    /// The next transition; `None` once the circuit is gone. Dropped while waiting, it loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Transition> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The next transition, if there is one unread.
    pub fn try_next(&mut self) -> Option<Transition> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(transition) => transition,
            Poll::Pending => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Transition>> {
        let receiver = self.receiver.take();
        let waiting = self.waiting.get_or_insert_with(|| {
            let receiver = receiver.expect("it is here or in the wait");
            Box::pin(receive(receiver))
        });
        let (transition, receiver) = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        self.receiver = Some(receiver);
        Poll::Ready(transition)
    }
}

async fn receive(
    mut receiver: broadcast::Receiver<Transition>,
) -> (Option<Transition>, broadcast::Receiver<Transition>) {
    loop {
        match receiver.recv().await {
            Ok(transition) => return (Some(transition), receiver),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return (None, receiver),
        }
    }
}

impl Stream for Transitions {
    type Item = Transition;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Transition>> {
        self.get_mut().poll(cx)
    }
}

impl fmt::Debug for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transitions").finish_non_exhaustive()
    }
}

/// Lets the next one send, also if a waker panics.
struct Sending<'a>(&'a TransitionLog);

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
        let log = TransitionLog::new();
        let mut reader = log.subscribe();
        let made = transitions(4);
        for place in [2, 0, 3] {
            log.enter(made[place]);
        }
        assert_eq!(
            (reader.try_next(), reader.try_next()),
            (Some(made[0]), None)
        );
        assert_eq!(log.last(), Some(made[0]));
        log.enter(made[1]);
        assert_eq!(
            std::iter::from_fn(|| reader.try_next()).collect::<Vec<_>>(),
            made[1..]
        );
        assert_eq!(log.last(), Some(made[3]));
    }

    #[test]
    fn a_slow_reader_misses_the_oldest_and_holds_nobody_up() {
        let log = TransitionLog::new();
        let mut reader = log.subscribe();
        for transition in transitions(100) {
            log.enter(transition);
        }
        let read: Vec<_> = std::iter::from_fn(|| reader.try_next())
            .map(|transition| transition.generation)
            .collect();
        assert_eq!(read, (37..=100).collect::<Vec<_>>());
    }

    #[test]
    fn the_log_goes_on_when_generations_start_over() {
        let log = TransitionLog::new();
        let mut made = transitions(1)[0];
        assert_eq!(
            (made.from, made.to, made.cause),
            (BreakerState::Closed, BreakerState::Closed, Cause::ByHand)
        );
        for generation in (1..GENERATIONS).chain([0, 1]) {
            made.generation = generation;
            log.enter(made);
        }
        assert_eq!(log.last().unwrap().generation, 1);
    }
}
