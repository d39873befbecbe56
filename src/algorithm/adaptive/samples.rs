//! What calls tell, collected into windows without a lock.
//!
//! ```text
//!   closed ──open──▶ waiting ──time──▶ sampling ──the last sample──▶ closed
//! ```
//!
//! One word says from when on calls count. To close a window is to compare-and-swap that word to
//! "never": one of the racing threads wins, alone takes what was collected, works out the next
//! limit, and opens the next window. The others go on: nobody waits. A thread that was about to add
//! when the window closed adds to the next one; no sample counts twice.
//!
//! **Cost** of a sample: outside of a window one load; inside, four loads and one addition to a
//! word that all threads share; most windows need some hundred.

use std::time::Duration;

use crate::{
    algorithm::adaptive::Window,
    sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// Collects the samples of a window.
#[derive(Debug)]
pub struct Samples {
    /// From when on calls count; [`CLOSED`] while the winner of a window works. The winner's CAS
    /// acquires what the last `open` released: all that the algorithm had learned, and the words
    /// below as they were left.
    opens: AtomicU64,
    /// `successes:16 | sum of their round trips:48` in nanoseconds, so that an average is always of
    /// calls that were added. Relaxed: nothing else is published with it.
    sum: AtomicU64,
    /// The other facts of the window. Relaxed, as each stands for itself.
    overloads: AtomicU32,
    failures: AtomicU32,
    in_flight: AtomicUsize,
    was_full: AtomicBool,
    /// The average of the last window with successes, in nanoseconds; 0 before the first. Relaxed.
    average: AtomicU64,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// The upstream did its work.
    Success,
    /// The upstream said that it was too much.
    Overload,
    /// It failed, for whatever reason.
    Failure,
}

impl Samples {
    /// Calls count from the first on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            opens: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            overloads: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            in_flight: AtomicUsize::new(0),
            was_full: AtomicBool::new(false),
            average: AtomicU64::new(0),
        }
    }

    /// A caller has found no room.
    #[inline]
    pub fn full(&self) {
        // Looked at first, because all the rejected would write it.
        if !self.was_full.load(Ordering::Relaxed) {
            self.was_full.store(true, Ordering::Relaxed);
        }
    }

    /// A call has ended after `rtt` nanoseconds, with so many in flight, itself included. If it
    /// completes a window, the caller must turn that into a limit and then [`open`](Self::open) the
    /// next; until then no call counts.
    #[must_use]
    #[inline]
    pub fn record(&self, sample: Sample, rtt: u64, in_flight: usize, now: u64) -> Option<Window> {
        // Relaxed: the close below synchronizes.
        let opens = self.opens.load(Ordering::Relaxed);
        if now < opens {
            return None;
        }
        let average = self.average.load(Ordering::Relaxed);
        match sample {
            Sample::Overload => drop(self.overloads.fetch_add(1, Ordering::Relaxed)),
            Sample::Failure => drop(self.failures.fetch_add(1, Ordering::Relaxed)),
            Sample::Success => self.add(rtt, average),
        }
        if in_flight > self.in_flight.load(Ordering::Relaxed) {
            self.in_flight.fetch_max(in_flight, Ordering::Relaxed);
        }
        let elapsed = now - opens;
        if self.is_complete(elapsed) && self.close(opens) {
            Some(self.take(elapsed))
        } else {
            None
        }
    }

    /// Counts calls again: at once, or, if the limit has `changed`, after one average round trip,
    /// when those that were sent under the old limit have ended.
    pub fn open(&self, changed: bool, now: u64) {
        let settle = if changed {
            self.average.load(Ordering::Relaxed)
        } else {
            0
        };
        // Release, to the next winner's CAS.
        self.opens.store(
            now.saturating_add(settle).min(CLOSED - 1),
            Ordering::Release,
        );
    }

    /// How long calls took on average in the last window that timed any.
    #[must_use]
    pub fn average(&self) -> Option<Duration> {
        let average = self.average.load(Ordering::Relaxed);
        (average > 0).then(|| Duration::from_nanos(average))
    }

    fn add(&self, rtt: u64, average: u64) {
        if successes(self.sum.load(Ordering::Relaxed)) >= ENOUGH {
            return;
        }
        // One slow call of many is not the upstream's state.
        let most = if average == 0 {
            LONGEST
        } else {
            LONGEST.min(average.saturating_mul(4))
        };
        // Threads that passed the check above at once add at most a few more: 2^13 times `LONGEST`
        // is 2^48.
        self.sum
            .fetch_add(1 << 48 | rtt.min(most), Ordering::Relaxed);
    }

    /// Long enough for a round trip and what follows from it, and calls enough for an average.
    fn is_complete(&self, elapsed: u64) -> bool {
        if elapsed < SHORTEST_WINDOW {
            return false;
        }
        let sum = self.sum.load(Ordering::Relaxed);
        let failed = [&self.overloads, &self.failures].map(|count| count.load(Ordering::Relaxed));
        let calls = failed.into_iter().fold(successes(sum), u32::saturating_add);
        let is_enough = calls >= GOOD || (calls >= FEW && elapsed >= LONG_WINDOW);
        is_enough && elapsed >= mean(sum).unwrap_or(0).saturating_mul(2)
    }

    fn close(&self, opens: u64) -> bool {
        // Acquire: partner of `open`. A loser's window has been closed by another.
        let closed =
            self.opens
                .compare_exchange(opens, CLOSED, Ordering::Acquire, Ordering::Relaxed);
        closed.is_ok()
    }

    fn take(&self, elapsed: u64) -> Window {
        let sum = self.sum.swap(0, Ordering::Relaxed);
        let rtt = mean(sum);
        if let Some(rtt) = rtt {
            self.average.store(rtt.max(1), Ordering::Relaxed);
        }
        Window {
            limit: 0,
            max: usize::MAX,
            in_flight: self.in_flight.swap(0, Ordering::Relaxed),
            was_full: self.was_full.swap(false, Ordering::Relaxed),
            successes: successes(sum),
            overloads: self.overloads.swap(0, Ordering::Relaxed),
            failures: self.failures.swap(0, Ordering::Relaxed),
            elapsed: Duration::from_nanos(elapsed),
            rtt: rtt.map(Duration::from_nanos),
        }
    }
}

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}

