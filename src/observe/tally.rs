//! The counters of a layer: plain atomics per thread, read by snapshots and metrics.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    Outcome, Rejected, RejectedKind,
    observe::{
        Durations, Histogram, Metric,
        totals::{COUNTERS, EVENTS, Event, Totals},
        trace::{self, Sampler},
    },
    sync::PerThread,
};

/// The counters of one layer, whatever the number of its services and clones. An addition is one
/// atomic write for which threads do not contend.
///
/// Whatever a key counts is also the layer's count. Adding to both would be a second write per
/// call. So the layer knows its keys' counters, sums them up, and keeps their counts when they end.
pub(crate) struct Tally {
    pub(crate) layer: &'static str,
    pub(crate) name: Option<&'static str>,
    stripes: Stripes,
    /// The counters of calls that have no key of their own, in a layer with keys.
    keyless: OnceLock<Stripes>,
    /// Locked when a key is added or removed, and to read. So a sum has each key's counts exactly
    /// once, before and after its end.
    keys: Mutex<Keys>,
    sampler: Sampler,
    /// Only of a named layer: the durations of others could not be read.
    durations: Option<Durations>,
}

/// The counters of one gate: all of its layer's, or a part.
pub(crate) struct GateTally {
    whole: Arc<Tally>,
    part: KeyScope,
}

enum KeyScope {
    All,
    Keyless,
    /// The counters of a key, and their index in the list.
    Key(Arc<Counters>, u32),
}

#[derive(Default)]
struct Keys {
    counters: Vec<Option<Arc<Counters>>>,
    free: Vec<u32>,
}

type Stripes = PerThread<Counters>;

/// The counters. All Relaxed: statistics.
#[derive(Default)]
struct Counters([AtomicU64; COUNTERS]);

impl Tally {
    pub(crate) fn new(layer: &'static str, name: Option<&'static str>) -> Self {
        Self {
            layer,
            name,
            stripes: Stripes::default(),
            keyless: OnceLock::new(),
            keys: Mutex::default(),
            sampler: Sampler::default(),
            durations: None,
        }
    }

    /// Returns the counters of the only gate of a layer.
    pub(crate) fn all(self: &Arc<Self>) -> GateTally {
        self.part(KeyScope::All)
    }

    /// Returns the counters of the gate for calls that have no key of their own.
    pub(crate) fn keyless(self: &Arc<Self>) -> GateTally {
        // Made now, and not at the first call.
        self.keyless.get_or_init(Stripes::default);
        self.part(KeyScope::Keyless)
    }

    /// Returns the counters of one key's gate. All threads share one cache line: there are many
    /// keys, and few threads use each.
    pub(crate) fn key(self: &Arc<Self>) -> GateTally {
        let counters = Arc::<Counters>::default();
        let place = self.lock().add(counters.clone());
        self.part(KeyScope::Key(counters, place))
    }

    fn part(self: &Arc<Self>, part: KeyScope) -> GateTally {
        let whole = self.clone();
        GateTally { whole, part }
    }

