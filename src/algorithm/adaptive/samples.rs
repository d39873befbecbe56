//! Collects the results of calls into windows, without a lock.
//!
//! ```text
//!   closed ──open──▶ waiting ──time──▶ sampling ──the last sample──▶ closed
//! ```
//!
//! One word holds the time from which calls count. Closing a window is a compare-and-swap of that
//! word to "never". One of the racing threads wins: it alone takes the results, works out the next
//! limit, and opens the next window. The others continue and never wait. A thread that adds while
//! the window closes is counted in it or in the next one. No sample counts twice.
//!
//! **Cost** of a sample: outside of a window one load. Inside, four loads, or seven once the window
//! is 50 ms old, and one addition to a word that all threads share. Most windows need some hundred
//! samples.

use std::time::Duration;

use crate::{
    algorithm::adaptive::Window,
    sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// Collects the samples of a window.
#[derive(Debug)]
pub struct Samples {
    /// The time from which calls count, or [`CLOSED`] while the winner of a window works. The
    /// winner's CAS acquires what the last `open` released: all that the algorithm had learned, and
    /// the state in which the fields below were left.
    opens: AtomicU64,
    /// `successes:16 | sum of their round trips:48` in nanoseconds. One word, so that an average is
    /// always that of the calls counted. Relaxed: nothing else is published with it.
    sum: AtomicU64,
    /// The other facts of the window. Relaxed, because each is read by itself.
    overloads: AtomicU32,
    failures: AtomicU32,
    in_flight: AtomicUsize,
    was_full: AtomicBool,
    /// The mean of the last window with successes, in nanoseconds, or 0 before the first. Relaxed,
    /// because it is read by itself.
    average: AtomicU64,
}

/// The result of a call, as a limit sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// The upstream did its work.
    Success,
    /// The upstream said that it was overloaded.
    Overload,
    /// The call failed for any other reason.
    Failure,
}

impl Samples {
    /// Creates a collector with its first window open.
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

    /// Records that a caller found no room.
    #[inline]
    pub fn full(&self) {
        // Loaded first, because otherwise every rejected call would write it.
        if !self.was_full.load(Ordering::Relaxed) {
            self.was_full.store(true, Ordering::Relaxed);
        }
    }

    /// Records a call that has ended after `rtt` nanoseconds, with `in_flight` calls in flight,
    /// itself included. If that completes a window, returns it. The caller must turn it into a
    /// limit and then [`open`](Self::open) the next window. No call counts until then.
    #[must_use]
    #[inline]
    pub fn record(&self, sample: Sample, rtt: u64, in_flight: usize, now: u64) -> Option<Window> {
        // Relaxed: the CAS in `close` synchronizes.
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

    /// Opens the next window: at once, or, if the limit has `changed`, after one average round
    /// trip. By then the calls that were sent under the old limit have ended.
    pub fn open(&self, changed: bool, now: u64) {
        let settle = if changed {
            self.average.load(Ordering::Relaxed)
        } else {
            0
        };
        // Release: partner of the Acquire in `close`, the CAS of the next winner.
        self.opens.store(
            now.saturating_add(settle).min(CLOSED - 1),
            Ordering::Release,
        );
    }

    /// Returns the mean round trip of the last window that timed any call.
    #[must_use]
    pub fn average(&self) -> Option<Duration> {
        let average = self.average.load(Ordering::Relaxed);
        (average > 0).then(|| Duration::from_nanos(average))
    }

    fn add(&self, rtt: u64, average: u64) {
        if successes(self.sum.load(Ordering::Relaxed)) >= ENOUGH {
            return;
        }
        // One slow call of many does not show the upstream's state.
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

    /// Returns whether the window has lasted two round trips and has calls enough for an average.
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
        // Acquire: partner of the Release in `open`. A loser does nothing: another has closed its
        // window.
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

/// The value of `opens` while no call counts.
const CLOSED: u64 = u64::MAX;

/// The longest round trip that is recorded as it is: 34 s.
const LONGEST: u64 = (1 << 35) - 1;

/// The most successes that a window counts: more would add no information.
const ENOUGH: u32 = 4096;

/// The calls for a good average: it scatters by a tenth where calls scatter by their mean.
const GOOD: u32 = 100;

/// The calls for a fair average, which is used after [`LONG_WINDOW`].
const FEW: u32 = 10;

/// The shortest window, in nanoseconds: a shorter one may see only one pause of the scheduler.
const SHORTEST_WINDOW: u64 = 50_000_000;

/// The nanoseconds after which a fair average is enough.
const LONG_WINDOW: u64 = 1_000_000_000;

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    /// Races two threads that both end a call which completes the window.
    #[test]
    fn a_window_is_closed_by_one_and_loses_nothing() {
        loom::model(|| {
            let samples = Arc::new(Samples::new());
            samples.sum.store((200 << 48) | 200, Ordering::Relaxed);
            let end = |samples: &Samples| {
                samples
                    .record(Sample::Success, 1, 2, SHORTEST_WINDOW)
                    .map_or(0, |window| {
                        // Only the winner may see and change this.
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
            // A call that ended while the window was closed does not count.
            assert!((201..=202).contains(&counted), "{counted}");
        });
    }
}
