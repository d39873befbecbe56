//! What a layer counts: plain atomics by thread, which snapshots and metrics are read from.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Outcome, Rejected, RejectedKind,
    observe::{
        Durations, Histogram, Metric,
        trace::{self, Sampler},
    },
    sync::{current_stripe, stripe_count},
};

/// The counters of one layer, whatever the number of its services and clones, or of one of its
/// keys. An addition is one atomic write, which threads do not contend for unless they share a key.
///
/// A key's counts are its layer's too. To add to both would be a second write for each call; so the
/// layer knows its parts, sums them up, and keeps what they had counted when they end.
pub(crate) struct Tally {
    pub(crate) layer: &'static str,
    pub(crate) name: Option<&'static str>,
    counts: Counts,
    whole: Option<PartOf>,
    /// By the address of its counts. Locked when a part begins or ends, and to read: a sum has what
    /// a part has counted once, before its end as after it.
    parts: Mutex<BTreeMap<usize, Counts>>,
    sampler: Sampler,
    /// Of a named layer: nobody could read those of another.
    durations: Option<Durations>,
}

/// Makes a tally a part of the layer's, for as long as it lives.
struct PartOf {
    whole: Arc<Tally>,
    counts: Counts,
}

#[derive(Clone)]
enum Counts {
    One(Arc<Counters>),
    /// By thread: a power of two of them.
    Striped(Arc<[Stripe]>),
}

/// Relaxed, all: statistics.
type Counters = [AtomicU64; COUNTERS];

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(Counters);

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

/// What a layer has counted since it was built, or has of one key since that came. Every number
/// only grows.
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
    /// Calls that the layer rejected, or cut off.
    pub rejected: Rejections,
}

/// Rejections by their kind.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejections([u64; KINDS]);

impl Tally {
    pub(crate) fn new(layer: &'static str, name: Option<&'static str>) -> Self {
        Self::with(Counts::new(stripe_count()), layer, name)
    }

    fn with(counts: Counts, layer: &'static str, name: Option<&'static str>) -> Self {
        Self {
            layer,
            name,
            counts,
            whole: None,
            parts: Mutex::default(),
            sampler: Sampler::default(),
            durations: None,
        }
    }

    /// That of a key, or of all that have none: a part of the layer's, for so many threads.
    pub(crate) fn part(self: &Arc<Self>, stripes: usize) -> Arc<Self> {
        let counts = Counts::new(stripes);
        self.lock().insert(counts.address(), counts.clone());
        let whole = PartOf {
            whole: self.clone(),
            counts: counts.clone(),
        };
        Arc::new(Self {
            whole: Some(whole),
            ..Self::with(counts, self.layer, self.name)
        })
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
        self.whole().durations.is_some()
    }

    #[inline]
    pub(crate) fn took(&self, end: usize, nanos: u64) {
        if let Some(durations) = &self.whole().durations {
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

    /// A call is rejected, or cut off.
    pub(crate) fn rejected(&self, rejected: &Rejected) {
        self.add(EVENTS + rejected.kind.index());
        trace::rejected(&self.whole().sampler, rejected);
        trace::outcome(match rejected.kind {
            RejectedKind::TimedOut => "timeout",
            _ => "rejected",
        });
    }

    /// Costs some twenty loads a core, and as many for each part.
    pub(crate) fn totals(&self) -> Totals {
        let parts = self.lock();
        let mut sums = self.counts.read();
        for part in parts.values() {
            for (sum, count) in sums.iter_mut().zip(part.read()) {
                *sum += count;
            }
        }
        drop(parts);
        let of = |event: Event| sums[event as usize];
        let mut totals = Totals {
            admitted: of(Event::Admitted),
            success: of(Event::Success),
            failure: of(Event::Failure),
            overload: of(Event::Overload),
            ignored: of(Event::Ignored),
            cancelled: of(Event::Cancelled),
            late: of(Event::Late),
            rejected: Rejections(std::array::from_fn(|kind| sums[EVENTS + kind])),
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
        self.counts.here()[counter].fetch_add(1, Ordering::Relaxed);
    }

    /// The layer's, which has its sampler and histograms.
    fn whole(&self) -> &Self {
        self.whole.as_ref().map_or(self, |part| &*part.whole)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Counts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn new(stripes: usize) -> Self {
        match stripes {
            1 => Self::One(Arc::new(std::array::from_fn(|_| AtomicU64::new(0)))),
            _ => Self::Striped((0..stripes).map(|_| Stripe::default()).collect()),
        }
    }

    fn address(&self) -> usize {
        match self {
            Self::One(counters) => Arc::as_ptr(counters).addr(),
            Self::Striped(stripes) => Arc::as_ptr(stripes).cast::<Stripe>().addr(),
        }
    }

    /// For the current thread to add to.
    #[inline(always)]
    fn here(&self) -> &Counters {
        match self {
            Self::One(counters) => counters,
            // A mask, not a remainder: the number is a power of two.
            Self::Striped(stripes) => &stripes[current_stripe() & (stripes.len() - 1)].0,
        }
    }

    fn read(&self) -> [u64; COUNTERS] {
        let of = |counters: &Counters, counter: usize| counters[counter].load(Ordering::Relaxed);
        std::array::from_fn(|counter| match self {
            Self::One(counters) => of(counters, counter),
            Self::Striped(stripes) => {
                let counts = stripes.iter().map(|stripe| of(&stripe.0, counter));
                counts.sum()
            }
        })
    }
}

impl Drop for PartOf {
    /// What a part has counted stays in the layer's sum.
    fn drop(&mut self) {
        let mut parts = self.whole.lock();
        parts.remove(&self.counts.address());
        let kept = self.whole.counts.here().iter().zip(self.counts.read());
        kept.for_each(|(kept, count)| {
            kept.fetch_add(count, Ordering::Relaxed);
        });
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

    /// Calls that were rejected before they were sent.
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
    fn what_a_part_has_counted_stays_in_the_sum() {
        let whole = Arc::new(Tally::new("bulkhead", None));
        for stripes in [1, stripe_count()] {
            let (one, other) = (whole.part(stripes), whole.part(stripes));
            let before = whole.totals().success;
            one.ended(Outcome::Success);
            (0..2).for_each(|_| other.ended(Outcome::Success));
            let of = |tally: &Tally| tally.totals().success;
            assert_eq!((of(&one), of(&other), of(&whole)), (1, 2, before + 3));
            drop(one);
            assert_eq!((of(&other), of(&whole)), (2, before + 3));
            drop(other);
            assert_eq!(of(&whole), before + 3);
            assert!(whole.lock().is_empty());
        }
    }

    #[test]
    fn a_sum_never_shrinks_while_parts_end() {
        let whole = Arc::new(Tally::new("bulkhead", None));
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2000 {
                    whole.part(1).ended(Outcome::Success);
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let now = whole.totals().success;
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
        assert_eq!(whole.totals().success, 2000);
    }

    #[test]
    fn each_kind_has_its_number() {
        for (number, kind) in RejectedKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), number);
        }
    }
}
