//! Settings of one call, in place of those that its layers were built with.

use std::time::Duration;

use super::Criticality;

/// The times of one request, in place of those that its [timeouts](crate::timeout) were built with.
///
/// On HTTP it is an extension of the request. It can be longer than what it replaces. A
/// [`Deadline`](crate::Deadline) that the request carries holds all the same.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::Timeouts;
///
/// let mut report = http::Request::new(());
/// let timeouts = Timeouts::new().attempt(Duration::from_secs(20)).total(Duration::from_secs(60));
/// report.extensions_mut().insert(timeouts);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    pub(crate) attempt: Option<Duration>,
    pub(crate) total: Option<Duration>,
}

/// One call's own settings, in place of those that its layers were built with.
///
/// On HTTP, and so over gRPC, it is an extension of the request. A client that knows by the request
/// has a [closure](crate::protocol::http::Client::call_settings) instead: for each host, or for
/// each [gRPC method](crate::protocol::grpc::Client::call_settings). What the extension says goes
/// first, and [`Timeouts`] of their own before both.
///
/// ```
/// # #[cfg(feature = "http")] {
/// use std::time::Duration;
/// use tower_keep::{CallSettings, Criticality};
///
/// let mut import = http::Request::new(());
/// let settings = CallSettings::new()
///     .attempts(1) // no retry, no hedge
///     .cost(50) // units of the rate limit
///     .criticality(Criticality::SheddablePlus)
///     .attempt_timeout(Duration::from_secs(20));
/// import.extensions_mut().insert(settings);
/// # }
/// ```
///
/// A client's stack reads all of it, and a server's stack all but the attempts: there a layer above
/// sets it, which knows the caller. Of layers by hand, a retry and a hedge read the attempts, and
/// timeouts their times. Cost and criticality are read there by closures of their own, which go
/// before these in a stack too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallSettings {
    pub(crate) attempts: Option<u32>,
    pub(crate) cost: Option<u32>,
    pub(crate) criticality: Option<Criticality>,
    pub(crate) timeouts: Timeouts,
}

impl Timeouts {
    /// Replaces none yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long each attempt may take.
    #[must_use]
    pub fn attempt(mut self, duration: Duration) -> Self {
        self.attempt = Some(duration);
        self
    }

    /// Sets how long the call may take with all its attempts: for timeouts
    /// [in total](crate::timeout::TimeoutBuilder::total).
    #[must_use]
    pub fn total(mut self, duration: Duration) -> Self {
        self.total = Some(duration);
        self
    }

    /// These, and of others what they leave open.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            attempt: self.attempt.or(others.attempt),
            total: self.total.or(others.total),
        }
    }
}

impl CallSettings {
    /// Nothing is set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest number of times that the call is sent, the first included, in place of the
    /// retry's. 1 sends it once, and 0 means 1. A retry that sends everything once still does.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// The units of the rate limit that the call takes, if that asks no closure. Default 1.
    #[must_use]
    pub fn cost(mut self, units: u32) -> Self {
        self.cost = Some(units);
        self
    }

    /// Sets how much it hurts if the call is rejected, if the bulkhead asks no closure. Default:
    /// the most.
    #[must_use]
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = Some(criticality);
        self
    }

    /// Sets how long the call may take with all its attempts.
    #[must_use]
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts = self.timeouts.total(timeout);
        self
    }

    /// Sets how long each attempt may take.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts = self.timeouts.attempt(timeout);
        self
    }

    /// Both times at once, in place of those that were set.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// These, and of others what they leave open.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            attempts: self.attempts.or(others.attempts),
            cost: self.cost.or(others.cost),
            criticality: self.criticality.or(others.criticality),
            timeouts: self.timeouts.or(others.timeouts),
        }
    }
}
