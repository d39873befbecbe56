//! The task that asks the store: one for each layer.
//!
//! The first call that finds too few units starts it, on that call's runtime. It is started again
//! when that runtime has ended. One batch is in flight at a time, for all keys that need something,
//! so a slow store is asked less often. Each batch has a timeout, and three failures in a row open
//! a circuit. The task sleeps while no key needs anything, and ends with the layer.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::{
    Outcome,
    ambient::{chance, clock::nanos},
    rate_limit::fleet::{
        Fleet,
        book::{Held, Look, base},
        entry::Entry,
    },
    store::{Ask, Grant, StoreError},
};

/// An ask in flight, and its key.
struct Out {
    entry: Arc<Entry>,
    ask: Ask,
}

/// Runs until the layer is dropped, or another task has taken over.
pub(super) async fn run(fleet: Weak<Fleet>, wake: Arc<Notify>, number: u64) {
    let _ended = TaskGuard {
        fleet: fleet.clone(),
        number,
    };
    let mut keys = Vec::new();
    loop {
        let next = {
            let Some(fleet) = fleet.upgrade() else { return };
            if fleet.task.number.load(Ordering::Acquire) != number {
                // These keys are marked as listed, but the other task does not have them.
                fleet.newcomers().append(&mut keys);
                return;
            }
            fleet.round(&mut keys).await
        };
        match next {
            Some(wait) => drop(timeout(wait, wake.notified()).await),
            None => wake.notified().await,
        }
    }
}

/// Records the end of the task when dropped, also if the task's runtime drops it.
struct TaskGuard {
    fleet: Weak<Fleet>,
    number: u64,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        if let Some(fleet) = self.fleet.upgrade() {
            let (number, next) = (self.number, self.number + 1);
            let order = (Ordering::AcqRel, Ordering::Acquire);
            // If another task has taken over, that one continues.
            let _ = fleet
                .task
                .number
                .compare_exchange(number, next, order.0, order.1);
        }
    }
}

impl Fleet {
    /// Checks all keys, and asks for those that need something. Returns the time until the next
    /// check.
    async fn round(self: &Arc<Self>, keys: &mut Vec<Arc<Entry>>) -> Option<Duration> {
        self.task.is_wanted.swap(false, Ordering::AcqRel);
        self.task.wanted_at.store(0, Ordering::Relaxed);
        keys.append(&mut self.newcomers());
        let now = self.clock.now();
        let (mut out, mut next) = (Vec::new(), u64::MAX);
        keys.retain(|entry| {
            let (ask, due) = self.look(entry, now);
            next = next.min(due.unwrap_or(u64::MAX));
            out.extend(ask.map(|ask| Out {
                entry: entry.clone(),
                ask,
            }));
            due.is_some() || !self.let_go(entry)
        });
        if !out.is_empty() {
            next = next.min(self.exchange(&out, now).await);
            let later = self.clock.now();
            return Some(Duration::from_nanos(
                next.saturating_sub(later).max(MILLISECOND),
            ));
        }
        (next < u64::MAX).then(|| Duration::from_nanos(next.saturating_sub(now).max(MILLISECOND)))
    }

    /// Removes the key from the list, unless a call has found too few units meanwhile.
    fn let_go(&self, entry: &Arc<Entry>) -> bool {
        entry.is_listed.store(false, Ordering::SeqCst);
        // If a call has listed the key again, the key is among the newcomers and can be removed
        // here.
        !entry.is_lacking() || entry.is_listed.swap(true, Ordering::SeqCst)
    }

