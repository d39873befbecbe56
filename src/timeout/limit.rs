//! The time of one call.

use std::time::Duration;

use tokio::time::Instant;

/// The time that one call may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Unlimited,
    /// From the first time that the call has to wait: a call answered at once reads no clock.
    For(Duration),
    Until(Instant),
    /// The caller's own deadline comes before the limit is over.
    ByCaller(ByCaller),
    /// The first byte of the body must come before that.
    FirstByte(FirstByte),
}

/// A call whose first byte must come sooner than all of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstByte {
    pub(super) first: Instant,
    /// The end of all of it: by the limit, or by its caller's deadline.
    pub(super) until: Instant,
    /// If true, the latter.
    pub(super) by_caller: bool,
}

/// A call that its caller waits for less long than the limit allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByCaller {
    pub(super) since: Instant,
    pub(super) until: Instant,
    /// The time that the limit would allow.
    pub(super) own: Duration,
}

impl Limit {
    /// The same without a word on the first byte, for the rest of a body.
    #[cfg(feature = "http")]
    pub(super) fn whole(self) -> Self {
        match self {
            Self::FirstByte(FirstByte { until, .. }) => Self::Until(until),
            limit => limit,
        }
    }

    /// The moment at which all of a call's time is over, whenever its first byte must come.
    #[cfg(feature = "http")]
    pub(super) fn end(self) -> Option<Instant> {
        match self {
            Self::FirstByte(FirstByte { until, .. }) => Some(until),
            limit => limit.moment(),
        }
    }

    /// The moment at which the time is over, if that is known from the start.
    pub(super) fn moment(self) -> Option<Instant> {
        match self {
            Self::Unlimited | Self::For(_) => None,
            Self::Until(until) | Self::ByCaller(ByCaller { until, .. }) => Some(until),
            Self::FirstByte(FirstByte { first, .. }) => Some(first),
        }
    }
}
