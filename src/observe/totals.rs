//! The counts of layers, as snapshots show them.

use std::fmt;

use crate::RejectedKind;

/// The counted events, besides rejections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Counted by layers that do not learn how calls end.
    Admitted,
    Success,
    Failure,
    Overload,
    Ignored,
    Cancelled,
    Late,
    Reclaimed,
}

/// The counts of a layer since it was built, or of one key since it was first tracked. Every number
/// only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Totals {
    /// Calls that were admitted. A layer that learns how calls end counts them at their end, so
    /// that the outcomes below add up to them.
    pub admitted: u64,
    /// Calls that succeeded.
    pub success: u64,
    /// Calls that failed.
    pub failure: u64,
    /// Calls that the upstream answered as an overload.
    pub overload: u64,
    /// Calls whose result says nothing about the upstream, such as a rejection of a layer further
    /// in.
    pub ignored: u64,
    /// Calls that were dropped before their end.
    pub cancelled: u64,
    /// Calls that ended after the state that admitted them. Only for circuit breakers.
    pub late: u64,
    /// Permits that were [reclaimed](crate::bulkhead::BulkheadBuilder::reclaim_after) from calls
    /// that held them too long. Only for bulkheads. Such a call is counted above when it ends.
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
    /// Makes the counts by the index of each kind.
    pub(crate) fn from_fn(count: impl FnMut(usize) -> u64) -> Self {
        Self(std::array::from_fn(count))
    }

    /// Returns the rejections of one kind.
    #[must_use]
    pub fn of(&self, kind: RejectedKind) -> u64 {
        self.0[kind.index()]
    }

    /// Returns the calls that were rejected before they were sent.
    #[must_use]
    pub fn local(&self) -> u64 {
        self.iter()
            .filter(|(kind, _)| kind.is_local())
            .map(|(_, count)| count)
            .sum()
    }

    /// Returns each kind with its count.
    pub fn iter(&self) -> impl Iterator<Item = (RejectedKind, u64)> {
        RejectedKind::ALL.into_iter().zip(self.0)
    }
}

/// The kinds with a count above 0.
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
