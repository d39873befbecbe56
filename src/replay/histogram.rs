//! Durations with a precision of one part in thirty-two.

use crate::algorithm::statistics::whole;

/// Counts of durations, in buckets of at most a 32nd in width.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: u128,
    most: u64,
}

impl Histogram {
    /// Records a duration in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        let place = place(nanos);
        if self.counts.len() <= place {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
        self.total += 1;
        self.sum += u128::from(nanos);
        self.most = self.most.max(nanos);
    }

    /// Adds the durations of another histogram.
    pub(super) fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.sum += other.sum;
        self.most = self.most.max(other.most);
    }

    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Returns the longest duration, in nanoseconds.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Returns the mean in nanoseconds, or 0 without durations.
    #[must_use]
    pub fn mean(&self) -> u64 {
        u64::try_from(self.sum / u128::from(self.total.max(1))).unwrap_or(u64::MAX)
    }

    /// Returns the time that this share does not exceed, in nanoseconds: at most a 32nd too high.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = whole((share * self.total as f64).ceil()).max(1);
        let mut below = 0;
        for (place, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= wanted {
                return end(place).saturating_sub(1).min(self.most);
            }
        }
        self.most
    }

    /// Returns the share that takes longer, precise to a bucket.
    #[must_use]
    pub fn share_above(&self, nanos: u64) -> f64 {
        let above: u64 = self.counts.iter().skip(place(nanos) + 1).sum();
        above as f64 / self.total.max(1) as f64
    }

    /// Returns each bucket with a count: its upper end in nanoseconds, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter().enumerate();
        counts.filter_map(|(place, count)| (*count > 0).then_some((end(place), *count)))
    }
}

impl<'a> FromIterator<&'a Histogram> for Histogram {
    fn from_iter<I: IntoIterator<Item = &'a Self>>(all: I) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|one| sum.add(one));
        sum
    }
}

fn place(nanos: u64) -> usize {
    let exponent = (nanos | 1).ilog2();
    let place = if exponent < FINE {
        nanos
    } else {
        let step = exponent - FINE;
        (u64::from(step) << FINE) + (nanos >> step)
    };
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// Returns the first duration above a bucket.
fn end(place: usize) -> u64 {
    let place = place as u64 + 1;
    if place < 2 << FINE {
        return place;
    }
    let step = (place >> FINE) - 1;
    (place - (step << FINE)) << step.min(58)
}

/// The bits per power of two: 32 buckets.
const FINE: u32 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole(
            values in prop::collection::vec((any::<bool>(), 1u64..1 << 40), 0..100),
        ) {
            let of = |half: Option<bool>| {
                let mut histogram = Histogram::default();
                let values = values.iter().filter(|(one, _)| half.is_none_or(|half| half == *one));
                values.for_each(|(_, value)| histogram.record(*value));
                histogram
            };
            let sum: Histogram = [of(Some(true)), of(Some(false))].iter().collect();
            prop_assert_eq!(sum, of(None));
        }

        #[test]
        fn a_bucket_holds_what_is_below_its_end(nanos in 0u64..1 << 50) {
            let place = place(nanos);
            prop_assert!(nanos < end(place));
            prop_assert!(place == 0 || end(place - 1) <= nanos);
            prop_assert!(end(place) <= nanos + 1 + nanos / 32);
        }

        #[test]
        fn quantiles_are_a_32nd_above_the_true_ones(
            mut values in prop::collection::vec(1u64..1 << 40, 1..200), share in 0.0f64..1.0,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let rank = usize::try_from(whole((share * values.len() as f64).ceil()).max(1)).unwrap();
            let (exact, found) = (values[rank - 1], histogram.quantile(share));
            prop_assert!(exact <= found && found <= exact + exact / 32, "{} {}", exact, found);
        }
    }
}
