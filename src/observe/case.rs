//! An instance that is examined for advice.

use crate::{
    algorithm::statistics::Z,
    observe::{Advice, BUCKETS, Evidence, Histogram, Instance, State, evidence::ShareEstimate},
};

/// An instance, all instances that may be related, and how long it has counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) one: &'a Instance,
    pub(super) all: &'a [(Instance, f64)],
    /// The age in seconds.
    pub(super) elapsed: f64,
}

impl<'a> Case<'a> {
    pub(super) fn config(&self, param: &str) -> Option<f64> {
        config_of(self.one, param)
    }

    /// Returns the timeout of the same name: a total one, or one of an attempt.
    pub(super) fn timeout(&self, total: bool) -> Option<&'a Instance> {
        let mut all = self.all.iter().map(|(instance, _)| instance);
        all.find(|other| other.name == self.one.name && other.state == State::Timeout { total })
    }

    /// Returns how many attempts a retry of the same name makes at most, if there is one.
    pub(super) fn attempts(&self) -> Option<f64> {
        let mut all = self.all.iter().map(|(instance, _)| instance);
        let retry = all.find(|other| other.name == self.one.name && other.layer == "retry");
        retry.and_then(|retry| config_of(retry, "attempts"))
    }

    /// Returns the seconds after which a timeout of the same name ends every call or attempt.
    pub(super) fn longest(&self) -> Option<f64> {
        let attempt = self.timeout(false).map(|one| config_of(one, "duration"));
        let total = self
            .timeout(true)
            .map(|one| config_of(one, "total_duration"));
        [attempt, total]
            .into_iter()
            .flatten()
            .flatten()
            .reduce(f64::min)
    }

    /// Returns the durations of successful attempts, if a timeout of the same name has recorded
    /// them.
    pub(super) fn good(&self) -> Option<&'a Histogram> {
        let timeout = self.timeout(false).or(self.timeout(true))?;
        of_outcome(timeout, "success")
    }

    /// Returns the seconds that attempts have taken in all that a timeout of the same name has cut.
    pub(super) fn hang(&self) -> f64 {
        let timeout = self.timeout(false).or(self.timeout(true));
        let cut = timeout.and_then(|timeout| of_outcome(timeout, "timeout"));
        cut.map_or(0.0, Histogram::sum)
    }

    /// Returns `part` of `total` calls as a share, which a rule compares with a bound.
    pub(super) fn seen(&self, part: (u64, u64), bound: f64) -> ShareEstimate {
        ShareEstimate::new(part, bound, self.elapsed)
    }

    pub(super) fn advice(&self, setting: &'static str, now: String) -> Advice {
        Advice {
            layer: self.one.layer,
            name: self.one.name.to_owned(),
            setting,
            now,
            better: None,
            reason: String::new(),
            price: String::new(),
            evidence: Evidence::Enough,
            alert: None,
        }
    }
}

/// Returns a parameter of an instance, if it has a value.
pub(super) fn config_of(one: &Instance, param: &str) -> Option<f64> {
    let mut config = one.config.iter();
    config
        .find(|(name, _)| *name == param)
        .map(|(_, value)| *value)
}

pub(super) fn of_outcome<'a>(timeout: &'a Instance, outcome: &str) -> Option<&'a Histogram> {
    let mut all = timeout.histograms.iter();
    all.find(|one| one.labels.last() == Some(&outcome))
}

/// Counts the durations in buckets above the one that holds this many seconds, and all durations.
pub(super) fn above_of(histogram: &Histogram, seconds: f64) -> (u64, u64) {
    let first = BUCKETS.partition_point(|bound| *bound < seconds);
    let above = histogram.counts.iter().skip(first + 1).sum();
    (above, histogram.count())
}

/// Returns the interval of a quantile, with 90 % confidence: the quantiles whose ranks it has by
/// chance.
pub(super) fn quantile_interval(histogram: &Histogram, share: f64) -> Option<(f64, f64)> {
    let half = Z * (share * (1.0 - share) / histogram.count().max(1) as f64).sqrt();
    let low = histogram.quantile((share - half).max(0.0))?;
    Some((low, histogram.quantile((share + half).min(1.0))?))
}

/// Returns whether usual calls take many times as long as the quickest, and so are queued. A bucket
/// is at most three times as long as the one below, so a factor of four is more than one bucket.
pub(super) fn is_spread(good: &Histogram) -> bool {
    let (quick, usual) = (good.quantile(0.05), good.quantile(0.5));
    good.count() >= 20
        && quick
            .zip(usual)
            .is_some_and(|(quick, usual)| usual >= 4.0 * quick)
}
