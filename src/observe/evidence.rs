//! The certainty of advice on a running program: the interval of a share that was seen, and how
//! much longer to wait if that interval does not decide.
//!
//! A rule compares a share of calls with a bound. A share of few calls may lie on the other side of
//! it by chance, so each share has its interval (Wilson 1927). The bound is outside of the interval
//! once `n` is at least `z² b (1 − b) / (p − b)²`, which is the same test solved for `n`. So the
//! time that is still missing is known too.

use std::fmt;

use crate::{
    algorithm::statistics::{Z, share_interval, whole},
    observe::Evidence,
};

/// A share of calls, its interval of 90 %, and whether that decides against a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ShareEstimate {
    pub(super) share: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) evidence: Evidence,
}

impl ShareEstimate {
    /// `part` of `total` calls, which arrived in this time, against a bound.
    pub(super) fn new((part, total): (u64, u64), bound: f64, seconds: f64) -> Self {
        let share = part as f64 / total.max(1) as f64;
        let (low, high) = share_interval(part, total);
        let is_decided = total > 0 && !(low..=high).contains(&bound);
        let evidence = if is_decided {
            Evidence::Enough
        } else {
            let needed = Z * Z * bound * (1.0 - bound) / (share - bound).powi(2);
            let days = seconds / DAY * (needed / total.max(1) as f64 - 1.0);
            // Equal shares would take forever to tell apart.
            Evidence::MoreDays(whole(days.ceil()).clamp(1, LONGEST))
        };
        Self {
            share,
            low,
            high,
            evidence,
        }
    }
}

impl Evidence {
    /// Returns the certainty of advice that needs both.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::MoreDays(one), Self::MoreDays(two)) => Self::MoreDays(one.max(two)),
            (Self::MoreDays(days), _) | (_, Self::MoreDays(days)) => Self::MoreDays(days),
            _ => Self::Enough,
        }
    }
}

/// In percent, with the interval.
impl fmt::Display for ShareEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [share, low, high] = [self.share, self.low, self.high].map(|share| share * 100.0);
        let digits = if self.low < 0.01 { 2 } else { 1 };
        write!(f, "{share:.digits$} % ({low:.digits$} to {high:.digits$})")
    }
}

const DAY: f64 = 86_400.0;
/// Days after which nobody waits for advice.
const LONGEST: u64 = 365;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_more_days_tell_60_percent_from_50() {
        // A day with 20 calls. 68 of them are needed: 2.706 * 0.25 / 0.01.
        let seen = ShareEstimate::new((12, 20), 0.5, DAY);
        assert_eq!(seen.evidence, Evidence::MoreDays(3));
        let after = ShareEstimate::new((48, 80), 0.5, 4.0 * DAY);
        assert_eq!(after.evidence, Evidence::Enough);
        assert_eq!(after.to_string(), "60.0 % (50.8 to 68.5)");
    }

    #[test]
    fn nothing_and_equal_shares_decide_nothing() {
        assert_eq!(
            ShareEstimate::new((0, 0), 0.5, 0.0).evidence,
            Evidence::MoreDays(1)
        );
        let equal = ShareEstimate::new((50, 100), 0.5, DAY).evidence;
        assert_eq!(equal, Evidence::MoreDays(LONGEST));
    }

    #[test]
    fn two_pieces_of_evidence_are_as_weak_as_the_weaker() {
        use Evidence::{Enough, MoreDays};
        assert_eq!(Enough.and(Enough), Enough);
        assert_eq!(Enough.and(MoreDays(2)), MoreDays(2));
        assert_eq!(MoreDays(3).and(MoreDays(2)), MoreDays(3));
    }

    proptest! {
        /// As many more calls as it says, of the same share, are enough, and not many more.
        #[test]
        fn the_days_that_it_names_are_enough(
            total in 1u64..5_000, share in 0.0f64..1.0, bound in 0.001f64..0.999,
        ) {
            let part = whole((share * total as f64).round());
            if let Evidence::MoreDays(days @ 1..LONGEST) = ShareEstimate::new((part, total), bound, DAY).evidence {
                let then = |times: u64| ShareEstimate::new((part * times, total * times), bound, DAY).evidence;
                prop_assert_eq!(then(days + 1), Evidence::Enough);
                prop_assert!(days == 1 || then(days - 1) != Evidence::Enough);
            }
        }
    }
}
