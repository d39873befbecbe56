//! Ticks: time cut into equal parts, without a division.

// Not modelled by loom, because ticks publish nothing. A new generation publishes others.
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The division of time into ticks: `now / width`, as a multiplication by the reciprocal. A 64-bit
/// division by a number known only at run time would be the most expensive instruction of a counted
/// call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticks {
    /// `2^shift / width`, rounded up. It is at least 2^62, so the result is exact for times below
    /// 2^62 ns (146 years). Later a tick may begin some nanoseconds early, for all callers alike.
    reciprocal: u64,
    shift: u32,
}

/// [`Ticks`] that can be replaced by longer or shorter ones.
///
/// The two fields are stored one after the other, so a concurrent reader may get a number that
/// belongs to no tick. Whatever is counted by it must belong to a generation that ends with the
/// replacement. Readers load the generation first, with Acquire. The writer replaces the ticks, and
/// then publishes a new generation with Release.
#[derive(Debug)]
pub(crate) struct SharedTicks {
    reciprocal: AtomicU64,
    shift: AtomicU32,
}

impl SharedTicks {
    pub(crate) fn new(ticks: Ticks) -> Self {
        Self {
            reciprocal: AtomicU64::new(ticks.reciprocal),
            shift: AtomicU32::new(ticks.shift),
        }
    }

    pub(crate) fn set(&self, ticks: Ticks) {
        self.reciprocal.store(ticks.reciprocal, Ordering::Relaxed);
        self.shift.store(ticks.shift, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn of(&self, now: u64) -> u64 {
        let ticks = Ticks {
            reciprocal: self.reciprocal.load(Ordering::Relaxed),
            shift: self.shift.load(Ordering::Relaxed),
        };
        ticks.of(now)
    }
}

impl Ticks {
    /// Creates ticks of `width` nanoseconds. A width of 0 counts as 1.
    pub(crate) fn new(width: u64) -> Self {
        let width = width.max(1);
        let shift = 63 + width.ilog2();
        // Between 2^62 and 2^63, whatever the width.
        let reciprocal = u64::try_from((1u128 << shift).div_ceil(width.into())).unwrap_or(u64::MAX);
        Self { reciprocal, shift }
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most `now`, or one more"
    )]
    pub(crate) fn of(self, now: u64) -> u64 {
        ((u128::from(now) * u128::from(self.reciprocal)) >> self.shift) as u64
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_quotient(bits in 0u32..50, offset: u64, now in 0u64..1 << 62, edge in 0u64..3) {
            let width = (1 << bits) + offset % (1 << bits);
            prop_assert_eq!(Ticks::new(width).of(now), now / width);
            // The start of a tick, and the moments beside it.
            let begin = (now / width * width + edge).saturating_sub(1);
            prop_assert_eq!(Ticks::new(width).of(begin), begin / width);
        }
    }
}