    /// Adds durations, in a layer that measures them, with labels by the index of their ends.
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
        self.stripes.add(1, |counters| &counters.0[event as usize]);
    }

    /// Makes a rejection by this layer, without counting it.
    #[inline]
    pub(crate) fn rejection(&self, kind: RejectedKind, retry_after: Option<Duration>) -> Rejected {
        let mut rejected = Rejected::new(kind, self.layer);
        rejected.name = self.name;
        rejected.retry_after = retry_after;
        rejected
    }

    /// Counts a rejection that another tally reports.
    pub(crate) fn count_rejected(&self, kind: RejectedKind) {
        self.stripes
            .add(1, |counters| &counters.0[EVENTS + kind.index()]);
    }

    /// Counts and reports a call that is rejected or cut off.
    pub(crate) fn rejected(&self, rejected: &Rejected) {
        let kind = rejected.kind.index();
        self.stripes.add(1, |counters| &counters.0[EVENTS + kind]);
        self.tell(rejected);
    }

    fn tell(&self, rejected: &Rejected) {
        trace::rejected(&self.sampler, rejected);
        trace::outcome(match rejected.kind {
            RejectedKind::TimedOut => "timeout",
            _ => "rejected",
        });
    }

    /// Returns the totals. Costs some twenty loads per core, and per key.
    pub(crate) fn totals(&self) -> Totals {
        // Locked first: a key that ends adds its counts under this lock.
        let keys = self.lock();
        let mut sums = sum(&self.stripes);
        let mut also = |counts: [u64; COUNTERS]| {
            let sums = sums.iter_mut().zip(counts);
            sums.for_each(|(sum, count)| *sum += count);
        };
        if let Some(keyless) = self.keyless.get() {
            also(sum(keyless));
        }
        for counters in keys.counters.iter().flatten() {
            also(counters.read());
        }
        drop(keys);
        Totals::of(&sums)
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateTally {
    #[inline(always)]
    pub(crate) fn count(&self, event: Event) {
        self.add(event as usize);
    }

    /// Counts the end of a call that was admitted and is not late.
    #[inline(always)]
    pub(crate) fn ended(&self, outcome: Outcome) {
        if outcome == Outcome::Success {
            // Apart: a jump by a table costs nearly as much as the count.
            self.count(Event::Success);
            return trace::outcome("success");
        }
        let (event, told) = match outcome {
            Outcome::Success => return,
            Outcome::Failure => (Event::Failure, "failure"),
            Outcome::Overload => (Event::Overload, "overload"),
            // Another layer has reported the ignored result, such as a rejection further in.
            Outcome::Ignore => return self.count(Event::Ignored),
        };
        self.count(event);
        trace::outcome(told);
    }

    /// Counts and reports a rejection.
    pub(crate) fn count_rejection(&self, rejected: &Rejected) {
        self.add(EVENTS + rejected.kind.index());
        self.whole.tell(rejected);
    }

    /// Makes, counts and reports a rejection.
    pub(crate) fn reject(
        &self,
        kind: RejectedKind,
        retry_after: Option<Duration>,
    ) -> Box<Rejected> {
        let rejected = Box::new(self.whole.rejection(kind, retry_after));
        self.count_rejection(&rejected);
        rejected
    }

    /// Returns the totals. Costs some twenty loads, per core unless the gate is a key's.
    pub(crate) fn totals(&self) -> Totals {
        match &self.part {
            KeyScope::All => self.whole.totals(),
            KeyScope::Keyless => Totals::of(&sum(self.keyless())),
            KeyScope::Key(counters, _) => Totals::of(&counters.read()),
        }
    }

    #[inline]
    fn keyless(&self) -> &Stripes {
        self.whole.keyless.get_or_init(Stripes::default)
    }

    #[inline(always)]
    fn add(&self, counter: usize) {
        match &self.part {
            KeyScope::All => self.whole.stripes.add(1, |counters| &counters.0[counter]),
            KeyScope::Keyless => self.keyless().add(1, |counters| &counters.0[counter]),
            KeyScope::Key(counters, _) => counters.add(counter),
        }
    }
}

/// The layer's parts: its name and its durations.
impl Deref for GateTally {
    type Target = Tally;

    #[inline]
    fn deref(&self) -> &Tally {
        &self.whole
    }
}

impl Drop for GateTally {
    /// Adds the key's counts to the layer's sum.
    fn drop(&mut self) {
        if let KeyScope::Key(counters, place) = &self.part {
            let mut keys = self.whole.lock();
            keys.remove(*place);
            self.whole.stripes.add_each(|kept, add| {
                let kept = kept.0.iter().zip(counters.read());
                kept.for_each(|(kept, count)| add(kept, count));
            });
        }
    }
}

impl Keys {
    fn add(&mut self, counters: Arc<Counters>) -> u32 {
        let last = u32::try_from(self.counters.len()).expect("maps have fewer keys");
        let place = self.free.pop().unwrap_or(last);
        match self.counters.get_mut(place as usize) {
            Some(free) => *free = Some(counters),
            None => self.counters.push(Some(counters)),
        }
        place
    }

    fn remove(&mut self, place: u32) {
        self.counters[place as usize] = None;
        self.free.push(place);
    }
}

impl Counters {
    #[inline(always)]
    fn add(&self, counter: usize) {
        self.0[counter].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> [u64; COUNTERS] {
        std::array::from_fn(|counter| self.0[counter].load(Ordering::Relaxed))
    }
}

/// Adds up the threads' counters, one thread after the other: most slots have no thread.
fn sum(stripes: &Stripes) -> [u64; COUNTERS] {
    let mut sums = [0; COUNTERS];
    for counters in stripes.iter() {
        for (sum, counter) in sums.iter_mut().zip(&counters.0) {
            *sum += counter.load(Ordering::Relaxed);
        }
    }
    sums
}

impl fmt::Debug for GateTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals().fmt(f)
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_threads_count_adds_up() {
        let tally = Arc::new(Tally::new("bulkhead", None)).all();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| tally.ended(Outcome::Success)));
            }
        });
        tally.reject(RejectedKind::BulkheadFull, None);
        tally.reject(RejectedKind::TimedOut, None);
        let totals = tally.totals();
        assert_eq!((totals.success, totals.admitted), (4000, 4000));
        assert_eq!(totals.rejected.of(RejectedKind::BulkheadFull), 1);
        assert_eq!(totals.rejected.local(), 1);
    }

    #[test]
    fn what_a_key_has_counted_stays_in_the_sum() {
        let whole = Arc::new(Tally::new("bulkhead", None));
        let (one, other, keyless) = (whole.key(), whole.key(), whole.keyless());
        let succeed = |tally: &GateTally, times| {
            (0..times).for_each(|_| tally.ended(Outcome::Success));
        };
        succeed(&one, 1);
        succeed(&other, 2);
        succeed(&keyless, 4);
        let of = |tally: &GateTally| tally.totals().success;
        assert_eq!((of(&one), of(&other), of(&keyless)), (1, 2, 4));
        assert_eq!((of(&whole.all()), whole.totals().admitted), (7, 7));
        drop(one);
        assert_eq!((of(&other), of(&whole.all())), (2, 7));
        let next = whole.key();
        succeed(&next, 8);
        assert_eq!((of(&next), of(&other), of(&whole.all())), (8, 2, 15));
        drop((next, other));
        assert_eq!(of(&whole.all()), 15);
        assert_eq!(whole.lock().counters.len(), 2);
    }

    #[test]
    fn a_sum_never_shrinks_while_keys_end() {
        let whole = Arc::new(Tally::new("bulkhead", None));
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2000 {
                    whole.key().ended(Outcome::Success);
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
