//! Statistics of random events, for advice.
//!
//! Exact where that is cheap: binomial tails by the incomplete beta function (DLMF 8.17), intervals
//! of counts by Poisson tails. Draws no random numbers: the bootstrap takes a seed.

/// Returns the probability of at least `least` of `n` events, each of probability `p`.
pub(crate) fn binomial_tail(n: u64, least: u64, p: f64) -> f64 {
    if least == 0 {
        return 1.0;
    }
    if least > n || p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return 1.0;
    }
    incomplete_beta(least as f64, (n - least) as f64 + 1.0, p)
}

/// Returns the least number of failures among `n` calls that reaches a rate.
pub(crate) fn least_to_reach(n: u64, rate: f64) -> u64 {
    // In parts per million, as the circuit compares.
    let parts = whole((rate * 1e6).round());
    let product = u128::from(n) * u128::from(parts);
    u64::try_from(product.div_ceil(1_000_000))
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Returns the first of the given numbers of calls whose window trips by chance with at most this
/// probability. `None` if there is none.
pub(crate) fn calls_for(candidates: &[u32], (rate, base): (f64, f64), at_most: f64) -> Option<u32> {
    let trips = |calls: u32| {
        let n = u64::from(calls);
        binomial_tail(n, least_to_reach(n, rate), base)
    };
    candidates
        .iter()
        .copied()
        .find(|calls| trips(*calls) <= at_most)
}

/// Returns the interval of the mean of a Poisson count, with 90 % confidence, if this many were
/// seen (Garwood 1936).
#[cfg(feature = "replay")]
pub(crate) fn poisson_interval(seen: u64) -> (f64, f64) {
    let low = if seen == 0 {
        0.0
    } else {
        bisect(
            |mean| 1.0 - poisson_below(seen, mean),
            0.05,
            seen as f64 + 1.0,
        )
    };
    let high = bisect(
        |mean| 1.0 - poisson_below(seen + 1, mean),
        0.95,
        3.0 * seen as f64 + 20.0,
    );
    (low, high)
}

/// Returns the interval of the true proportion, with 90 % confidence, if `part` of `total` were
/// seen (Wilson 1927).
pub(crate) fn share_interval(part: u64, total: u64) -> (f64, f64) {
    if total == 0 {
        return (0.0, 1.0);
    }
    let (n, share) = (total as f64, part as f64 / total as f64);
    let square = Z * Z;
    let center = (share + square / (2.0 * n)) / (1.0 + square / n);
    let half = Z / (1.0 + square / n) * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

/// Returns the interval of the mean of a count, with 90 % confidence, if this many were seen: the
/// score interval, close to Garwood's, and cheap for any count.
pub(crate) fn count_interval(seen: u64) -> (f64, f64) {
    let (seen, square) = (seen as f64, Z * Z);
    let (center, half) = (seen + square / 2.0, Z * (seen + square / 4.0).sqrt());
    ((center - half).max(0.0), center + half)
}

/// Returns the 5th and the 95th percentile of a ratio of sums, with blocks drawn anew (Efron 1979).
#[cfg(feature = "replay")]
pub(crate) fn bootstrap(blocks: &[(f64, f64)], seed: u64) -> (f64, f64) {
    bootstrap_of(blocks, (seed, DRAWS), |drawn| {
        let (part, total) = drawn.fold((0.0, 0.0), |sum, block| (sum.0 + block.0, sum.1 + block.1));
        if total > 0.0 { part / total } else { 0.0 }
    })
}

/// Returns the 5th and the 95th percentile of anything that blocks have, with blocks drawn anew
/// this many times.
#[cfg(feature = "replay")]
pub(crate) fn bootstrap_of<T>(
    blocks: &[T],
    (seed, draws): (u64, usize),
    of: impl Fn(&mut dyn Iterator<Item = &T>) -> f64,
) -> (f64, f64) {
    if blocks.is_empty() {
        return (0.0, 0.0);
    }
    let mut state = seed | 1;
    let mut next = || {
        // Xorshift64*, for as many draws as there are blocks.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
    };
    let count = blocks.len() as u64;
    let mut found: Vec<f64> = (0..draws)
        .map(|_| {
            let drawn = (0..count).map(|_| usize::try_from(next() % count).unwrap_or(0));
            of(&mut drawn.map(|index| &blocks[index]))
        })
        .collect();
    found.sort_by(f64::total_cmp);
    (found[draws / 20], found[draws - 1 - draws / 20])
}

/// Converts a nonnegative number to an integer, rounding down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and negative ones become 0"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number as u64
}

/// Returns the probability of fewer than `count` events where `mean` are expected.
#[cfg(feature = "replay")]
fn poisson_below(count: u64, mean: f64) -> f64 {
    let (mut term, mut sum) = ((-mean).exp(), 0.0);
    for event in 0..count {
        sum += term;
        term *= mean / (event as f64 + 1.0);
    }
    sum.min(1.0)
}

/// Returns where a growing function reaches a value.
#[cfg(feature = "replay")]
fn bisect(function: impl Fn(f64) -> f64, value: f64, most: f64) -> f64 {
    let (mut low, mut high) = (0.0, most);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if function(middle) < value {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Returns the regularized incomplete beta function, by its continued fraction (Lentz's method).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    let front =
        (log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, 1.0 - x) / b
    }
}

fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut result = d;
    for step in 1..1000 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        result *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        result *= d * c;
        if (d * c - 1.0).abs() < 1e-14 {
            break;
        }
    }
    result
}

