//! Weighted shares of one quota among tenants, which are enforced only while it is short.
//!
//! A provider gives a gateway one quota for all of its tenants. Without shares the loudest tenant
//! takes it, since a bucket admits in order of arrival. A fixed part for each tenant would protect
//! the others, and waste what they do not use. So each tenant has a share, by its weight among the
//! tenants that have called lately, and half of the quota's burst is a reserve. A call within its
//! tenant's share may use the reserve. A call beyond it is admitted too, as long as the reserve
//! stays whole. That is how networks mark packets within and beyond a committed rate (RFC 4115),
//! and drop the latter at a lower threshold (RIO, Clark and Fang 1998).
//!
//! **Guarantee.** The shares of all active tenants add up to the quota's rate, and their bursts to
//! half of the reserve. So while the set of active tenants stays the same, no call within its share
//! is rejected for what others have taken. The exception is a call that costs more than its share's
//! whole burst. It counts as within the share if none of that is used, and may overdraw it once.
//! The other half of the reserve is for tenants that come back. All shares become smaller then, and
//! one that is used beyond its new burst waits until it is not. **Cost.** One load and one
//! compare-and-swap for each quota in which the call costs something. Some more for a tenant's
//! first call in [`EPOCH`], and after a change of the weights.
//!
//! What a tenant takes beyond its share is charged to the share up to its burst and one call. So a
//! tenant that uses what is left over does not pay for it for long when the others return. What was
//! not charged is remembered until its calls are settled. Otherwise their refunds would free a
//! share that they had not used, and a tenant that estimates too high would get more than its part.

use crate::sync::{AtomicU64, Ordering};

/// The weights of the tenants that have called lately, together.
///
/// Time is divided into epochs. A tenant is active in an epoch if it has called in it, or in the
/// one before. Each sum counts a tenant once: `seen` those of an epoch, `joined` those that had not
/// been there in the epoch before. Without a list of tenants, so without a lock.
#[derive(Debug, Default)]
pub(crate) struct ActiveWeights {
    seen: [Sum; SUMS],
    joined: [Sum; SUMS],
}

/// The weights of one epoch: `epoch:32 | weights:32`. The sum saturates, which errs towards larger
/// shares. Relaxed: it publishes nothing.
#[derive(Debug, Default)]
struct Sum(AtomicU64);

/// A tenant's share of `N` quotas.
#[derive(Debug)]
pub(crate) struct Share<const N: usize> {
    weight: u64,
    /// The number of the epoch of its last call, and 0 before its first.
    /// Relaxed, like `used_until`: neither publishes anything.
    last: AtomicU64,
    /// The sum that `used_until` was computed with, and 0 before the first. Of callers that find
    /// another sum, the one that changes it adapts `used_until`. A charge in between is off by the
    /// ratio of the two.
    weights: AtomicU64,
    /// The moment at which the share of each quota is whole again, in nanoseconds: a theoretical
    /// arrival time, as in a token bucket.
    used_until: [AtomicU64; N],
    /// The cost beyond the share that was not charged, of calls that are not settled yet, in
    /// nanoseconds of the share. Relaxed: it publishes nothing. A settlement that races a charge
    /// may miss it, which errs by one call.
    uncharged: [AtomicU64; N],
}

/// A share at one moment, among all active weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a, const N: usize> {
    share: &'a Share<N>,
    weights: u64,
}

/// The size of a call against one quota, as the times that the whole quota takes for them, in
/// nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spans {
    pub(crate) cost: u64,
    /// The cost of the tenant's calls that come first.
    pub(crate) before: u64,
    /// The time that all shares' bursts together take.
    pub(crate) burst: u64,
}

impl ActiveWeights {
    /// Counts a tenant as active, and returns its claim.
    pub(crate) fn claim<'a, const N: usize>(&self, share: &'a Share<N>, now: u64) -> Claim<'a, N> {
        let epoch = now / EPOCH + FIRST;
        // The maximum, for a caller whose time is a little older. One call of an epoch finds an
        // older number, and counts.
        let last = share.last.fetch_max(epoch, Ordering::Relaxed);
        if last < epoch {
            self.seen[place(epoch)].add(epoch, share.weight);
            if last + 1 < epoch {
                self.joined[place(epoch)].add(epoch, share.weight);
            }
        }
        // A first call may be between its two additions.
        let weights = self.weights(epoch.max(last)).max(share.weight);
        share.rescale(weights, now);
        Claim { share, weights }
    }

    /// Returns the part of a share among all that are active, without counting it as active.
    pub(crate) fn part<const N: usize>(&self, share: &Share<N>, now: u64) -> f64 {
        let weights = self.weights(now / EPOCH + FIRST).max(share.weight);
        share.weight as f64 / weights.max(1) as f64
    }

    fn weights(&self, epoch: u64) -> u64 {
        self.seen[place(epoch - 1)].of(epoch - 1) + self.joined[place(epoch)].of(epoch)
    }
}

