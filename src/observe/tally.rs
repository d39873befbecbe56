//! What a layer counts: plain atomics by thread, which snapshots and metrics are read from.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Outcome, Rejected, RejectedKind,
    observe::{
        Durations, Histogram, Metric,
        trace::{self, Sampler},
    },
    sync::{current_stripe, stripe_count},
};

/// The counters of one layer, whatever the number of its services, keys and clones. An addition is
/// one atomic write that threads do not contend for.
pub(crate) struct Tally {
    pub(crate) layer: &'static str,
    pub(crate) name: Option<&'static str>,
    /// A power of two of them.
    stripes: Box<[Stripe]>,
    sampler: Sampler,
    /// Of a named layer: nobody could read those of another.
    durations: Option<Durations>,
}

/// On cache lines of its own. Relaxed, all: statistics.
#[derive(Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; COUNTERS]);

/// What is counted, besides rejections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// By layers that do not learn how calls end.
    Admitted,
    Success,
    Failure,
    Overload,
    Ignored,
    Cancelled,
    Late,
}

/// What a layer has counted since it was built. Every number only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Totals {
    /// Calls that were admitted. Of a layer that learns how calls end they are counted at their
    /// end, so that the outcomes below add up to them.
    pub admitted: u64,
    /// Calls that succeeded.
    pub success: u64,
    /// Calls that failed.
    pub failure: u64,
    /// Calls that the upstream answered with "too much".
    pub overload: u64,
    /// Calls whose result says nothing of the upstream, such as a rejection of a layer further in.
    pub ignored: u64,
    /// Calls that were dropped before their end.
    pub cancelled: u64,
    /// Calls that ended after the state that admitted them; only of circuit breakers.
    pub late: u64,
    /// Calls that the layer turned away, or cut off.
    pub rejected: Rejections,
}

/// Rejections by their kind.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejections([u64; KINDS]);

impl Tally {
    pub(crate) fn new(layer: &'static str, name: Option<&'static str>) -> Self {
        Self {
            layer,
            name,
            stripes: (0..stripe_count()).map(|_| Stripe::default()).collect(),
            sampler: Sampler::default(),
            durations: None,
        }
    }

    /// Of a layer that knows how long something takes, by the number of how that ends.
    pub(crate) fn with_durations(
        self,
        metric: &'static Metric,
        ends: &'static [[&'static str; 2]],
    ) -> Self {
        let durations = self.name.map(|_| Durations::new(metric, ends));
        Self { durations, ..self }
    }

    #[inline]
    pub(crate) fn has_durations(&self) -> bool {
        self.durations.is_some()
    }

    #[inline]
    pub(crate) fn took(&self, end: usize, nanos: u64) {
        if let Some(durations) = &self.durations {
            durations.record(end, nanos);
        }
    }

    pub(crate) fn histograms(&self) -> Vec<Histogram> {
        let durations = self.durations.as_ref();
        durations.map(Durations::read).unwrap_or_default()
    }

    #[inline(always)]
    pub(crate) fn count(&self, event: Event) {
        self.add(event as usize);
    }

    /// A call has ended that was admitted and not late.
    #[inline(always)]
    pub(crate) fn ended(&self, outcome: Outcome) {
        let (event, told) = match outcome {
            Outcome::Success => (Event::Success, "success"),
            Outcome::Failure => (Event::Failure, "failure"),
            Outcome::Overload => (Event::Overload, "overload"),
            // What a layer ignores, such as a rejection further in, has been told by another.
            Outcome::Ignore => return self.count(Event::Ignored),
        };
        self.count(event);
        trace::outcome(told);
    }

    /// A call is turned away, or cut off.
    pub(crate) fn rejected(&self, rejected: &Rejected) {
        self.add(EVENTS + rejected.kind.index());
        trace::rejected(&self.sampler, rejected);
        trace::outcome(match rejected.kind {
            RejectedKind::TimedOut => "timeout",
            _ => "rejected",
        });
    }

    /// Costs sixteen loads a core.
    pub(crate) fn totals(&self) -> Totals {
        let sum = |counter: usize| -> u64 {
            let stripes = self.stripes.iter();
            stripes
                .map(|stripe| stripe.0[counter].load(Ordering::Relaxed))
                .sum()
        };
        let of = |event: Event| sum(event as usize);
        let mut totals = Totals {
            admitted: of(Event::Admitted),
            success: of(Event::Success),
            failure: of(Event::Failure),
            overload: of(Event::Overload),
            ignored: of(Event::Ignored),
            cancelled: of(Event::Cancelled),
            late: of(Event::Late),
            rejected: Rejections(std::array::from_fn(|kind| sum(EVENTS + kind))),
        };
        totals.admitted += totals.success
            + totals.failure
            + totals.overload
            + totals.ignored
            + totals.cancelled
            + totals.late;
        totals
    }

    #[inline(always)]
    fn add(&self, counter: usize) {
        // A mask, not a remainder: the number is a power of two.
        let stripe = &self.stripes[current_stripe() & (self.stripes.len() - 1)];
        stripe.0[counter].fetch_add(1, Ordering::Relaxed);
    }
}

impl Rejections {
    /// By the number of their kind.
    pub(crate) fn from_fn(count: impl FnMut(usize) -> u64) -> Self {
        Self(std::array::from_fn(count))
    }

    /// Those of one kind.
    #[must_use]
    pub fn of(&self, kind: RejectedKind) -> u64 {
        self.0[kind.index()]
    }

    /// Calls that were turned away before they were sent.
    #[must_use]
    pub fn local(&self) -> u64 {
        self.iter()
            .filter(|(kind, _)| kind.is_local())
            .map(|(_, count)| count)
            .sum()
    }

    /// Each kind, and how many there were of it.
    pub fn iter(&self) -> impl Iterator<Item = (RejectedKind, u64)> {
        RejectedKind::ALL.into_iter().zip(self.0)
    }
}

/// Only the kinds that there were.
impl fmt::Debug for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().filter(|(_, count)| *count > 0))
            .finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Rejections {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(kind, count)| (kind.as_str(), count)))
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals().fmt(f)
    }
}

const EVENTS: usize = Event::Late as usize + 1;
const KINDS: usize = RejectedKind::ALL.len();
const COUNTERS: usize = EVENTS + KINDS;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_threads_count_adds_up() {
        let tally = Tally::new("bulkhead", None);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| tally.ended(Outcome::Success)));
            }
        });
        tally.rejected(&Rejected::new(RejectedKind::BulkheadFull, "bulkhead"));
        tally.rejected(&Rejected::new(RejectedKind::TimedOut, "bulkhead"));
        let totals = tally.totals();
        assert_eq!((totals.success, totals.admitted), (4000, 4000));
        assert_eq!(totals.rejected.of(RejectedKind::BulkheadFull), 1);
        assert_eq!(totals.rejected.local(), 1);
    }

    #[test]
    fn each_kind_has_its_number() {
        for (number, kind) in RejectedKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), number);
        }
    }
}
