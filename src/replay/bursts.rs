//! The smallest burst without rejections, at each rate.
//!
//! A bucket without a limit on its burst rejects nothing. How far it is behind after each call is
//! the burst that this call would have needed. The largest of these is the exact answer, in one
//! pass for all rates at once. Trying bursts one after the other would need a pass for each.

use std::io;

use crate::{
    algorithm::{MAX_BURST, Rate, TokenBucket, statistics::whole},
    replay::{call::End, moments::SECOND, sorted::Calls, survey::Survey},
};

/// The smallest burst that rejects no call at a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BurstPoint {
    /// The rate.
    pub rate: Rate,
    /// The burst. `None` if no burst that a bucket can have is enough.
    pub burst: Option<u32>,
    /// The burst if all calls with a time of whole seconds came at the start of theirs. Equal to
    /// `burst` for a log with finer times.
    pub at_most: Option<u32>,
}

/// Returns the exact smallest bursts that reject no call, for each rate. A rate that no bucket can
/// have is left out.
///
/// ```
/// use tower_keep::{algorithm::Rate, replay::{Call, Calls, burst_curve}};
///
/// // Ten calls at once, every second.
/// let calls: Calls = (0..100).map(|n| Call::new(n / 10 * 1_000_000_000, 0)).collect();
/// let curve = burst_curve(&calls, &[Rate::per_second(10), Rate::per_second(8)])?;
/// assert_eq!(curve[0].burst, Some(10));
/// assert_eq!(curve[1].burst, Some(10 + 9 * 2)); // it falls behind by 2 each second
/// # Ok::<_, std::io::Error>(())
/// ```
///
/// # Errors
/// Temporary files fail.
pub fn burst_curve(calls: &Calls, rates: &[Rate]) -> io::Result<Vec<BurstPoint>> {
    let mut backlogs: Vec<_> = rates
        .iter()
        .filter_map(|rate| Backlog::new(*rate))
        .collect();
    let mut first = None;
    calls.each(&mut |call| {
        let first = *first.get_or_insert(call.start);
        let now = (call.start - first).saturating_add(SECOND);
        for backlog in &mut backlogs {
            backlog.exact.take(call.cost, now);
            // Not before the first call, even with a coarse time.
            let early = if call.is_coarse && call.end != End::Cancelled {
                call.start - call.start % SECOND
            } else {
                call.start
            };
            backlog.early.take(
                call.cost,
                early.saturating_sub(first).saturating_add(SECOND),
            );
        }
    })?;
    Ok(backlogs
        .into_iter()
        .map(|backlog| BurstPoint {
            rate: backlog.rate,
            burst: backlog.exact.burst(),
            at_most: backlog.early.burst().max(backlog.exact.burst()),
        })
        .collect())
}

/// Returns rates of interest: from a little above the mean of the active time to the busiest
/// second, rounded up to two digits.
pub(super) fn rates_for(survey: &Survey, steps: u32) -> Vec<Rate> {
    let mean = survey.cost as f64 / survey.active().as_secs_f64();
    let low = (mean * 1.05).max(1e-3);
    let high = (survey.peak_second as f64).max(low * 1.5);
    let factor = (high / low).powf(1.0 / f64::from(steps.max(2) - 1));
    let mut rates: Vec<_> = (0..steps)
        .map(|step| rate_of(low * factor.powi(i32::try_from(step).unwrap_or(0))))
        .collect();
    rates.dedup();
    rates
}

/// Returns the next higher rate with two digits.
pub(super) fn rate_of(per_second: f64) -> Rate {
    for (seconds, at_least) in [
        (1u32, 1.0),
        (60, 1.0 / 60.0),
        (3600, 1.0 / 3600.0),
        (86_400, 0.0),
    ] {
        if per_second >= at_least {
            let count = per_second * f64::from(seconds);
            let scale = 10f64.powf((count.max(1.0).log10().floor() - 1.0).max(0.0));
            let count = whole((count / scale - 1e-9).ceil() * scale).max(1);
            return Rate::new(count, std::time::Duration::from_secs(u64::from(seconds)));
        }
    }
    Rate::per_day(1)
}

struct Backlog {
    rate: Rate,
    exact: Unbounded,
    early: Unbounded,
}

/// A bucket with the largest possible burst.
struct Unbounded {
    bucket: TokenBucket,
    most: u32,
    is_over: bool,
}

impl Backlog {
    fn new(rate: Rate) -> Option<Self> {
        Some(Self {
            rate,
            exact: Unbounded::new(rate)?,
            early: Unbounded::new(rate)?,
        })
    }
}

impl Unbounded {
    fn new(rate: Rate) -> Option<Self> {
        // A burst must refill within a year.
        let yearly = u128::from(rate.count()) * 360 * 86_400 * u128::from(SECOND);
        let largest = yearly.checked_div(rate.per().as_nanos())?;
        let burst = u32::try_from(largest)
            .unwrap_or(u32::MAX)
            .clamp(1, MAX_BURST);
        Some(Self {
            bucket: TokenBucket::new(rate, burst).ok()?,
            most: 0,
            is_over: false,
        })
    }

    fn take(&mut self, cost: u32, now: u64) {
        if self.bucket.acquire(cost, now).is_err() {
            self.is_over = true;
            return;
        }
        let behind = self.bucket.burst() - self.bucket.available(now);
        self.most = self.most.max(behind);
    }

    fn burst(&self) -> Option<u32> {
        (!self.is_over).then_some(self.most.max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replay::call::Call;

    fn rejected(calls: &Calls, rate: Rate, burst: u32) -> usize {
        let bucket = TokenBucket::new(rate, burst).unwrap();
        let mut rejected = 0;
        let first = calls.moments().unwrap();
        for (at, call) in first {
            let now = u64::try_from(at.as_nanos()).unwrap() + SECOND;
            rejected += usize::from(bucket.acquire(call.cost, now).is_err());
        }
        rejected
    }

    proptest! {
        #[test]
        fn the_burst_rejects_nobody_and_one_less_does(
            gaps in prop::collection::vec((0u64..2_000_000_000, 1u32..4), 1..100), per_second in 1u64..20,
        ) {
            let mut at = 5;
            let calls: Calls = gaps
                .into_iter()
                .map(|(gap, cost)| {
                    at += gap;
                    Call { cost, ..Call::new(at, 0) }
                })
                .collect();
            let rate = Rate::per_second(per_second);
            let burst = burst_curve(&calls, &[rate]).unwrap()[0].burst.unwrap();
            prop_assert_eq!(rejected(&calls, rate, burst), 0);
            if burst > 1 {
                prop_assert!(rejected(&calls, rate, burst - 1) > 0);
            }
        }
    }

    #[test]
    fn rates_are_round_and_not_below() {
        for (per_second, count, seconds) in [
            (1234.0, 1300, 1),
            (100.0, 100, 1),
            (1.5, 2, 1),
            (0.5, 30, 60),
            (0.001, 4, 3600),
        ] {
            let expected = Rate::new(count, std::time::Duration::from_secs(seconds));
            assert_eq!(rate_of(per_second), expected, "{per_second}");
        }
    }
}