impl Sum {
    fn add(&self, epoch: u64, weight: u64) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let before = match (word >> 32).cmp(&(epoch & LOW)) {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => word & LOW,
                // The place belongs to a later epoch: this call is very late.
                std::cmp::Ordering::Greater => return,
            };
            let sum = (epoch & LOW) << 32 | (before + weight).min(LOW);
            // A loser adds to what the winner left.
            match self
                .0
                .compare_exchange_weak(word, sum, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }

    fn of(&self, epoch: u64) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        if word >> 32 == epoch & LOW {
            word & LOW
        } else {
            0
        }
    }
}

impl<const N: usize> Share<N> {
    /// Creates a whole share. A weight of 0 has none: its calls use what the others leave.
    pub(crate) fn new(weight: u32) -> Self {
        Self {
            weight: u64::from(weight.min(MOST)),
            last: AtomicU64::new(0),
            weights: AtomicU64::new(0),
            used_until: std::array::from_fn(|_| AtomicU64::new(0)),
            uncharged: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Adapts to other weights. Used units stay used, and take longer to come back if the share is
    /// smaller.
    fn rescale(&self, weights: u64, now: u64) {
        let before = self.weights.load(Ordering::Relaxed);
        if before == weights || self.weights.swap(weights, Ordering::Relaxed) != before {
            return;
        }
        let (before, weights) = (u128::from(before), u128::from(weights));
        for until in self.used_until.iter().filter(|_| before > 0) {
            let _ = until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
                let ahead = u128::from(until.checked_sub(now)?) * weights / before;
                Some(now.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX)))
            });
        }
    }

    /// Makes the share whole.
    pub(crate) fn reset(&self) {
        for word in self.used_until.iter().chain(&self.uncharged) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Returns whether a new share in its place would decide the same.
    pub(crate) fn is_fresh(&self, now: u64) -> bool {
        let mut all = self.used_until.iter();
        all.all(|until| until.load(Ordering::Relaxed) <= now)
    }
}

