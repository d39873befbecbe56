//! The state of an adaptive limit.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    Outcome,
    algorithm::{
        AdaptiveLimit, InFlight,
        adaptive::{Sample, Samples, Window},
    },
    ambient::clock::{Clock, Now},
    gate::Completion,
};

/// The algorithm of a limit, as a template for the algorithm of each key.
#[derive(Debug)]
pub(super) struct Algorithm(pub(super) Box<dyn AdaptiveLimit>);

/// The state of one adaptive limit.
#[derive(Debug)]
pub(super) struct Learner {
    clock: Clock,
    samples: Samples,
    /// Locked twice a window and by handles, for a moment each. Never locked while a call is
    /// sampled, nor while an algorithm runs, which may be user code.
    learned: Mutex<Learned>,
}

#[derive(Debug)]
struct Learned {
    /// `None` while the algorithm runs, and for good if it has panicked: then the limit stays as it
    /// is.
    algorithm: Option<Box<dyn AdaptiveLimit>>,
    /// The maximum that the limit may reach.
    max: usize,
    /// The baseline that the algorithm last returned.
    baseline: Option<Duration>,
}

/// The time at which a call was sent. Once its head has arrived, the time until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallStamp(u64);

impl Learner {
    /// Creates the learner. Returns it with the initial limit.
    pub(super) fn new(algorithm: &Algorithm, max: usize) -> (Self, usize) {
        let algorithm = algorithm.0.fresh();
        let initial = algorithm.initial().clamp(1, max.max(1));
        let learner = Self {
            clock: Clock::start(),
            samples: Samples::new(),
            learned: Mutex::new(Learned {
                algorithm: Some(algorithm),
                max,
                baseline: None,
            }),
        };
        (learner, initial)
    }

    /// Returns the stamp of a call that is admitted now.
    #[inline]
    pub(super) fn stamp(&self, now: &Now) -> CallStamp {
        CallStamp((now.by(&self.clock) + CallStamp::FIRST) & !CallStamp::TOOK)
    }

    /// Returns the stamp of a call whose response head has arrived. The time after that depends on
    /// the reader.
    pub(super) fn answered(&self, stamp: CallStamp, now: &Now) -> CallStamp {
        let took = self.took(stamp, now.by(&self.clock));
        CallStamp(took.max(CallStamp::FIRST) | CallStamp::TOOK)
    }

    /// Records that a call was not admitted for lack of room.
    #[inline]
    pub(super) fn full(&self) {
        self.samples.full();
    }

    /// Records the end of a call, which still counts as in flight.
    pub(super) fn end(&self, stamp: CallStamp, how: Completion, in_flight: &InFlight, now: &Now) {
        let sample = match how {
            Completion::Answered(Outcome::Success, _) => Sample::Success,
            Completion::Answered(Outcome::Overload, _) => Sample::Overload,
            Completion::Answered(Outcome::Failure, _) => Sample::Failure,
            _ => return,
        };
        let now = now.by(&self.clock);
        let rtt = self.took(stamp, now);
        if let Some(window) = self.samples.record(sample, rtt, in_flight.count(), now) {
            self.learn(window, in_flight, now);
        }
    }

    /// Changes the maximum that the limit may reach.
    pub(super) fn set_max(&self, max: usize, in_flight: &InFlight) {
        let mut learned = self.lock();
        learned.max = max;
        in_flight.set_limit(in_flight.limit().min(max));
    }

    /// Returns the maximum that the limit may reach.
    pub(super) fn max(&self) -> usize {
        self.lock().max
    }

    /// Returns the average time of calls in the last window.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.samples.average()
    }

    /// Returns the algorithm's estimate of the round trip of a call that does not queue.
    pub(super) fn baseline(&self) -> Option<Duration> {
        self.lock().baseline
    }

    #[cold]
    fn learn(&self, window: Window, in_flight: &InFlight, now: u64) {
        // Also if the algorithm panics.
        let _reopened = Reopen(&self.samples, now);
        let (algorithm, max) = {
            let mut learned = self.lock();
            (learned.algorithm.take(), learned.max)
        };
        let Some(mut algorithm) = algorithm else {
            return;
        };
        let limit = in_flight.limit();
        let next = algorithm.update(&Window {
            limit,
            max,
            ..window
        });
        let baseline = algorithm.baseline();
        let mut learned = self.lock();
        learned.baseline = baseline;
        // The maximum may have changed meanwhile.
        in_flight.set_limit(next.clamp(1, learned.max));
        learned.algorithm = Some(algorithm);
    }

    fn took(&self, stamp: CallStamp, now: u64) -> u64 {
        if stamp.0 & CallStamp::TOOK != 0 {
            stamp.0 & !CallStamp::TOOK
        } else {
            (now + CallStamp::FIRST).saturating_sub(stamp.0)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallStamp {
    /// Smaller words are permits without a stamp.
    const FIRST: u64 = 2;
    /// Set if the other bits are the time that the call took. They wrap after 292 years.
    const TOOK: u64 = 1 << 63;

    #[inline]
    pub(super) fn from_word(word: u64) -> Option<Self> {
        (word >= Self::FIRST).then_some(Self(word))
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }
}

/// A guard that opens the next window.
struct Reopen<'a>(&'a Samples, u64);

impl Drop for Reopen<'_> {
    fn drop(&mut self) {
        self.0.open(true, self.1);
    }
}

impl Clone for Algorithm {
    fn clone(&self) -> Self {
        Self(self.0.fresh())
    }
}
