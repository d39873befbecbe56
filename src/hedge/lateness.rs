//! The check that tells a few late calls from a slow upstream.

use std::sync::atomic::{AtomicU32, Ordering};

/// The share of recent calls that were not answered when their hedge was due.
///
/// With a quantile of 0.95, one call in twenty is late while all is well. Four times as many are
/// not chance. A queue has made the upstream slow for all calls, and each hedge would lengthen it.
/// The quantile itself adapts too late, because it remembers thousands of calls, and the queue
/// builds up after some tens.
#[derive(Debug)]
pub(super) struct Lateness {
    /// The share in units of 2^-16, over about the last sixteen calls. Relaxed: a statistic that
    /// publishes nothing else. The loser of a race adds to the winner's value.
    share: AtomicU32,
    /// The limit above which all calls count as late.
    most: u32,
}

impl Lateness {
    pub(super) fn new(quantile: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 2^16, from 0 to 1"
        )]
        let expected = ((1.0 - quantile) * f64::from(ALL)) as u32;
        Self {
            share: AtomicU32::new(expected),
            most: expected * 4,
        }
    }

    /// Records whether a call was late: not answered when its hedge was due.
    pub(super) fn record(&self, is_late: bool) {
        let now = if is_late { ALL } else { 0 };
        let next = |share: u32| Some(share - share / LAST + now / LAST);
        // Always succeeds.
        let relaxed = Ordering::Relaxed;
        let _ = self.share.fetch_update(relaxed, relaxed, next);
    }

    /// Returns whether so many calls are late that hedges would only add load.
    pub(super) fn is_general(&self) -> bool {
        self.share.load(Ordering::Relaxed) > self.most
    }
}

const ALL: u32 = 1 << 16;
const LAST: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_late_call_in_twenty_is_chance() {
        let lateness = Lateness::new(0.95);
        for call in 0..10_000 {
            lateness.record(call % 20 == 0);
            assert!(!lateness.is_general(), "{call}");
        }
    }

    #[test]
    fn some_late_calls_in_a_row_are_none() {
        let lateness = Lateness::new(0.95);
        let calls = (1..100).find(|_| {
            lateness.record(true);
            lateness.is_general()
        });
        assert_eq!(calls, Some(3));
        let calls = (1..100).find(|_| {
            lateness.record(false);
            !lateness.is_general()
        });
        assert_eq!(calls, Some(2), "answers in time end it soon");
        (0..1000).for_each(|_| lateness.record(true));
        assert!(lateness.is_general());
        (0..40).for_each(|_| lateness.record(false));
        assert!(!lateness.is_general());
    }

    #[test]
    fn a_median_is_never_late_in_general() {
        let lateness = Lateness::new(0.5);
        (0..1000).for_each(|_| lateness.record(true));
        assert!(!lateness.is_general());
    }
}
