//! Hedges: the extra calls, and what they save.

use std::time::Duration;

use crate::replay::{histogram::Histogram, survey::Survey, words};

/// A hedge after a delay.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HedgeRow {
    /// The delay.
    pub delay: Duration,
    /// The share of calls that are sent twice.
    pub extra: f64,
    /// The 99th percentile of good answers without hedges, in nanoseconds.
    pub p99: u64,
    /// The same with hedges at best, if the second attempt is as fast as any call. At worst it is
    /// as slow as the first, and nothing is saved.
    pub p99_at_best: u64,
}

/// Returns hedges after the usual quantiles. Computed from the durations alone: a replay is not
/// needed, because a hedge changes nothing for other calls.
pub(super) fn hedges(survey: &Survey) -> Vec<HedgeRow> {
    let good = &survey.good;
    if good.count() < ENOUGH {
        return Vec::new();
    }
    let mut rows: Vec<HedgeRow> = Vec::new();
    for quantile in [0.5, 0.9, 0.95, 0.99] {
        let delay = words::rounded_up(good.quantile(quantile));
        let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        if rows.iter().any(|row| row.delay == delay) {
            continue;
        }
        rows.push(HedgeRow {
            delay,
            extra: good.share_above(nanos),
            p99: good.quantile(0.99),
            p99_at_best: hedged_quantile(good, nanos, 0.99),
        });
    }
    rows
}

/// Returns the quantile of the earlier of a call and another one that starts later by `delay`.
pub(super) fn hedged_quantile(durations: &Histogram, delay: u64, share: f64) -> u64 {
    let is_later = |time: u64| {
        let first = durations.share_above(time);
        let second = if time <= delay {
            1.0
        } else {
            durations.share_above(time - delay)
        };
        first * second > 1.0 - share
    };
    let found = durations
        .buckets()
        .map(|(end, _)| end)
        .find(|end| !is_later(*end));
    // Between two buckets there are no first calls, but there may be hedges.
    let (mut low, mut high) = (0, found.unwrap_or(durations.most()));
    while high - low > high / 64 + 1 {
        let middle = low + (high - low) / 2;
        if is_later(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high.min(durations.quantile(share))
}

const ENOUGH: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hedge_is_worth_what_chance_makes_it() {
        // One in twenty takes a second, the others 10 ms.
        let mut durations = Histogram::default();
        for number in 0..2000 {
            durations.record(if number % 20 == 0 {
                1_000_000_000
            } else {
                10_000_000
            });
        }
        assert!((durations.share_above(20_000_000) - 0.05).abs() < 1e-9);
        assert!(durations.quantile(0.99) > 900_000_000);
        // Both slow: one in four hundred.
        let hedged = hedged_quantile(&durations, 20_000_000, 0.99);
        assert!((29_000_000..33_000_000).contains(&hedged), "{hedged}");
    }
}
