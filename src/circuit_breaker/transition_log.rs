//! The log of transitions: the last one, and a feed of all of them for subscribers.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::poll_fn,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_core::Stream;

use crate::algorithm::{BreakerState, Transition};

/// The log of a circuit's transitions, in the order in which they were made.
///
/// The algorithm returns each transition to the one caller that made it. Two such callers may
/// arrive here in either order, so a transition that is early waits for those before it. Every
/// transition that uses up a generation must be entered, or all later ones would wait for it. No
/// user code runs between a transition and its entry, and none under the locks here, so user code
/// cannot prevent an entry.
///
/// The locks are taken on transitions and by readers of snapshots, never by calls that change
/// nothing.
#[derive(Debug)]
pub(super) struct TransitionLog {
    entries: Mutex<Entries>,
    /// Created for the first subscriber: most circuits of most keys never have one.
    feed: OnceLock<Arc<Feed>>,
}

#[derive(Debug)]
struct Entries {
    last: Option<Transition>,
    /// The time at which the circuit left closed, and how many calls it had rejected by then.
    opened: Option<(Duration, u64)>,
    /// The number of the next entry. Its lower bits are the generation.
    next: u64,
    /// The transitions that arrived early, by number.
    early: BTreeMap<u64, Transition>,
}

/// The transitions that subscribers have yet to read.
#[derive(Debug)]
struct Feed(Mutex<Unread>);

#[derive(Debug)]
struct Unread {
    /// The newest transitions.
    recent: VecDeque<Transition>,
    /// The number of transitions before those.
    before: u64,
    /// The wakers of waiting subscribers, by subscriber number.
    waiting: Vec<(u64, Waker)>,
    /// The number of subscribers so far.
    subscribers: u64,
    /// If true, the circuit is gone.
    has_ended: bool,
}

/// Subscribers to be woken, without a lock.
#[must_use]
pub(super) struct Woken(Vec<(u64, Waker)>);

/// A circuit's transitions from the subscription on, in order.
///
/// A subscriber cannot delay the circuit: of more than 64 unread transitions the oldest are
/// dropped, which shows as a gap between two [generations](Transition::generation).
///
/// Also a [`Stream`], which ends with the circuit.
pub struct Transitions {
    feed: Arc<Feed>,
    number: u64,
    /// The number of transitions before the next one to read.
    read: u64,
}

impl TransitionLog {
    pub(super) fn new() -> Self {
        let entries = Entries {
            last: None,
            opened: None,
            next: 1,
            early: BTreeMap::new(),
        };
        Self {
            entries: Mutex::new(entries),
            feed: OnceLock::new(),
        }
    }

    /// Returns when the circuit left closed, if it has not closed since.
    pub(super) fn opened(&self) -> Option<Duration> {
        self.lock().opened.map(|(at, _)| at)
    }

    /// Enters a transition, and passes it and those that waited for it to the subscribers. Returns
    /// all of them, in order.
    pub(super) fn enter(&self, transition: Transition) -> (Vec<Transition>, Woken) {
        let (mut entries, mut entered) = (self.lock(), Vec::with_capacity(1));
        entries.place(transition);
        let feed = self.feed.get();
        // Under the lock, because the order matters.
        while let Some(transition) = entries.take_next() {
            if let Some(feed) = feed {
                feed.push(transition);
            }
            entered.push(transition);
        }
        drop(entries);
        let woken = Woken(feed.map_or_else(Vec::new, |feed| mem::take(&mut feed.lock().waiting)));
        (entered, woken)
    }

    pub(super) fn last(&self) -> Option<Transition> {
        self.lock().last
    }

    pub(super) fn subscribe(&self) -> Transitions {
        let feed = self.feed.get_or_init(|| Arc::new(Feed::new())).clone();
        let (number, read) = feed.lock().subscribe();
        Transitions { feed, number, read }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn place(&mut self, transition: Transition) {
        let generation = u64::from(transition.generation);
        let ahead = generation.wrapping_sub(self.next) % GENERATIONS;
        // In the upper half it is behind `next`: it was given up.
        if ahead < GENERATIONS / 2 {
            self.early.insert(self.next + ahead, transition);
        }
    }

    fn take_next(&mut self) -> Option<Transition> {
        let first = *self.early.first_key_value()?.0;
        // A transition that is missing for so long will not arrive: its thread was killed.
        if first != self.next && self.early.len() <= UNREAD {
            return None;
        }
        let (number, mut transition) = self.early.pop_first()?;
        self.next = number + 1;
        self.account(&mut transition);
        self.last = Some(transition);
        Some(transition)
    }

    /// Changes `rejected` from all that the circuit ever rejected to what it rejected while it was
    /// not closed.
    fn account(&mut self, transition: &mut Transition) {
        let rejected = transition.rejected.take();
        match transition.to {
            BreakerState::Open | BreakerState::ForcedOpen if self.opened.is_none() => {
                self.opened = rejected.map(|rejected| (transition.at, rejected));
            }
            BreakerState::Closed | BreakerState::Disabled | BreakerState::MetricsOnly => {
                if let Some((at, before)) = self.opened.take() {
                    transition.open_for = Some(transition.at.saturating_sub(at));
                    transition.rejected = rejected.map(|rejected| rejected.saturating_sub(before));
                }
            }
            _ => {}
        }
    }
}

impl Feed {
    fn new() -> Self {
        Self(Mutex::new(Unread {
            recent: VecDeque::new(),
            before: 0,
            waiting: Vec::new(),
            subscribers: 0,
            has_ended: false,
        }))
    }