impl<const N: usize> Claim<'_, N> {
    /// Returns how many nanoseconds until a call is within the share.
    pub(crate) fn wait(&self, quota: usize, spans: Spans, now: u64) -> u64 {
        let until = self.share.used_until[quota].load(Ordering::Relaxed);
        let ahead = until.saturating_sub(now);
        self.wait_from(ahead.saturating_add(self.of_share(spans.before)), spans)
    }

    /// Takes a call's cost from the share if it is within it, or will be in at most `tolerance`
    /// nanoseconds. Returns whether it was.
    pub(crate) fn take(&self, quota: usize, spans: Spans, tolerance: u64, now: u64) -> bool {
        let cost = self.of_share(spans.cost);
        let until = &self.share.used_until[quota];
        // A loser decides again on what the winner left.
        let taken = until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            let wait = self.wait_from(until.saturating_sub(now), spans);
            (wait <= tolerance).then(|| until.max(now).saturating_add(cost))
        });
        if taken.is_ok_and(|until| until <= now) {
            // A whole share owes nothing, also for calls that were never settled.
            self.share.uncharged[quota].store(0, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Charges a cost that was taken beyond the share: at most until one call beyond its burst.
    pub(crate) fn charge(&self, quota: usize, spans: Spans, now: u64) {
        let cost = self.of_share(spans.cost);
        let most = now.saturating_add(spans.burst).saturating_add(cost);
        let mut uncharged = 0;
        let until = &self.share.used_until[quota];
        let _ = until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            let start = until.max(now);
            let charged = start.saturating_add(cost).min(most).max(until);
            uncharged = cost.saturating_sub(charged.saturating_sub(start));
            Some(charged)
        });
        if uncharged > 0 {
            let of_share = &self.share.uncharged[quota];
            let _ = of_share.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                Some(before.saturating_add(uncharged))
            });
        }
    }

    /// Settles a call that took one span and gives a part of it back. The part of the call that was
    /// not charged gives nothing back.
    pub(crate) fn refund(&self, quota: usize, taken: u64, refund: u64) {
        let (taken, refund) = (self.of_share(taken), self.of_share(refund));
        let mut free = 0;
        let uncharged = &self.share.uncharged[quota];
        // A loser decides again. Nothing is stored if all calls were charged.
        let _ = uncharged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uncharged| {
            free = uncharged.min(taken);
            (free > 0).then(|| uncharged - free)
        });
        let refund = refund.saturating_sub(free);
        let until = &self.share.used_until[quota];
        let _ = until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            (refund > 0).then(|| until.saturating_sub(refund))
        });
    }

    /// Returns how long until a call is within a share that is whole in `ahead` nanoseconds.
    fn wait_from(&self, ahead: u64, spans: Spans) -> u64 {
        if self.share.weight == 0 {
            return u64::MAX;
        }
        let after = ahead.saturating_add(self.of_share(spans.cost));
        // A call above the whole burst is within a share of which nothing is used.
        after.saturating_sub(spans.burst).min(ahead)
    }

    /// Converts the time that units take of the whole quota to the time that they take of the
    /// share. Saturates, for a weight of 0 too.
    fn of_share(&self, span: u64) -> u64 {
        let span = u128::from(span) * u128::from(self.weights);
        let span = span.div_ceil(u128::from(self.share.weight.max(1)));
        u64::try_from(span).unwrap_or(u64::MAX)
    }
}

fn place(epoch: u64) -> usize {
    usize::try_from(epoch % SUMS as u64).unwrap_or(0)
}

