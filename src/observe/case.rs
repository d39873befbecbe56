//! An instance that is examined for advice.

use crate::observe::{Advice, BUCKETS, Evidence, Histogram, Instance, State};

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
        let mut config = self.one.config.iter();
        config
            .find(|(name, _)| *name == param)
            .map(|(_, value)| *value)
    }

    /// Returns the timeout of the same name: a total one, or one of an attempt.
    pub(super) fn timeout(&self, total: bool) -> Option<&'a Instance> {
        let mut all = self.all.iter().map(|(instance, _)| instance);
        all.find(|other| other.name == self.one.name && other.state == State::Timeout { total })
    }

    /// Returns the durations of successful attempts, if a timeout of the same name has recorded
    /// them.
    pub(super) fn good(&self) -> Option<&'a Histogram> {
        let timeout = self.timeout(false).or(self.timeout(true))?;
        of_outcome(timeout, "success")
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

pub(super) fn of_outcome<'a>(timeout: &'a Instance, outcome: &str) -> Option<&'a Histogram> {
    let mut all = timeout.histograms.iter();
    all.find(|one| one.labels.last() == Some(&outcome))
}

/// Returns the share of durations in buckets above the one that holds this many seconds.
pub(super) fn above(histogram: &Histogram, seconds: f64) -> f64 {
    let first = BUCKETS.partition_point(|bound| *bound < seconds);
    let above: u64 = histogram.counts.iter().skip(first + 1).sum();
    above as f64 / histogram.count().max(1) as f64
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
