//! The one error that this crate makes at run time.

use std::{error::Error, fmt, time::Duration};

/// A call that a layer turned away, or cut off, on its own authority.
///
/// On clients it travels as the error (boxed, as is tower's convention); on servers it becomes a
/// response and is left in the response's extensions. [`Rejected::find`] recovers it from any
/// error, however deep:
///
/// ```
/// use tower_keep::{Rejected, RejectedKind};
///
/// fn explain(error: &(dyn std::error::Error + 'static)) -> String {
///     match Rejected::find(error) {
///         Some(rejected) if rejected.kind == RejectedKind::CircuitOpen => "it is down".into(),
///         Some(rejected) if rejected.kind.is_local() => format!("not sent: {rejected}"),
///         _ => format!("sent, and failed: {error}"),
///     }
/// }
/// # let mut rejected = Rejected::new(RejectedKind::RateLimited, "rate_limit");
/// # assert!(explain(&rejected).starts_with("not sent"));
/// # rejected.kind = RejectedKind::CircuitOpen;
/// # assert!(explain(&rejected).contains("down"));
/// # assert!(explain(&std::fmt::Error).starts_with("sent"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// Why.
    pub kind: RejectedKind,
    /// The pattern that rejected: `"rate_limit"`, `"circuit_breaker"`, `"bulkhead"`, `"throttle"`,
    /// `"timeout"`.
    pub layer: &'static str,
    /// The instance, as given to `.name(..)`.
    pub name: Option<&'static str>,
    /// How long until the same call could be admitted, where that is known. Waiting exactly this
    /// long is enough, as far as this caller alone is concerned.
    pub retry_after: Option<Duration>,
}

/// Why a call was [`Rejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectedKind {
    /// The circuit breaker is open, or half-open with all its probes out.
    CircuitOpen,
    /// The rate limit has no room at this moment.
    RateLimited,
    /// The call costs more than the rate limit's burst, and so could never be admitted.
    CostTooHigh,
    /// The call has no key, and its keyed rate limit admits none without.
    MissingKey,
    /// All of the bulkhead's calls are in flight.
    BulkheadFull,
    /// The upstream rejects so much that the throttle has rejected this call by chance.
    Throttled,
    /// The call's own deadline had passed before it could be sent.
    DeadlineExceeded,
    /// The call was admitted and sent, and did not finish in time.
    TimedOut,
}

impl RejectedKind {
    /// Whether the call was turned away before it reached the peer, so that it says nothing about
    /// the peer and may be sent elsewhere whatever its method. True of all kinds but
    /// [`TimedOut`](Self::TimedOut).
    #[must_use]
    pub fn is_local(self) -> bool {
        !matches!(self, Self::TimedOut)
    }

    /// All kinds, in the order of their numbers.
    #[cfg(feature = "layers")]
    pub(crate) const ALL: [Self; 8] = [
        Self::CircuitOpen,
        Self::RateLimited,
        Self::CostTooHigh,
        Self::MissingKey,
        Self::BulkheadFull,
        Self::Throttled,
        Self::DeadlineExceeded,
        Self::TimedOut,
    ];

    /// Its place in [`ALL`](Self::ALL).
    #[cfg(feature = "layers")]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::RateLimited => "rate_limited",
            Self::CostTooHigh => "cost_too_high",
            Self::MissingKey => "missing_key",
            Self::BulkheadFull => "bulkhead_full",
            Self::Throttled => "throttled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::TimedOut => "timed_out",
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit open",
            Self::RateLimited => "rate limit exceeded",
            Self::CostTooHigh => "cost above the rate limit's burst",
            Self::MissingKey => "no key to limit the rate by",
            Self::BulkheadFull => "bulkhead full",
            Self::Throttled => "throttled, as the upstream rejects too much",
            Self::DeadlineExceeded => "deadline exceeded before the call was sent",
            Self::TimedOut => "timed out",
        }
    }
}

impl Rejected {
    /// A rejection by `layer`, with no name and no hint; set the fields that you know.
    #[must_use]
    pub fn new(kind: RejectedKind, layer: &'static str) -> Self {
        Self {
            kind,
            layer,
            name: None,
            retry_after: None,
        }
    }

    /// The first rejection in `error` and its chain of sources.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(rejected) = error.downcast_ref() {
                return Some(rejected);
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.description())?;
        if let Some(name) = self.name {
            write!(f, " ({name})")?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, ", try again in {wait:?}")?;
        }
        Ok(())
    }
}

// With gRPC a rejection has a status as its source: see `protocol::grpc::rejection`.
#[cfg(not(feature = "tonic-014"))]
impl Error for Rejected {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Wrapped(Rejected);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn is_found_behind_another_error() {
        let rejected = Rejected::new(RejectedKind::BulkheadFull, "bulkhead");
        let wrapped: Box<dyn Error + Send + Sync> = Box::new(Wrapped(rejected.clone()));
        assert_eq!(Rejected::find(&*wrapped), Some(&rejected));
        assert_eq!(Rejected::find(&fmt::Error), None);
    }

    #[test]
    fn says_which_instance_and_when_to_come_back() {
        let mut rejected = Rejected::new(RejectedKind::CircuitOpen, "circuit_breaker");
        rejected.name = Some("payments");
        rejected.retry_after = Some(Duration::from_secs(30));
        assert_eq!(
            rejected.to_string(),
            "circuit open (payments), try again in 30s"
        );
    }
}