/// For how long a tenant is active after a call: at least this, at most twice as long.
pub(crate) const EPOCH: u64 = 10_000_000_000;
/// The number of the first epoch: 0 is for a tenant that has never called, 1 for the epoch before.
const FIRST: u64 = 2;
/// Epochs that are kept: this one, the last one, and two for calls that are late.
const SUMS: usize = 4;
/// A weight above this counts as this one, so that sums hold 65 000 of them.
const MOST: u32 = u16::MAX as u32;
const LOW: u64 = u32::MAX as u64;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn spans(cost: u64) -> Spans {
        let (before, burst) = (0, 10 * SECOND);
        Spans {
            cost,
            before,
            burst,
        }
    }

    #[test]
    fn a_share_is_used_and_comes_back() {
        let (active, share) = (ActiveWeights::default(), Share::<1>::new(1));
        let other = Share::<1>::new(3);
        active.claim(&other, 0);
        let claim = active.claim(&share, 0);
        assert_eq!(active.part(&share, 0), 0.25);
        // A quarter of ten seconds of the whole.
        assert!(claim.take(0, spans(2 * SECOND), 0, 0));
        assert!(!claim.take(0, spans(SECOND), 0, 0));
        assert_eq!(claim.wait(0, spans(SECOND), 0), 2 * SECOND);
        assert!(claim.take(0, spans(SECOND), 0, 2 * SECOND));
        claim.refund(0, SECOND, SECOND);
        assert!(claim.take(0, spans(SECOND), 0, 2 * SECOND));
        assert!(!share.is_fresh(11 * SECOND) && share.is_fresh(12 * SECOND));
    }

    #[test]
    fn used_units_stay_used_when_others_come_and_go() {
        let (active, share, other) = (
            ActiveWeights::default(),
            Share::<1>::new(1),
            Share::<1>::new(1),
        );
        let claim = active.claim(&share, 0);
        assert!(claim.take(0, spans(10 * SECOND), 0, 0));
        active.claim(&other, 0);
        // Half of the rate, so they take twice as long. And half of the burst.
        let claim = active.claim(&share, 0);
        assert_eq!(claim.wait(0, spans(SECOND), 0), 12 * SECOND);
        let alone = active.claim(&share, 2 * EPOCH - 1);
        assert_eq!(alone.weights, 2);
        assert!(alone.take(0, spans(4 * SECOND), 0, 2 * EPOCH - 1));
        let alone = active.claim(&share, 2 * EPOCH);
        assert_eq!(alone.weights, 1);
        let until = share.used_until[0].load(Ordering::Relaxed);
        assert_eq!(until, 2 * EPOCH + 4 * SECOND);
    }

    #[test]
    fn a_call_above_the_whole_burst_needs_a_whole_share() {
        let (active, share) = (ActiveWeights::default(), Share::<1>::new(1));
        let claim = active.claim(&share, 0);
        assert!(claim.take(0, spans(60 * SECOND), 0, 0));
        assert_eq!(claim.wait(0, spans(60 * SECOND), 0), 60 * SECOND);
        assert!(!claim.take(0, spans(60 * SECOND), 0, 59 * SECOND));
        assert!(claim.take(0, spans(60 * SECOND), 0, 60 * SECOND));
    }

    #[test]
    fn what_is_taken_beyond_a_share_is_soon_forgotten() {
        let (active, share) = (ActiveWeights::default(), Share::<1>::new(1));
        let claim = active.claim(&share, 0);
        for _ in 0..1000 {
            claim.charge(0, spans(SECOND), 0);
        }
        // Its burst, and one call.
        assert_eq!(claim.wait(0, spans(SECOND), 0), 2 * SECOND);
    }

    /// Regression: ten calls beyond the share, of which most came back, made it whole.
    #[test]
    fn a_refund_of_what_was_not_charged_frees_no_share() {
        let (active, share) = (ActiveWeights::default(), Share::<1>::new(1));
        let claim = active.claim(&share, 0);
        for _ in 0..10 {
            // Ten at once, each with an estimate of four times what it uses.
            (0..10).for_each(|_| claim.charge(0, spans(4 * SECOND), 0));
            (0..10).for_each(|_| claim.refund(0, 4 * SECOND, 3 * SECOND));
            assert_eq!(
                share.uncharged[0].load(Ordering::Relaxed),
                0,
                "all are settled"
            );
        }
        assert!(claim.wait(0, spans(SECOND), 0) > 0, "it is used up");
        // and once it is whole, nothing is left of calls that were never settled.
        (0..10).for_each(|_| claim.charge(0, spans(4 * SECOND), 0));
        assert!(claim.take(0, spans(4 * SECOND), 0, 60 * SECOND));
        claim.refund(0, 4 * SECOND, 4 * SECOND);
        assert!(share.is_fresh(60 * SECOND));
    }

    #[test]
    fn moments_that_are_late_are_counted_once() {
        let (active, share) = (ActiveWeights::default(), Share::<1>::new(5));
        active.claim(&share, EPOCH);
        assert_eq!(active.claim(&share, 0).weights, 5);
        assert_eq!(active.claim(&share, EPOCH).weights, 5);
    }

    #[test]
    fn epochs_wrap_after_a_thousand_years() {
        let (active, share) = (ActiveWeights::default(), Share::<1>::new(5));
        // The clock ends after 584 years.
        let late = u64::MAX - 3 * EPOCH;
        assert_eq!(active.claim(&share, late).weights, 5);
        assert_eq!(active.claim(&share, late + EPOCH).weights, 5);
        const { assert!(u64::MAX / EPOCH < LOW) };
    }

    proptest! {
        /// Compares with a list of when each tenant has called.
        #[test]
        fn agrees_with_a_list_of_tenants(
            weights in proptest::collection::vec(0u32..100, 1..6),
            calls in proptest::collection::vec((0usize..6, 0u64..25), 1..60),
        ) {
            let active = ActiveWeights::default();
            let shares: Vec<_> = weights.iter().map(|weight| Share::<1>::new(*weight)).collect();
            let (mut epochs, mut now) = (BTreeMap::<usize, Vec<u64>>::new(), 0);
            for (tenant, seconds) in calls {
                let tenant = tenant % weights.len();
                now += seconds * SECOND;
                let epoch = now / EPOCH;
                epochs.entry(tenant).or_default().push(epoch);
                let is_active = |of: &Vec<u64>| of.iter().any(|one| one + 1 >= epoch);
                let expected: u64 = epochs
                    .iter()
                    .filter(|(_, of)| is_active(of))
                    .map(|(tenant, _)| u64::from(weights[*tenant]))
                    .sum();
                prop_assert_eq!(active.claim(&shares[tenant], now).weights, expected);
            }
        }
    }
}
