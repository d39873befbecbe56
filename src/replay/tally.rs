//! The counts of the effects of thresholds, per day.

use std::ops::AddAssign;

use crate::replay::{moments::DAY_NANOS, thresholds::Thresholds};

/// The counts of the effects of thresholds in some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Tally {
    /// All calls.
    pub calls: u64,
    /// The calls that the upstream answered with success.
    pub good: u64,
    /// The calls that it answered with a failure or an overload.
    pub bad: u64,
    /// Good calls that would have been rejected.
    pub rejected_good: u64,
    /// Bad calls that would have been rejected, and so spared.
    pub rejected_bad: u64,
    /// Other calls that would have been rejected, such as those that already were.
    pub rejected_other: u64,
    /// Good answers that would have arrived after the timeout.
    pub lost_good: u64,
    /// Bad answers that the timeout would have cut off.
    pub cut_bad: u64,
    /// The time that the calls cut off would have taken beyond the timeout, in nanoseconds.
    pub saved: u64,
    /// The number of times that a closed circuit would have opened.
    pub trips: u64,
    /// The number of these times outside an incident.
    pub false_trips: u64,
    /// The time that circuits would have been open or half-open, in nanoseconds.
    pub open: u64,
    /// The incidents in which a circuit would have opened.
    pub detected: u64,
    /// The sum of the times from the start of these incidents to the opening, in nanoseconds.
    pub detection: u64,
    /// The retries that the budget would have paid for.
    pub retries: u64,
    /// The retries that it would not have paid for.
    pub retries_denied: u64,
}

/// The effects of some thresholds on a log's calls.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replayed {
    /// The thresholds.
    pub thresholds: Thresholds,
    /// The counts of each day since 1970 that has calls.
    pub days: Vec<(u64, Tally)>,
    /// The rejected calls of each key, the most first.
    pub keys: Vec<(u64, u64)>,
    /// The incidents in the log.
    pub incidents: u64,
}

/// A part of the days: thresholds are chosen on one half, and priced on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Half {
    /// All days.
    Both,
    /// Every other day, from which thresholds are chosen.
    Choice,
    /// The other days, on which they are priced.
    Price,
}

impl Tally {
    /// Returns all rejected calls.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected_good + self.rejected_bad + self.rejected_other
    }

    /// Returns the share of good calls that would have been rejected or cut off.
    #[must_use]
    pub fn good_lost(&self) -> f64 {
        share(self.rejected_good + self.lost_good, self.good)
    }

    /// Returns the share of bad calls that would have been spared.
    #[must_use]
    pub fn bad_spared(&self) -> f64 {
        share(self.rejected_bad, self.bad)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.good += other.good;
        self.bad += other.bad;
        self.rejected_good += other.rejected_good;
        self.rejected_bad += other.rejected_bad;
        self.rejected_other += other.rejected_other;
        self.lost_good += other.lost_good;
        self.cut_bad += other.cut_bad;
        self.saved += other.saved;
        self.trips += other.trips;
        self.false_trips += other.false_trips;
        self.open += other.open;
        self.detected += other.detected;
        self.detection += other.detection;
        self.retries += other.retries;
        self.retries_denied += other.retries_denied;
    }
}

impl Replayed {
    /// Returns the sum of some days.
    #[must_use]
    pub fn over(&self, half: Half) -> Tally {
        let mut sum = Tally::default();
        for (_, tally) in self.days.iter().filter(|(day, _)| half.has(*day)) {
            sum += *tally;
        }
        sum
    }

    /// Returns the sum of all days.
    #[must_use]
    pub fn total(&self) -> Tally {
        self.over(Half::Both)
    }

    /// Returns the mean seconds from the start of an incident until the circuit opened.
    #[must_use]
    pub fn detection(&self) -> Option<f64> {
        let total = self.total();
        (total.detected > 0).then(|| total.detection as f64 / total.detected as f64 / 1e9)
    }
}

/// The tallies, by the day since 1970.
#[derive(Debug, Default)]
pub(super) struct Days(Vec<(u64, Tally)>);

impl Days {
    /// Returns the tally of the day of a time. Times arrive nearly in order.
    pub(super) fn at(&mut self, nanos: u64) -> &mut Tally {
        let day = nanos / DAY_NANOS;
        let before = self.0.iter().rposition(|(known, _)| *known <= day);
        let place = match before {
            Some(place) if self.0[place].0 == day => place,
            before => {
                let place = before.map_or(0, |place| place + 1);
                self.0.insert(place, (day, Tally::default()));
                place
            }
        };
        &mut self.0[place].1
    }

    pub(super) fn into_inner(self) -> Vec<(u64, Tally)> {
        self.0
    }
}

impl Half {
    /// Returns whether a day since 1970 belongs to it. The halves alternate daily, and a week has
    /// an odd number of days, so each half has every weekday.
    #[must_use]
    pub fn has(self, day: u64) -> bool {
        match self {
            Self::Both => true,
            Self::Choice => day % 2 == 0,
            Self::Price => day % 2 == 1,
        }
    }

    pub(super) fn has_moment(self, nanos: u64) -> bool {
        self.has(nanos / DAY_NANOS)
    }
}

pub(super) fn share(part: u64, total: u64) -> f64 {
    if total == 0 {
        0.0
    } else {
        part as f64 / total as f64
    }
}
