//! Histograms of durations that calls write without a lock, a recorder or an allocation.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{observe::Metric, sync::PerThread};

/// The upper bounds of the buckets of every histogram, in seconds. A last bucket has the rest. They
/// range from half a millisecond, which few networks beat, to a minute, which few callers wait.
/// Each is at most three times the one before.
///
/// Give them to the recorder with `set_buckets(&BUCKETS)` on the Prometheus exporter's builder.
/// Otherwise it uses its own buckets, or none.
pub const BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// The durations of one layer, by label.
pub(crate) struct Durations {
    metric: &'static Metric,
    /// The values of the metric's labels.
    labels: &'static [[&'static str; 2]],
    /// The buckets of one label after the other.
    stripes: PerThread<Box<[Bucket]>>,
}

/// The count and sum of a bucket. Both Relaxed: statistics, read one after the other.
#[derive(Default)]
struct Bucket {
    count: AtomicU64,
    /// The sum, which makes a mean exact. Wraps after 584 years.
    nanos: AtomicU64,
}

/// The durations at one moment. Every number only grows.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Histogram {
    /// The name of the metric.
    pub metric: &'static str,
    /// The values of its labels, besides `name`.
    pub labels: &'static [&'static str],
    /// The count of each of the [`BUCKETS`], above the bound before, then that of the rest.
    pub counts: [u64; BUCKETS.len() + 1],
    /// The sum of each bucket, in seconds.
    pub sums: [f64; BUCKETS.len() + 1],
}

impl Durations {
    pub(crate) fn new(metric: &'static Metric, labels: &'static [[&'static str; 2]]) -> Self {
        let stripe = |size| (0..size).map(|_| Bucket::default()).collect();
        Self {
            metric,
            labels,
            stripes: PerThread::new(labels.len() * SIZE, stripe),
        }
    }

    /// Adds a duration under the label with that index.
    #[inline]
    pub(crate) fn record(&self, label: usize, nanos: u64) {
        self.stripes.add_each(|stripe, add| {
            let bucket = &stripe[label * SIZE + place(nanos)];
            add(&bucket.count, 1);
            add(&bucket.nanos, nanos);
        });
    }

    /// Returns the histogram of each label that has durations. A snapshot of many instances spends
    /// most of its time here, and most labels have none.
    pub(crate) fn read(&self) -> Vec<Histogram> {
        let mut all: Vec<Histogram> = Vec::new();
        for stripe in self.stripes.iter() {
            let labels = self.labels.iter().zip(stripe.chunks_exact(SIZE));
            // Those found so far are in the order of the labels.
            let mut at = 0;
            for (values, buckets) in labels {
                let values = &values[..self.metric.labels.len()];
                let is_known = all.get(at).is_some_and(|one| one.labels == values);
                let is_used = |bucket: &Bucket| bucket.count.load(Ordering::Relaxed) > 0;
                if !is_known && !buckets.iter().any(is_used) {
                    continue;
                }
                if !is_known {
                    // Mostly the only one.
                    all.reserve_exact(1);
                    all.insert(at, Histogram::empty(self.metric.name, values));
                }
                all[at].add(buckets);
                at += 1;
            }
        }
        all.iter_mut().for_each(Histogram::in_seconds);
        all
    }
}

impl Histogram {
    fn empty(metric: &'static str, labels: &'static [&'static str]) -> Self {
        Self {
            metric,
            labels,
            counts: [0; SIZE],
            sums: [0.0; SIZE],
        }
    }

    /// Adds a thread's buckets, in nanoseconds until all are added.
    #[expect(clippy::cast_precision_loss, reason = "exact below 104 days")]
    fn add(&mut self, buckets: &[Bucket]) {
        let sums = self.counts.iter_mut().zip(&mut self.sums);
        for ((count, sum), bucket) in sums.zip(buckets) {
            *count += bucket.count.load(Ordering::Relaxed);
            *sum += bucket.nanos.load(Ordering::Relaxed) as f64;
        }
    }

    fn in_seconds(&mut self) {
        self.sums.iter_mut().for_each(|sum| *sum /= 1e9);
    }

    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations, in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sums.iter().sum()
    }

    /// Returns about how long that share of the calls took at most, in seconds. This is the upper
    /// bound of the bucket in which the share is reached, infinite in the last one. `None` if there
    /// are no durations.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let (count, mut below) = (self.count(), 0);
        let reached = self.counts.iter().position(|bucket| {
            below += bucket;
            below > 0 && below as f64 >= share * count as f64
        });
        reached.map(|place| BUCKETS.get(place).copied().unwrap_or(f64::INFINITY))
    }
}

/// Returns the index of the bucket.
#[inline]
fn place(nanos: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound < nanos)
}

impl fmt::Debug for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

/// The bounds in nanoseconds.
const BOUNDS: [u64; BUCKETS.len()] = {
    let mut bounds = [0; BUCKETS.len()];
    let mut place = 0;
    while place < bounds.len() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "of constants, which a test looks at"
        )]
        let nanos = (BUCKETS[place] * 1e9) as u64;
        bounds[place] = nanos;
        place += 1;
    }
    bounds
};
const SIZE: usize = BUCKETS.len() + 1;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::observe::names;

    #[test]
    fn the_bounds_are_whole_and_grow() {
        for (bound, seconds) in BOUNDS.into_iter().zip(BUCKETS) {
            let exact = std::time::Duration::from_secs_f64(seconds);
            assert_eq!(u128::from(bound), exact.as_nanos());
        }
        assert!(
            BUCKETS
                .windows(2)
                .all(|two| two[0] < two[1] && two[1] <= 3.0 * two[0])
        );
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let places = [
            0,
            1,
            500_000,
            500_001,
            1_000_000,
            60_000_000_000,
            60_000_000_001,
            u64::MAX,
        ];
        assert_eq!(places.map(place), [0, 0, 0, 1, 1, 15, 16, 16]);
    }

    #[test]
    fn what_threads_record_adds_up() {
        let durations = Durations::new(names::BULKHEAD_WAIT, &[["admitted", ""], ["rejected", ""]]);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| durations.record(0, 2_000_000)));
            }
        });
        let read = durations.read();
        assert_eq!(read.len(), 1, "labels without any are left out");
        assert_eq!((read[0].count(), read[0].counts[2]), (4000, 4000));
        assert!((read[0].sum() - 8.0).abs() < 1e-9);
        assert_eq!(read[0].labels, ["admitted"]);
    }

    #[test]
    fn quantiles_are_the_bounds_where_they_are_reached() {
        let durations = Durations::new(names::LIMIT_WAIT, &[["", ""]]);
        assert!(durations.read().is_empty());
        for _ in 0..99 {
            durations.record(0, 2_000_000);
        }
        durations.record(0, u64::MAX);
        let read = &durations.read()[0];
        let quantiles = [0.0, 0.5, 0.99, 1.0].map(|share| read.quantile(share).unwrap());
        assert_eq!(quantiles, [0.0025, 0.0025, 0.0025, f64::INFINITY]);
    }
}
