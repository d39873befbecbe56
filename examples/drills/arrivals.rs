//! When the requests of an open load come.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// The moments of a Poisson process: independent callers, so many a second.
pub(crate) fn arrivals(per_second: f64, until: Duration, seed: u64) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(seed);
    let gaps = std::iter::repeat_with(move || -(1.0 - random.random::<f64>()).ln() / per_second);
    let moments = gaps.scan(0.0, |now, gap| {
        *now += gap;
        Some(Duration::from_secs_f64(*now))
    });
    moments.take_while(|at| *at < until).collect()
}
