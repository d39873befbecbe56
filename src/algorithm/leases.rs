//! Several leases on one call: units of all of them are spent, or of none.
//!
//! A call that costs units of several quotas finds a [lease](super::Lease) of each. To spend one
//! after the other, and to stop at the first that has too little, would use up the first ones for
//! calls that the last one rejects. So a call first looks at all of them, and spends only then.
//!
//! **Guarantee.** Each lease's own: no more is spent than was added, and none at or after its end.
//! Units that a call has taken of some leases when it finds another one empty go back to the cells
//! that they came from. They never live for longer than they were granted for. While two calls race
//! for the last units, one may for an instant hold units that it puts back, and a third may be
//! rejected for it.
//!
//! **Cost.** Two loads for each lease, and one compare-and-swap for each that the call costs
//! something of. A call that finds too little writes nothing, unless it loses a race.

use crate::algorithm::{Lease, lease::Taken};

/// One lease for each quota, in the order of the costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leases<'a, const N: usize>(pub(crate) [&'a Lease; N]);

impl<const N: usize> Leases<'_, N> {
    /// Spends all costs, or none. Returns whether they were there.
    #[inline]
    pub(crate) fn spend(&self, costs: &[u32; N], now: u64) -> bool {
        let there = |(lease, cost): (&&Lease, &u32)| *cost == 0 || lease.units(now) >= *cost;
        // Not the decision, which is each lease's own.
        self.0.iter().zip(costs).all(there) && self.take(costs, now)
    }

    fn take(&self, costs: &[u32; N], now: u64) -> bool {
        let mut taken = [Taken::default(); N];
        for (place, (lease, cost)) in self.0.iter().zip(costs).enumerate() {
            if let Some(units) = lease.take(*cost, now) {
                taken[place] = units;
                continue;
            }
            for (lease, units) in self.0.iter().zip(taken) {
                lease.put_back(units);
            }
            return false;
        }
        true
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn with<const N: usize>(units: [u32; N]) -> [Lease; N] {
        units.map(|units| {
            let lease = Lease::new();
            lease.add(units, SECOND, 0);
            lease
        })
    }

    #[test]
    fn all_are_spent_or_none() {
        let leases = with([3, 100, 5]);
        let all = Leases(leases.each_ref());
        let left = || leases.each_ref().map(|lease| lease.units(0));
        assert!(all.spend(&[1, 60, 0], 0));
        assert!(!all.spend(&[1, 60, 0], 0));
        assert_eq!(left(), [2, 40, 5]);
        assert!(all.spend(&[0, 40, 5], 0));
        assert!(all.spend(&[2, 0, 0], 0), "what costs nothing is not asked");
        assert!(all.spend(&[0, 0, 0], 0) && !all.spend(&[1, 0, 0], 0));
    }

    /// The look before the spending is left out, as by a call that has lost a race after it.
    #[test]
    fn a_lost_race_puts_back_what_was_taken() {
        let leases = with([3, 100, 5]);
        let all = Leases(leases.each_ref());
        assert!(!all.take(&[1, 100, 6], 0));
        assert_eq!(leases.each_ref().map(|lease| lease.units(0)), [3, 100, 5]);
    }

    #[test]
    fn threads_spend_no_more_than_there_is_of_any() {
        let leases = with([300, 1000]);
        let spent = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let got = Leases(leases.each_ref()).spend(&[1, 2], 0);
                        spent.fetch_add(u32::from(got), Ordering::Relaxed);
                    }
                });
            }
        });
        let spent = spent.into_inner();
        assert!(spent <= 300, "{spent}");
        let left = leases.each_ref().map(|lease| lease.units(0));
        assert_eq!(left, [300 - spent, 1000 - 2 * spent]);
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_lost_race_keeps_nothing_of_any_lease() {
        loom::model(|| {
            let leases = Arc::new([Lease::new(), Lease::new()]);
            leases[0].add(2, SECOND, 0);
            leases[1].add(1, SECOND, 0);
            let other = leases.clone();
            let thread =
                thread::spawn(move || u32::from(Leases(other.each_ref()).take(&[1, 1], 0)));
            let here = u32::from(Leases(leases.each_ref()).take(&[1, 1], 0));
            assert_eq!(here + thread.join().unwrap(), 1);
            assert_eq!((leases[0].units(0), leases[1].units(0)), (1, 0));
        });
    }

    #[test]
    fn units_put_back_do_not_join_a_later_grant() {
        loom::model(|| {
            let lease = Arc::new(Lease::new());
            lease.add(1, SECOND, 0);
            let other = lease.clone();
            let thread = thread::spawn(move || {
                if let Some(taken) = other.take(1, 0) {
                    other.put_back(taken);
                }
            });
            lease.add(1, 2 * SECOND, 0);
            lease.add(1, 3 * SECOND, 0);
            thread.join().unwrap();
            assert!(lease.units(0) >= 2);
            // A grant that meets a unit put back in between ends with it, which errs towards less.
            assert!(lease.units(SECOND) <= 2, "its time is over");
        });
    }
}