    /// Returns the ask for a key, if any, and when to check the key again: `None` if it needs
    /// nothing.
    fn look(&self, entry: &Arc<Entry>, now: u64) -> (Option<Ask>, Option<u64>) {
        let quota = entry.quotas.get();
        let (mut book, terms) = (entry.book(), quota.terms);
        if book.held.is_some_and(|held| held.from <= now) {
            if let Some(held) = book.held.take() {
                book.added(self.add(entry, held, now));
                // They were counted when they were reserved.
                entry.take_needed();
                drop(book);
                entry.granted();
                book = entry.book();
            }
        }
        let missing = &entry.missing;
        let ended = entry.lease.sweep(now);
        self.lost(ended);
        let look = Look {
            units: entry.lease.units(now),
            ended,
            blocked: missing.blocked.swap(0, Ordering::SeqCst),
            needed: missing.needed.swap(0, Ordering::SeqCst),
            least: missing.least.swap(0, Ordering::SeqCst),
        };
        book.look(look, &terms, self.round_trip(), now);
        let owed = entry.debt.load(Ordering::SeqCst);
        let entered = book.owe(self.process, owed, &terms);
        entry
            .debt
            .fetch_sub(u64::from(entered).min(owed), Ordering::SeqCst);
        book.reset |= entry.reset.swap(false, Ordering::SeqCst);
        if entry.closed_until.load(Ordering::Relaxed) > now && !book.is_urgent() {
            return (None, Some(now + TICK));
        }
        // A debt does not wait until the store has units: others would take them first.
        if book.due > now && !book.tells_at_once() {
            return (
                None,
                Some(if book.is_urgent() {
                    book.due
                } else {
                    book.due.max(now + TICK)
                }),
            );
        }
        let want = book.want(look.units, &terms, now);
        if want.units > 0 || want.debt.is_some() || want.reset {
            let mut ask = Ask::new(entry.key.clone(), terms);
            (ask.want, ask.least, ask.debt, ask.reset) =
                (want.units, want.least, want.debt, want.reset);
            return (Some(ask), Some(now + TICK));
        }
        let held = book.held.map_or(u64::MAX, |held| held.from);
        let idle = book.is_idle(look.units);
        (None, (!idle).then(|| held.min(now + TICK)))
    }

    /// Sends a batch, and records the answers. Returns when to check again.
    async fn exchange(&self, out: &[Out], now: u64) -> u64 {
        let pass = match self.circuit.admit(0, now).0 {
            Ok(pass) => pass,
            Err(open) => {
                let due = now.saturating_add(nanos(open.wait.unwrap_or(PROBE_AGAIN)));
                self.put_off(out, due);
                return due;
            }
        };
        let asks: Vec<_> = out.iter().map(|out| out.ask.clone()).collect();
        self.counts.exchanges.fetch_add(1, Ordering::Relaxed);
        let sent = self.clock.now();
        let replies = timeout(self.patience(), self.store.ask(&asks)).await;
        let now = self.clock.now();
        let replies = replies.unwrap_or_else(|_| {
            let late = StoreError::new("the store did not answer in time");
            vec![Err(late)]
        });
        let is_answer = replies.iter().any(Result::is_ok);
        let outcome = if is_answer {
            Outcome::Success
        } else {
            Outcome::Failure
        };
        self.circuit.record(pass, outcome, None, 0, now);
        if is_answer {
            self.heard(now - sent);
        }
        let mut next = u64::MAX;
        let mut replies = replies.into_iter();
        let mut last = StoreError::new("the store has left out an answer");
        for out in out {
            let due = match replies.next() {
                Some(Ok(grant)) => self.answered(out, grant, sent, now),
                Some(Err(error)) => {
                    last = error;
                    self.failed(out, &last, now)
                }
                None => self.failed(out, &last, now),
            };
            next = next.min(due);
        }
        if !is_answer {
            self.unheard(next, now);
        }
        for out in out {
            out.entry.granted();
        }
        next
    }

    /// Records an answer. Returns when to ask for the key again.
    fn answered(&self, out: &Out, grant: Grant, sent: u64, now: u64) -> u64 {
        let Out { entry, ask } = out;
        let mut book = entry.book();
        let wait = nanos(grant.wait);
        book.answered(ask.want, grant.units, wait, self.pace(), now);
        book.came(grant.units, entry.take_needed());
        self.counts
            .leased
            .fetch_add(u64::from(grant.units), Ordering::Relaxed);
        // A store may grant a shorter life than a lease's longest, but not a longer one.
        let most = wait.saturating_add(ask.terms.life() * 1000);
        let held = Held {
            units: grant.units,
            from: now.saturating_add(wait),
            ends: sent.saturating_add(nanos(grant.good_for).min(most)),
        };
        let mut due = book.due;
        if grant.units > 0 && wait > 0 {
            book.held = Some(held);
            due = held.from;
        } else if grant.units > 0 {
            book.added(self.add(entry, held, now));
        }
        entry.room.store(grant.room, Ordering::Relaxed);
        entry.heard_at.store(now.max(1), Ordering::Relaxed);
        entry.is_down.store(false, Ordering::Relaxed);
        entry.quiet_until.store(due, Ordering::Relaxed);
        due.max(now + MILLISECOND)
    }