/// Returns the logarithm of the gamma function (Lanczos 1964), for numbers above 0.
fn log_gamma(x: f64) -> f64 {
    const TERMS: [f64; 6] = [
        76.180_091_729_471_46,
        -86.505_320_329_416_77,
        24.014_098_240_830_91,
        -1.231_739_572_450_155,
        0.001_208_650_973_866_179,
        -0.000_005_395_239_384_953,
    ];
    let base = x + 5.5;
    let mut sum = 1.000_000_000_190_015;
    for (step, term) in (1..).zip(TERMS) {
        sum += term / (x + f64::from(step));
    }
    (x + 0.5) * base.ln() - base + (2.506_628_274_631_000_5 * sum / x).ln()
}

/// The standard deviations that 90 % of a normal distribution lie within.
pub(crate) const Z: f64 = 1.645;
#[cfg(feature = "replay")]
const DRAWS: usize = 1000;

#[cfg(all(test, feature = "replay"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the same tail as a sum of its terms.
    fn summed(n: u64, least: u64, p: f64) -> f64 {
        let mut term = (1.0 - p).powi(i32::try_from(n).unwrap());
        let mut sum = 0.0;
        for k in 0..=n {
            if k >= least {
                sum += term;
            }
            term *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
        }
        sum
    }

    proptest! {
        #[test]
        fn tails_are_what_their_terms_add_up_to(n in 1u64..200, share in 0.0f64..1.0, p in 0.01f64..0.9) {
            let least = whole(share * n as f64);
            let (exact, tail) = (summed(n, least, p), binomial_tail(n, least, p));
            prop_assert!((exact - tail).abs() <= 1e-8 + 1e-6 * exact, "{} {}", exact, tail);
        }

        #[test]
        fn a_rate_is_reached_as_the_circuit_says(n in 1u64..2000, rate in 0.001f64..1.0) {
            let least = least_to_reach(n, rate);
            let parts = whole((rate * 1e6).round());
            prop_assert!(least * 1_000_000 >= n * parts);
            prop_assert!(least == 1 || (least - 1) * 1_000_000 < n * parts);
        }
    }

    #[test]
    fn known_tails() {
        // At a base rate of 12 %, half of 20 calls fail once in 28 000 windows.
        let twenty = binomial_tail(20, 10, 0.12);
        assert!((3.62e-5..3.63e-5).contains(&twenty), "{twenty}");
        assert!(binomial_tail(50, 25, 0.12) < 1e-9);
        assert_eq!(binomial_tail(10, 0, 0.5), 1.0);
        assert_eq!(binomial_tail(10, 11, 0.5), 0.0);
        assert_eq!(calls_for(&[10, 20, 50], (0.5, 0.12), 1e-6), Some(50));
        assert_eq!(calls_for(&[10, 20], (0.5, 0.5), 1e-6), None);
    }

    #[test]
    fn intervals_of_counts_are_garwoods() {
        // From tables of the two-sided 90 % interval.
        for (seen, low, high) in [(0, 0.0, 2.996), (1, 0.051, 4.744), (10, 5.425, 16.962)] {
            let found = poisson_interval(seen);
            assert!((found.0 - low).abs() < 0.002, "{seen}: {found:?}");
            assert!((found.1 - high).abs() < 0.002, "{seen}: {found:?}");
        }
    }

    #[test]
    fn score_intervals_are_close_to_garwoods() {
        for seen in [20, 100, 400] {
            let (score, exact) = (count_interval(seen), poisson_interval(seen));
            assert!((score.0 / exact.0 - 1.0).abs() < 0.1, "{score:?} {exact:?}");
            assert!((score.1 / exact.1 - 1.0).abs() < 0.1, "{score:?} {exact:?}");
        }
        assert_eq!(count_interval(0).0, 0.0);
    }

    #[test]
    fn shares_and_blocks_have_intervals_around_them() {
        let (low, high) = share_interval(5, 100);
        assert!(low > 0.02 && low < 0.05 && high > 0.05 && high < 0.11);
        assert_eq!(share_interval(0, 0), (0.0, 1.0));
        let even = bootstrap(&[(1.0, 10.0); 8], 1);
        assert_eq!(even, (0.1, 0.1));
        let (low, high) = bootstrap(&[(0.0, 10.0), (2.0, 10.0), (0.0, 10.0), (2.0, 10.0)], 1);
        assert!(low < 0.1 && high > 0.1, "{low} {high}");
        assert_eq!(bootstrap(&[], 1), (0.0, 0.0));
    }
}
