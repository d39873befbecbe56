//! Circuits that open by chance alone, and how often.
//!
//! A call that fails opens the circuit if enough other calls of its window failed as well. The
//! expected number of such calls is an upper bound of the trips, however the windows depend on each
//! other. Windows that do not overlap are independent. The expected number of those that reach the
//! threshold is a lower bound, as long as trips are rare. The window sizes are those of the log.

use std::collections::{HashMap, HashSet};

use crate::{
    algorithm::{
        BreakerConfig, Window,
        statistics::{binomial_tail, least_to_reach},
    },
    replay::{
        moments::{DAY_NANOS, SECOND},
        survey::{HostSurvey, Survey},
        tally::Half,
    },
};

/// Returns the expected false trips a week of a circuit by the binomial distribution, outside
/// incidents: at least, and at most. They include trips by the failure rate and by failures in a
/// row.
#[must_use]
pub fn false_trips(survey: &Survey, config: &BreakerConfig, half: Half) -> (f64, f64) {
    let (mut low, mut high, mut days) = (0.0, 0.0, HashSet::new());
    for host in &survey.hosts {
        let sizes = window_sizes(host, config, half, &mut days);
        let base = host.base_rate;
        for (size, calls) in sizes {
            let (one, other) = expected(size, calls, base, config);
            low += one;
            high += other;
        }
    }
    let weeks = days.len() as f64 / 7.0;
    // A log shorter than a day has less than a day's chances.
    let weeks = weeks.min(survey.weeks()).max(f64::MIN_POSITIVE);
    (low / weeks, high / weeks)
}

/// Returns the size of the window, at least, when half of the calls arrive.
pub(super) fn usual_window(survey: &Survey, config: &BreakerConfig) -> u64 {
    let mut days = HashSet::new();
    let mut sizes: Vec<_> = Vec::new();
    for host in &survey.hosts {
        sizes.extend(window_sizes(host, config, Half::Both, &mut days));
    }
    sizes.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let total: f64 = sizes.iter().map(|(_, calls)| calls).sum();
    let mut seen = 0.0;
    let found = sizes.into_iter().find(|(_, calls)| {
        seen += calls;
        seen * 2.0 >= total
    });
    found.map_or(0, |(size, _)| size)
}

/// Returns the expected trips of this many calls in windows of one size.
fn expected(size: u64, calls: f64, base: f64, config: &BreakerConfig) -> (f64, f64) {
    let (mut low, mut high) = (0.0, 0.0);
    if let (Some(rate), true) = (config.failure_rate, size >= u64::from(config.min_calls)) {
        let least = least_to_reach(size, rate);
        low += calls / size as f64 * binomial_tail(size, least, base);
        high += calls * base * binomial_tail(size - 1, least - 1, base);
    }
    if let Some(row) = config.consecutive_failures {
        let runs = calls * base.powi(i32::try_from(row).unwrap_or(i32::MAX)) * (1.0 - base);
        low += runs;
        high += runs;
    }
    (low, high)
}

/// Returns how many calls arrived at each window size.
fn window_sizes(
    host: &HostSurvey,
    config: &BreakerConfig,
    half: Half,
    days: &mut HashSet<u64>,
) -> HashMap<u64, f64> {
    let mut sizes = HashMap::new();
    let seconds = match config.window {
        Window::Time(length) => length.as_secs().max(1),
        Window::Calls(_) => 0,
    };
    let (mut within, mut oldest) = (0, 0);
    for (second, calls, _) in &host.seconds {
        let calls = u64::from(*calls);
        within += calls;
        while host.seconds[oldest].0 + seconds <= *second && host.seconds[oldest].0 < *second {
            within -= u64::from(host.seconds[oldest].1);
            oldest += 1;
        }
        let at = second * SECOND;
        if !half.has_moment(at) || host.incident_at(at, seconds * SECOND).is_some() {
            continue;
        }
        days.insert(at / DAY_NANOS);
        let size = match config.window {
            Window::Time(_) => within,
            Window::Calls(calls) => u64::from(calls),
        };
        *sizes.entry(rounded(size.max(1))).or_default() += calls as f64;
    }
    sizes
}

/// Returns the size rounded to a hundredth, so that a busy log does not need a tail for each of its
/// seconds.
fn rounded(size: u64) -> u64 {
    let step = (size / 100).max(1);
    size - size % step
}
