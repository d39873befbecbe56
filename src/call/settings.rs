//! Settings of one call, which replace those that its layers were built with.

use std::time::Duration;

use super::Criticality;

/// The timeouts of one request, which replace those that its [timeout layers](crate::timeout) were
/// built with.
///
/// On HTTP it is an extension of the request. It may be longer than what it replaces. A
/// [`Deadline`](crate::Deadline) that the request carries still holds.
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

/// The settings of one call, which replace those that its layers were built with.
///
/// On HTTP, and thus over gRPC, it is an extension of the request. A client that can derive the
/// settings from the request uses a [closure](crate::protocol::http::Client::call_settings)
/// instead: per host, or per [gRPC method](crate::protocol::grpc::Client::call_settings). The
/// extension takes precedence over the closure, and an extension of type [`Timeouts`] over both.
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
/// A client's stack reads all of these settings. A server's stack reads all but the attempts. On a
/// server, a layer above sets them, because it knows the caller. Without a stack, retry and hedge
/// layers read the attempts, and timeout layers the times. Cost and criticality are then read by
/// the layers' own closures, which take precedence over these settings in a stack too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallSettings {
    pub(crate) attempts: Option<u32>,
    pub(crate) cost: Option<u32>,
    pub(crate) criticality: Option<Criticality>,
    pub(crate) timeouts: Timeouts,
}

impl Timeouts {
    /// Creates settings that replace nothing yet.
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

    /// Sets how long the call may take with all its attempts, for [total
    /// timeouts](crate::timeout::TimeoutBuilder::total).
    #[must_use]
    pub fn total(mut self, duration: Duration) -> Self {
        self.total = Some(duration);
        self
    }

    /// Fills what these leave unset from others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            attempt: self.attempt.or(others.attempt),
            total: self.total.or(others.total),
        }
    }
}

impl CallSettings {
    /// Creates settings that replace nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of times that the call is sent, the first included, in place of the
    /// retry's. 1 sends it once, and 0 means 1. A retry layer with one attempt still sends the call
    /// once.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Sets how many units of the rate limit the call takes, unless the limit has a closure for
    /// that. Default 1.
    #[must_use]
    pub fn cost(mut self, units: u32) -> Self {
        self.cost = Some(units);
        self
    }

    /// Sets how critical the call is, unless the bulkhead has a closure for that. Default: the
    /// highest class.
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

    /// Sets both timeouts at once, in place of those that were set.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Fills what these leave unset from others.
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