    /// Adds units to the lease, unless they can no longer be spent. Returns how many were added.
    fn add(&self, entry: &Entry, held: Held, now: u64) -> u32 {
        if held.ends <= now || entry.closed_until.load(Ordering::Relaxed) > now {
            self.lost(held.units);
            return 0;
        }
        entry.lease.add(held.units, held.ends, now);
        held.units
    }

    /// Records a failure of one key. Returns when to ask for it again.
    fn failed(&self, out: &Out, error: &StoreError, now: u64) -> u64 {
        let mut book = out.entry.book();
        book.failures += 1;
        let wait = AGAIN
            .saturating_mul(1 << book.failures.min(6))
            .min(LONGEST_AGAIN);
        book.due = now.saturating_add(spread(wait));
        out.entry.is_down.store(true, Ordering::Relaxed);
        out.entry.quiet_until.store(book.due, Ordering::Relaxed);
        let mut last = self.last_error();
        if last.as_ref() != Some(error) {
            *last = Some(error.clone());
        }
        book.due
    }

    /// Delays the keys while the circuit is open.
    fn put_off(&self, out: &[Out], due: u64) {
        self.counts.due.store(due, Ordering::Relaxed);
        for out in out {
            out.entry.book().due = due;
            out.entry.quiet_until.store(due, Ordering::Relaxed);
        }
    }

    /// Records that the store has answered, and how long that took.
    fn heard(&self, took: u64) {
        self.counts.down_since.store(0, Ordering::Relaxed);
        let before = self.counts.round_trip.load(Ordering::Relaxed);
        let mean = if before == 0 {
            took
        } else {
            before - before / 8 + took / 8
        };
        self.counts.round_trip.store(mean.max(1), Ordering::Relaxed);
    }

    /// Records that no ask of a batch was answered.
    fn unheard(&self, due: u64, now: u64) {
        let counts = &self.counts;
        counts.failures.fetch_add(1, Ordering::Relaxed);
        counts.due.store(due, Ordering::Relaxed);
        let relaxed = Ordering::Relaxed;
        // Keeps the time of the first failure.
        let _ = counts
            .down_since
            .compare_exchange(0, now.max(1), relaxed, relaxed);
    }

    /// Returns the timeout of a batch: eight round trips, at least 100 ms (500 ms before the first
    /// answer) and at most a second.
    fn patience(&self) -> Duration {
        let least = if self.counts.round_trip.load(Ordering::Relaxed) == 0 {
            500
        } else {
            100
        };
        let patience = Duration::from_nanos(self.round_trip().saturating_mul(8));
        patience.clamp(Duration::from_millis(least), Duration::from_secs(1))
    }

    /// Returns the wait after an answer that gave too few units: about a round trip and at least 25
    /// ms, spread between processes.
    fn pace(&self) -> u64 {
        spread(base(self.round_trip()) / 4)
    }
}

/// Adds up to half, at random, so that processes do not ask in step.
fn spread(nanos: u64) -> u64 {
    if chance::is_exact() {
        return nanos;
    }
    nanos.saturating_add(chance::word() % (nanos / 2).max(1))
}

/// The time between two checks of a key in use.
const TICK: u64 = 25 * MILLISECOND;
/// The first wait after a failure, and the longest.
const AGAIN: u64 = 25 * MILLISECOND;
const LONGEST_AGAIN: u64 = 5000 * MILLISECOND;
const PROBE_AGAIN: Duration = Duration::from_millis(100);
const MILLISECOND: u64 = 1_000_000;
