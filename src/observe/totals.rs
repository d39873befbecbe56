//! What layers have counted, as snapshots show it.

use std::fmt;

use crate::RejectedKind;

/// What is counted, besides rejections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// By layers that do not learn how calls end.
    Admitted,
    Success,
    Failure,
    Overload,
    Ignored,
    Cancelled,
    Late,
    Reclaimed,
}

/// What a layer has counted since it was built, or has of one key since that came. Every number
/// only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Totals {
    /// Calls that were admitted. Of a layer that learns how calls end they are counted at their
    /// end, so that the outcomes below add up to them.
    pub admitted: u64,
    /// Calls that succeeded.
    pub success: u64,
    /// Calls that failed.
    pub failure: u64,
    /// Calls that the upstream answered with "too much".
    pub overload: u64,
    /// Calls whose result says nothing of the upstream, such as a rejection of a layer further in.
    pub ignored: u64,
    /// Calls that were dropped before their end.
    pub cancelled: u64,
    /// Calls that ended after the state that admitted them; only of circuit breakers.
    pub late: u64,
    /// Places that were [taken back](crate::bulkhead::BulkheadBuilder::reclaim_after) from calls
    /// that held them too long: only of bulkheads. Such a call is counted above when it ends.
    pub reclaimed: u64,
    /// Calls that the layer rejected, or cut off.
    pub rejected: Rejections,
}

/// Rejections by their kind.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejections([u64; KINDS]);

impl Totals {
    pub(super) fn of(sums: &[u64; COUNTERS]) -> Self {
        let of = |event: Event| sums[event as usize];
        let mut totals = Self {
            admitted: of(Event::Admitted),
            success: of(Event::Success),
            failure: of(Event::Failure),
            overload: of(Event::Overload),
            ignored: of(Event::Ignored),
            cancelled: of(Event::Cancelled),
            late: of(Event::Late),
            reclaimed: of(Event::Reclaimed),
            rejected: Rejections(std::array::from_fn(|kind| sums[EVENTS + kind])),
        };
        totals.admitted += totals.success
            + totals.failure
            + totals.overload
            + totals.ignored
            + totals.cancelled
            + totals.late;
        totals
    }
}

impl Rejections {
    /// By the number of their kind.
    pub(crate) fn from_fn(count: impl FnMut(usize) -> u64) -> Self {
        Self(std::array::from_fn(count))
    }

    /// Those of one kind.
    #[must_use]
    pub fn of(&self, kind: RejectedKind) -> u64 {
        self.0[kind.index()]
    }

    /// Calls that were rejected before they were sent.
    #[must_use]
    pub fn local(&self) -> u64 {
        self.iter()
            .filter(|(kind, _)| kind.is_local())
            .map(|(_, count)| count)
            .sum()
    }

    /// Each kind, and how many there were of it.
    pub fn iter(&self) -> impl Iterator<Item = (RejectedKind, u64)> {
        RejectedKind::ALL.into_iter().zip(self.0)
    }
}

/// Only the kinds that there were.
impl fmt::Debug for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().filter(|(_, count)| *count > 0))
            .finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Rejections {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(kind, count)| (kind.as_str(), count)))
    }
}

pub(super) const EVENTS: usize = Event::Reclaimed as usize + 1;
const KINDS: usize = RejectedKind::ALL.len();
pub(super) const COUNTERS: usize = EVENTS + KINDS;
