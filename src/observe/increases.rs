//! Histogram counts that a recorder has not received yet.

use std::collections::{HashMap, HashSet};

use crate::observe::{BUCKETS, Histogram, Metric, series::Series};

/// The counts that each recorder has received. A new recorder receives everything from the start.
#[derive(Debug, Default)]
pub(super) struct Exported {
    /// The recorders, identified by address, because they have no other name. So a local recorder
    /// at the address of an earlier one receives too little. The global recorder is never replaced.
    recorders: HashMap<usize, ExportedCounts>,
    /// The number of publications so far.
    publications: u64,
}

/// The counts that one recorder has received.
#[derive(Debug, Default)]
struct ExportedCounts {
    of: HashMap<(u64, Series), Histogram>,
    /// The number of the last publication to it.
    last: u64,
}

/// A number of durations, all of the same length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Increase {
    pub(super) seconds: f64,
    pub(super) count: usize,
}

/// The histogram of an instance, with its metric and series.
pub(super) type Timed = (u64, &'static Metric, Series, Histogram);

impl Exported {
    /// Returns what this recorder has not received yet, and counts it as received from now on.
    pub(super) fn tell(
        &mut self,
        recorder: usize,
        timed: Vec<Timed>,
    ) -> Vec<(&'static Metric, Series, Vec<Increase>)> {
        if self.recorders.len() >= MAX_RECORDERS && !self.recorders.contains_key(&recorder) {
            self.forget_the_longest_silent();
        }
        self.publications += 1;
        let known = self.recorders.entry(recorder).or_default();
        known.last = self.publications;
        let known = &mut known.of;
        let living: HashSet<u64> = timed.iter().map(|(id, ..)| *id).collect();
        known.retain(|(id, _), _| living.contains(id));
        timed
            .into_iter()
            .map(|(id, metric, series, now)| {
                let before = known.get(&(id, series));
                let increases = (0..now.counts.len())
                    .filter_map(|place| increase(before, &now, place))
                    .collect();
                known.insert((id, series), now);
                (metric, series, increases)
            })
            .collect()
    }
}

impl Exported {
    /// Makes room. Removes the recorder with the oldest publication, which is the likeliest to be
    /// gone. Recorders that receive regularly, such as the global one, stay.
    fn forget_the_longest_silent(&mut self) {
        let silent = self.recorders.iter().min_by_key(|(_, counts)| counts.last);
        if let Some(address) = silent.map(|(address, _)| *address) {
            self.recorders.remove(&address);
        }
    }
}

/// Returns the increase of one bucket. A recorder takes durations and no sums, so it receives their
/// mean. The mean is in the same bucket, so the recorder's own sum is right too.
#[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
fn increase(before: Option<&Histogram>, now: &Histogram, place: usize) -> Option<Increase> {
    let (known, spent) = before.map_or((0, 0.0), |one| (one.counts[place], one.sums[place]));
    let count = now.counts[place].saturating_sub(known);
    if count == 0 {
        return None;
    }
    let mean = (now.sums[place] - spent) / count as f64;
    // A call that is being recorded may be in the count, and not yet in the sum.
    let lower = place
        .checked_sub(1)
        .map_or(0.0, |place| BUCKETS[place] + NANO);
    let upper = BUCKETS.get(place).copied().unwrap_or(f64::INFINITY);
    Some(Increase {
        seconds: mean.clamp(lower, upper),
        count: usize::try_from(count).unwrap_or(usize::MAX),
    })
}

/// The seconds by which a duration must exceed a bound to count as above it.
const NANO: f64 = 1e-9;
/// The most recorders remembered. A process has one, and its tests some more.
const MAX_RECORDERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Durations, names::LIMIT_WAIT};

    fn told(told: &mut Exported, recorder: usize, durations: &Durations) -> Vec<Increase> {
        let series = Series {
            metric: LIMIT_WAIT.name,
            name: "",
            labels: ["", "", ""],
            by_key: "",
        };
        let timed = durations.read().into_iter();
        let timed = timed.map(|one| (1, LIMIT_WAIT, series, one)).collect();
        let increases = told.tell(recorder, timed);
        increases.into_iter().flat_map(|(_, _, of)| of).collect()
    }

    #[test]
    fn each_recorder_receives_each_duration_once() {
        let durations = Durations::new(LIMIT_WAIT, &[["", ""]]);
        let mut known = Exported::default();
        durations.record(0, 2_000_000);
        durations.record(0, 2_200_000);
        let mean = Increase {
            seconds: 0.0021,
            count: 2,
        };
        assert_eq!(told(&mut known, 7, &durations), [mean]);
        assert_eq!(told(&mut known, 7, &durations), []);
        durations.record(0, 100_000_000);
        let tenth = Increase {
            seconds: 0.1,
            count: 1,
        };
        assert_eq!(told(&mut known, 7, &durations), [tenth]);
        assert_eq!(told(&mut known, 8, &durations), [mean, tenth]);
    }

    #[test]
    fn a_recorder_is_told_once_however_many_others_come() {
        let durations = Durations::new(LIMIT_WAIT, &[["", ""]]);
        durations.record(0, 2_000_000);
        let mut known = Exported::default();
        assert_eq!(told(&mut known, 0, &durations).len(), 1);
        for other in 1..10 * MAX_RECORDERS {
            assert_eq!(told(&mut known, other, &durations).len(), 1);
            assert_eq!(told(&mut known, 0, &durations), []);
        }
        assert_eq!(known.recorders.len(), MAX_RECORDERS);
    }

    #[test]
    fn a_mean_stays_in_its_bucket() {
        let durations = Durations::new(LIMIT_WAIT, &[["", ""]]);
        for nanos in [0, 500_000, 500_001, u64::MAX] {
            durations.record(0, nanos);
        }
        let means = told(&mut Exported::default(), 1, &durations);
        assert!(means[0].seconds <= BUCKETS[0] && means[1].seconds > BUCKETS[0]);
        assert!(means[2].seconds > BUCKETS[15] && means[2].seconds.is_finite());
    }
}