fn successes(sum: u64) -> u32 {
    (sum >> 48) as u32
}

fn mean(sum: u64) -> Option<u64> {
    (sum & ((1 << 48) - 1)).checked_div(successes(sum).into())
}

/// No call counts.
const CLOSED: u64 = u64::MAX;

/// The longest round trip that is told from longer ones: 34 s.
const LONGEST: u64 = (1 << 35) - 1;

/// As many successes as a window takes; more would tell nothing new.
const ENOUGH: u32 = 4096;

/// So many calls make a good average: one that scatters by a tenth where calls scatter by their
/// mean.
const GOOD: u32 = 100;

/// So many make a fair one, where there are not more.
const FEW: u32 = 10;

/// Shorter, and one pause of the scheduler is all that a window sees.
const SHORTEST_WINDOW: u64 = 50_000_000;

/// After so long a fair average will do.
const LONG_WINDOW: u64 = 1_000_000_000;

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    /// Two threads end calls that each would complete a window.
    #[test]
    fn a_window_is_closed_by_one_and_loses_nothing() {
        loom::model(|| {
            let samples = Arc::new(Samples::new());
            samples.sum.store((200 << 48) | 200, Ordering::Relaxed);
            let end = |samples: &Samples| {
                samples
                    .record(Sample::Success, 1, 2, SHORTEST_WINDOW)
                    .map_or(0, |window| {
                        // What only the winner may touch.
                        assert_eq!(samples.opens.load(Ordering::Relaxed), CLOSED);
                        samples.open(false, u64::MAX);
                        window.successes
                    })
            };
            let other = samples.clone();
            let thread = thread::spawn(move || end(&other));
            let here = end(&samples);
            let there = thread.join().unwrap();
            assert!(here == 0 || there == 0, "one window, two winners");
            let left = successes(samples.sum.load(Ordering::Relaxed));
            let counted = here + there + left;
            // One that came while the window was closed does not count.
            assert!((201..=202).contains(&counted), "{counted}");
        });
    }
}