    fn push(&self, transition: Transition) {
        let mut unread = self.lock();
        if unread.recent.len() == UNREAD {
            unread.recent.pop_front();
            unread.before += 1;
        }
        unread.recent.push_back(transition);
    }

    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unread {
    /// Returns the number of a new subscriber, and how many transitions came before it.
    fn subscribe(&mut self) -> (u64, u64) {
        self.subscribers += 1;
        (self.subscribers, self.before + self.recent.len() as u64)
    }

    /// Returns the next transition for a subscriber that has read so many. `None` at the end,
    /// pending if there is none yet.
    fn next(&self, read: &mut u64) -> Poll<Option<Transition>> {
        let place = read.saturating_sub(self.before);
        let next = usize::try_from(place).ok();
        match next.and_then(|place| self.recent.get(place)) {
            Some(transition) => {
                *read = self.before + place + 1;
                Poll::Ready(Some(*transition))
            }
            None if self.has_ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Replaces the waker of a subscriber. Returns the earlier one.
    fn wait(&mut self, number: u64, waker: Option<Waker>) -> Option<Waker> {
        let place = self.waiting.iter().position(|(of, _)| *of == number);
        let before = place.map(|place| self.waiting.swap_remove(place).1);
        self.waiting.extend(waker.map(|waker| (number, waker)));
        before
    }
}

impl Woken {
    pub(super) fn wake(&self) {
        despite_panics(self.0.iter().map(|(_, waker)| || waker.wake_by_ref()));
    }
}

impl Transitions {
    /// Returns the next transition, or `None` once the circuit is gone. Dropping the future while
    /// it waits loses nothing.
    pub async fn next(&mut self) -> Option<Transition> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Returns the next transition, if there is an unread one.
    pub fn try_next(&mut self) -> Option<Transition> {
        match self.feed.lock().next(&mut self.read) {
            Poll::Ready(transition) => transition,
            Poll::Pending => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Transition>> {
        if let Poll::Ready(transition) = self.feed.lock().next(&mut self.read) {
            return Poll::Ready(transition);
        }
        // Cloned and dropped without the lock, because both run user code.
        let waker = cx.waker().clone();
        let mut unread = self.feed.lock();
        let next = unread.next(&mut self.read);
        let waker = next.is_pending().then_some(waker);
        let before = unread.wait(self.number, waker);
        drop(unread);
        drop(before);
        next
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

impl Drop for Transitions {
    fn drop(&mut self) {
        let waker = self.feed.lock().wait(self.number, None);
        drop(waker);
    }
}

impl Drop for TransitionLog {
    /// Ends the streams.
    fn drop(&mut self) {
        let Some(feed) = self.feed.get() else { return };
        let mut unread = feed.lock();
        unread.has_ended = true;
        let woken = Woken(mem::take(&mut unread.waiting));
        drop(unread);
        // A panic here may occur during another panic, which would abort the process.
        let _ = catch_unwind(AssertUnwindSafe(|| woken.wake()));
    }
}

/// Runs all pieces of user code. The first panic resumes after the last piece.
pub(super) fn despite_panics(pieces: impl IntoIterator<Item = impl FnOnce()>) {
    let mut panicked = None;
    for piece in pieces {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(piece)) {
            panicked.get_or_insert(panic);
        }
    }
    if let Some(panic) = panicked {
        resume_unwind(panic);
    }
}

/// The number of transitions that a subscriber may leave unread, and that may wait for a missing
/// one.
const UNREAD: usize = 64;
/// The number of generations, after which they start over.
const GENERATIONS: u64 = 1 << 18;

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;
    use crate::algorithm::{Breaker, BreakerConfig, BreakerState, Cause};

    fn transitions(count: usize) -> Vec<Transition> {
        let breaker = Breaker::new(&BreakerConfig::default(), 1, 0).unwrap();
        (0..count).filter_map(|_| breaker.reset()).collect()
    }

    fn unread(reader: &mut Transitions) -> Vec<u32> {
        std::iter::from_fn(|| reader.try_next())
            .map(|transition| transition.generation)
            .collect()
    }

    #[test]
    fn transitions_entered_out_of_turn_are_told_in_order() {
        let log = TransitionLog::new();
        let mut reader = log.subscribe();
        let made = transitions(4);
        for place in [2, 0, 3] {
            log.enter(made[place]).1.wake();
        }
        assert_eq!(
            (reader.try_next(), reader.try_next()),
            (Some(made[0]), None)
        );
        assert_eq!(log.last(), Some(made[0]));
        log.enter(made[1]).1.wake();
        assert_eq!(
            std::iter::from_fn(|| reader.try_next()).collect::<Vec<_>>(),
            made[1..]
        );
        assert_eq!(log.last(), Some(made[3]));
    }

    #[test]
    fn a_slow_reader_misses_the_oldest_transitions() {
        let log = TransitionLog::new();
        let mut reader = log.subscribe();
        for transition in transitions(100) {
            log.enter(transition).1.wake();
        }
        assert_eq!(unread(&mut reader), (37..=100).collect::<Vec<_>>());
        assert!(unread(&mut log.subscribe()).is_empty());
    }

    #[test]
    fn one_that_never_comes_is_given_up() {
        let log = TransitionLog::new();
        let mut reader = log.subscribe();
        let made = transitions(20_000);
        for transition in &made[1..=UNREAD] {
            log.enter(*transition).1.wake();
        }
        assert!(unread(&mut reader).is_empty());
        for transition in &made[UNREAD + 1..] {
            log.enter(*transition).1.wake();
            assert!(log.lock().early.len() <= UNREAD);
        }
        assert_eq!(log.last(), made.last().copied());
        // Too late by now.
        log.enter(made[0]).1.wake();
        assert_eq!(log.last(), made.last().copied());
        assert_eq!(unread(&mut reader).last(), Some(&20_000));
    }

    #[test]
    fn the_log_goes_on_when_generations_start_over() {
        let log = TransitionLog::new();
        let mut made = transitions(1)[0];
        assert_eq!(
            (made.from, made.to, made.cause),
            (BreakerState::Closed, BreakerState::Closed, Cause::ByHand)
        );
        let all = u32::try_from(GENERATIONS).unwrap();
        for generation in (1..all).chain([1, 0, 2]) {
            made.generation = generation;
            log.enter(made).1.wake();
        }
        assert_eq!(log.last().unwrap().generation, 2);
    }

    /// A waker that counts, and panics if it is told to.
    struct Counting(AtomicUsize, bool);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            assert!(!self.1, "on purpose");
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_asleep() {
        let log = TransitionLog::new();
        let wakers = [false, true, false].map(|panics| Arc::new(Counting(0.into(), panics)));
        let mut readers = [(); 3].map(|()| log.subscribe());
        let made = transitions(2);
        for transition in &made {
            for (reader, waker) in readers.iter_mut().zip(&wakers) {
                let waker = Waker::from(waker.clone());
                // Twice: the same subscriber waits only once.
                for _ in 0..2 {
                    assert!(reader.poll(&mut Context::from_waker(&waker)).is_pending());
                }
            }
            let (_, woken) = log.enter(*transition);
            assert!(catch_unwind(AssertUnwindSafe(|| woken.wake())).is_err());
            for reader in &mut readers {
                assert_eq!(reader.try_next(), Some(*transition));
            }
        }
        let counts = wakers.map(|waker| waker.0.load(Ordering::Relaxed));
        assert_eq!((counts, log.last()), ([2; 3], Some(made[1])));
    }

    #[test]
    fn a_stream_ends_with_its_circuit_and_leaves_no_waker() {
        let log = TransitionLog::new();
        let (mut reader, mut other) = (log.subscribe(), log.subscribe());
        let waker = Arc::new(Counting(0.into(), false));
        let wakes = Waker::from(waker.clone());
        let cx = &mut Context::from_waker(&wakes);
        assert!(reader.poll(cx).is_pending() && other.poll(cx).is_pending());
        drop(other);
        assert_eq!(log.feed.get().unwrap().lock().waiting.len(), 1);
        let made = transitions(1)[0];
        log.enter(made).1.wake();
        drop(log);
        assert_eq!(reader.poll(cx), Poll::Ready(Some(made)));
        assert_eq!(reader.poll(cx), Poll::Ready(None));
        assert_eq!(waker.0.load(Ordering::Relaxed), 1);
    }
}
