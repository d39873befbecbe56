//! The time limit of one call.

use std::time::Duration;

use tokio::time::Instant;

/// The time that one call may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Unlimited,
    /// A duration, counted from the call's first wait: a call answered at once reads no clock.
    For(Duration),
    Until(Instant),
    /// The caller's deadline, which is before the end of the limit.
    ByCaller(ByCaller),
    /// The deadline of the body's first byte, which is before the end of the limit.
    FirstByte(FirstByte),
}

/// The limits of a call whose first byte has an earlier deadline than the whole call.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstByte {
    pub(super) first: Instant,
    /// The end of the whole call: by the limit, or by its caller's deadline.
    pub(super) until: Instant,
    /// If true, `until` is the caller's deadline.
    pub(super) by_caller: bool,
}

/// The limits of a call whose caller waits less long than the limit allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByCaller {
    pub(super) since: Instant,
    pub(super) until: Instant,
    /// The time that the limit would allow.
    pub(super) own: Duration,
}

impl Limit {
    /// Returns the limit of the rest of a body, without the first byte's.
    #[cfg(feature = "http")]
    pub(super) fn whole(self) -> Self {
        match self {
            Self::FirstByte(FirstByte { until, .. }) => Self::Until(until),
            limit => limit,
        }
    }

    /// Returns when the whole call is over, whatever the deadline of its first byte.
    #[cfg(feature = "http")]
    pub(super) fn end(self) -> Option<Instant> {
        match self {
            Self::FirstByte(FirstByte { until, .. }) => Some(until),
            limit => limit.moment(),
        }
    }

    /// Returns when the time is over, if that is known from the start.
    pub(super) fn moment(self) -> Option<Instant> {
        match self {
            Self::Unlimited | Self::For(_) => None,
            Self::Until(until) | Self::ByCaller(ByCaller { until, .. }) => Some(until),
            Self::FirstByte(FirstByte { first, .. }) => Some(first),
        }
    }
}
