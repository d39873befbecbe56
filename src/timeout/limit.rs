//! The time limit of one call.

use std::time::Duration;

use tokio::time::Instant;

use crate::ambient::clock;

/// The time that one call may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum TimeLimit {
    Unlimited,
    /// A number of nanoseconds, counted from the call's first wait: a call answered at once reads
    /// no clock.
    For(u64),
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
    /// The nanoseconds from there to the end of the whole call: by the limit, or by its caller's
    /// deadline. Not a second moment, so that a call carries less.
    rest: u64,
    /// If true, the end is the caller's deadline.
    pub(super) by_caller: bool,
}

/// The limits of a call whose caller waits less long than the limit allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByCaller {
    until: Instant,
    /// The nanoseconds from the call's start to there.
    time: u64,
    /// The nanoseconds that the limit would allow.
    pub(super) own: u64,
}

impl FirstByte {
    pub(super) fn new(first: Instant, until: Instant, by_caller: bool) -> Self {
        Self {
            first,
            rest: clock::nanos(until.saturating_duration_since(first)),
            by_caller,
        }
    }

    /// Returns the end of the whole call.
    pub(super) fn until(self) -> Instant {
        clock::later(self.first, Duration::from_nanos(self.rest))
    }
}

impl ByCaller {
    pub(super) fn new(since: Instant, until: Instant, own: Duration) -> Self {
        Self {
            until,
            time: clock::nanos(until.saturating_duration_since(since)),
            own: clock::nanos(own),
        }
    }

    /// Returns the start of the call.
    pub(super) fn since(self) -> Instant {
        let since = self.until.checked_sub(Duration::from_nanos(self.time));
        since.unwrap_or(self.until)
    }
}

impl TimeLimit {
    /// Returns the limit of the rest of a body, without the first byte's.
    #[cfg(feature = "http")]
    pub(super) fn whole(self) -> Self {
        match self {
            Self::FirstByte(times) => Self::Until(times.until()),
            limit => limit,
        }
    }

    /// Returns when the whole call is over, whatever the deadline of its first byte.
    #[cfg(feature = "http")]
    pub(super) fn end(self) -> Option<Instant> {
        match self {
            Self::FirstByte(times) => Some(times.until()),
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
