//! The only error that this crate creates at run time.

use std::{
    error::Error,
    fmt, io, iter,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::Left;
#[cfg(feature = "layers")]
use super::Outcome;

/// A call that a layer itself rejected, or cut off.
///
/// On clients it is returned as the error (boxed, as is tower's convention). On servers it becomes
/// a response, and is added to the response's extensions. [`Rejected::find`] finds it in any error
/// that is one, or contains one:
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
#[non_exhaustive]
pub struct Rejected {
    /// The reason.
    pub kind: RejectedKind,
    /// The pattern that rejected the call: `"rate_limit"`, `"circuit_breaker"`, `"bulkhead"`,
    /// `"throttle"`, `"timeout"`, `"drain"`.
    pub layer: &'static str,
    /// The instance, as given to `.name(..)`.
    pub name: Option<&'static str>,
    /// The time until the same call could be admitted, where that is known. Waiting exactly this
    /// long is enough, as far as this caller alone is concerned. A server's [stack](crate::stack)
    /// guesses it where it is not known.
    pub retry_after: Option<Duration>,
    /// The quota that the call would wait for longest, if the limit has several
    /// [dimensions](crate::rate_limit::RateLimitLayer::dimensions).
    pub dimension: Option<&'static str>,
    /// `None` if the limit does not list them.
    left: Option<Arc<[Left]>>,
    /// Set if the caller's deadline, and not a limit of the layer, ended a call that was sent.
    cut_short: Option<CutShort>,
    /// The hash of the key whose gate rejected the call, in the map of that gate's layer. The key
    /// itself would cost a copy per rejection, and would be exposed wherever the error is shown.
    key: Option<u64>,
    /// A copy of this rejection, made when `source` is first called.
    lead: OnceLock<Box<Lead>>,
}

/// The meaning for the upstream of a call that its caller's deadline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "layers"),
    expect(dead_code, reason = "only layers end calls")
)]
pub(crate) enum CutShort {
    /// The upstream may be well: good answers take as long.
    Early,
    /// The upstream is slow or hangs: good answers would have arrived.
    Late,
}

/// The `source` of a [`Rejected`], which leads back to it.
///
/// An error that forwards `source` to the error it wraps (an `Arc<E>`, thiserror's
/// `#[error(transparent)]`) shows nothing of that error but this. It contains a copy: if an error
/// were its own source, every walk to the end of the chain would hang.
#[derive(Debug)]
pub(crate) struct Lead(Rejected);

/// The reason why a call was [`Rejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectedKind {
    /// The circuit breaker is open, or half-open with all its probes in flight.
    CircuitOpen,
    /// The rate limit has no room now.
    RateLimited,
    /// The call costs more than the rate limit's burst, and so could never be admitted.
    CostTooHigh,
    /// The call has no key, and its keyed layer admits no call without one.
    MissingKey,
    /// All permits of the bulkhead are in use.
    BulkheadFull,
    /// The throttle has rejected this call at random, because the upstream rejects too many.
    Throttled,
    /// The call's own deadline had passed before it could be sent.
    DeadlineExceeded,
    /// The call was admitted and sent, and did not finish in time.
    TimedOut,
    /// The [stack](crate::stack) is draining, and admits no new calls.
    Draining,
    /// The store of a limit shared by several processes does not answer, and the limit is then
    /// [closed](crate::rate_limit::Outage::Closed).
    StoreDown,
}

impl RejectedKind {
    /// Returns whether the call was rejected before it reached the upstream. It then says nothing
    /// about the upstream, and may be sent elsewhere whatever its method. True of all kinds but
    /// [`TimedOut`](Self::TimedOut).
    #[must_use]
    pub fn is_local(self) -> bool {
        !matches!(self, Self::TimedOut)
    }

    /// All kinds, in the order of their numbers.
    #[cfg(feature = "layers")]
    pub(crate) const ALL: [Self; 10] = [
        Self::CircuitOpen,
        Self::RateLimited,
        Self::CostTooHigh,
        Self::MissingKey,
        Self::BulkheadFull,
        Self::Throttled,
        Self::DeadlineExceeded,
        Self::TimedOut,
        Self::Draining,
        Self::StoreDown,
    ];

    /// Returns its index in [`ALL`](Self::ALL).
    #[cfg(feature = "layers")]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Returns its name in metrics and logs.
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
            Self::Draining => "draining",
            Self::StoreDown => "store_down",
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
            Self::Draining => "draining, as it is about to stop",
            Self::StoreDown => "the rate limit's store does not answer",
        }
    }
}

impl Rejected {
    /// Creates a rejection by `layer`, without a name or a hint. Set the fields that you know.
    #[must_use]
    pub fn new(kind: RejectedKind, layer: &'static str) -> Self {
        Self {
            kind,
            layer,
            name: None,
            retry_after: None,
            dimension: None,
            left: None,
            cut_short: None,
            key: None,
            lead: OnceLock::new(),
        }
    }

    /// Lists what is left of each quota of a limit with several
    /// [dimensions](crate::rate_limit::RateLimitLayer::dimensions). First the quotas of the key,
    /// then those of all keys, each in the order of the dimensions. Empty for other rejections.
    #[must_use]
    pub fn left(&self) -> &[Left] {
        self.left.as_deref().unwrap_or_default()
    }

    #[cfg(feature = "layers")]
    pub(crate) fn set_left(&mut self, left: Vec<Left>) {
        self.left = Some(left.into());
    }

    /// Returns whether the caller's own [`Deadline`](crate::Deadline), and not an earlier limit of
    /// the layer, ended a call that was sent. It then says nothing about the upstream, unless good
    /// answers would have arrived by then.
    #[must_use]
    pub fn is_by_callers_deadline(&self) -> bool {
        self.cut_short.is_some()
    }

    /// Sets a guessed `retry_after`, if none is known and the call may be admitted later.
    #[cfg(feature = "http")]
    pub(crate) fn guess_wait(&mut self, guess: impl FnOnce() -> Option<Duration>) {
        let is_busy = match self.kind {
            RejectedKind::CircuitOpen
            | RejectedKind::BulkheadFull
            | RejectedKind::Throttled
            | RejectedKind::DeadlineExceeded
            | RejectedKind::TimedOut
            | RejectedKind::Draining
            | RejectedKind::StoreDown => true,
            // The time is known, or the same call is never admitted.
            RejectedKind::RateLimited | RejectedKind::CostTooHigh | RejectedKind::MissingKey => {
                false
            }
        };
        if is_busy && self.retry_after.is_none() {
            self.retry_after = guess();
        }
    }

    /// Returns the hash of the key whose gate rejected the call.
    #[cfg(feature = "layers")]
    pub(crate) fn key(&self) -> Option<u64> {
        self.key
    }

    #[cfg(feature = "layers")]
    pub(crate) fn set_key(&mut self, hash: u64) {
        self.key = Some(hash);
    }

    #[cfg(feature = "layers")]
    pub(crate) fn cut_short(&self) -> Option<CutShort> {
        self.cut_short
    }

    #[cfg(feature = "layers")]
    pub(crate) fn set_cut_short(&mut self, cut_short: CutShort) {
        self.cut_short = Some(cut_short);
    }

    /// Returns the outcome of a call that ended with this rejection, where it does not depend on a
    /// classifier.
    #[cfg(feature = "layers")]
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.cut_short {
            Some(CutShort::Early) => Some(Outcome::Ignore),
            Some(CutShort::Late) => Some(Outcome::Failure),
            None => self.kind.is_local().then_some(Outcome::Ignore),
        }
    }

    /// Returns the first rejection in `error` and its causes, of which at most 128 are read.
    ///
    /// A rejection wrapped in an [`io::Error`] is found too. So is one in an error that forwards
    /// its `source` to the error it wraps, as thiserror's `#[error(transparent)]` does.
    #[must_use]
    #[inline]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        // Checked first: each layer that a rejection passes looks for it.
        error.downcast_ref().or_else(|| Self::find_within(error))
    }

    #[cold]
    fn find_within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }
}

/// Iterates over an error, its cause, the cause of that, and so on: at most [`MOST_CAUSES`] of
/// them.
///
/// This finds more than `source` alone. Some errors leave out the error they wrap, which is found
/// by type ([`unlisted`]). A wrapper that forwards `source` leaves it out as well, but a
/// [`Rejected`] is still found by its [`Lead`]. The iterator ends at a rejection.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let cause_of = |&error: &&'a (dyn Error + 'static)| {
        if error.is::<Rejected>() {
            return None;
        }
        let cause = unlisted(error).or_else(|| error.source())?;
        Some(match cause.downcast_ref::<Lead>() {
            Some(Lead(rejected)) => rejected,
            None => cause,
        })
    };
    iter::successors(Some(error), cause_of).take(MOST_CAUSES)
}

/// Returns the error that another wraps but does not return as its `source`. An [`io::Error`]
/// returns the source of the error it wraps, an `h2::Error` returns none.
fn unlisted<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    #[cfg(feature = "http2")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return error.get_io().map(|error| error as _);
    }
    let wrapped = error.downcast_ref::<io::Error>()?.get_ref()?;
    Some(wrapped)
}

impl Clone for Rejected {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind,
            layer: self.layer,
            name: self.name,
            retry_after: self.retry_after,
            dimension: self.dimension,
            left: self.left.clone(),
            key: self.key,
            cut_short: self.cut_short,
            lead: OnceLock::new(),
        }
    }
}

/// Compares all but the key, which only a handle can return.
impl PartialEq for Rejected {
    fn eq(&self, other: &Self) -> bool {
        let fields = |it: &Self| (it.kind, it.layer, it.name, it.retry_after, it.cut_short);
        fields(self) == fields(other)
            && (self.dimension, self.left()) == (other.dimension, other.left())
    }
}

impl Eq for Rejected {}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("kind", &self.kind)
            .field("layer", &self.layer)
            .field("name", &self.name)
            .field("retry_after", &self.retry_after)
            .field("dimension", &self.dimension)
            .field("by_callers_deadline", &self.is_by_callers_deadline())
            .finish()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.description())?;
        match (self.name, self.dimension) {
            (None, None) => {}
            (Some(name), None) | (None, Some(name)) => write!(f, " ({name})")?,
            (Some(name), Some(dimension)) => write!(f, " ({name}: {dimension})")?,
        }
        if let Some(wait) = self.retry_after {
            write!(f, ", try again in {wait:?}")?;
        }
        Ok(())
    }
}

impl Error for Rejected {
    /// Returns an error that names the layer. With the feature `tonic-014`, the source of that
    /// error is a `tonic::Status` with the code for gRPC callers.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.lead.get_or_init(|| Box::new(Lead(self.clone()))))
    }
}

impl Lead {
    #[cfg(feature = "tonic-014")]
    pub(crate) fn kind(&self) -> RejectedKind {
        self.0.kind
    }
}

impl fmt::Display for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected by {}", self.0.layer)
    }
}

// With gRPC it has a status as its source: see `protocol::grpc::rejection`.
#[cfg(not(feature = "tonic-014"))]
impl Error for Lead {}

/// Many times more than clients nest. An error may be its own cause, and a walk without a bound
/// would then never end.
const MOST_CAUSES: usize = 128;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// An error with a cause, as a user's client may wrap it.
    #[derive(Debug)]
    struct Wrapped<E>(E);

    impl<E> fmt::Display for Wrapped<E> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl<E: Error + 'static> Error for Wrapped<E> {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    /// An error that forwards all methods, as thiserror's `#[error(transparent)]` does.
    #[derive(Debug)]
    struct Transparent<E>(E);

    impl<E: fmt::Display> fmt::Display for Transparent<E> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl<E: Error> Error for Transparent<E> {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.0.source()
        }
    }

    /// An error that is its own cause.
    #[derive(Debug)]
    struct Endless;

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }

    impl Error for Endless {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    fn full() -> Rejected {
        let mut rejected = Rejected::new(RejectedKind::BulkheadFull, "bulkhead");
        rejected.name = Some("payments");
        rejected.retry_after = Some(Duration::from_secs(3));
        rejected
    }

    #[test]
    fn a_rejection_is_found_whatever_wraps_it() {
        let wrapped: [Box<dyn Error + Send + Sync>; 10] = [
            Box::new(full()),
            Box::new(Wrapped(full())),
            Box::new(Wrapped(io::Error::other(Wrapped(full())))),
            Box::new(io::Error::other(full())),
            Box::new(io::Error::other(io::Error::other(full()))),
            Box::new(Transparent(full())),
            Box::new(Transparent(Transparent(full()))),
            Box::new(io::Error::other(Transparent(full()))),
            Box::new(Wrapped(Box::new(full()))),
            Box::new(Wrapped(Arc::new(full()))),
        ];
        for error in wrapped {
            assert_eq!(Rejected::find(&*error), Some(&full()), "{error:?}");
        }
        assert_eq!(Rejected::find(&fmt::Error), None);
    }

    #[test]
    fn an_error_that_is_its_own_source_ends() {
        assert_eq!(causes(&Endless).count(), MOST_CAUSES);
        assert_eq!(Rejected::find(&Endless), None);
        assert_eq!(Rejected::find(&io::Error::other(Endless)), None);
    }

    /// Loggers walk to the end of a chain.
    #[test]
    fn the_sources_of_a_rejection_end() {
        let rejected = full();
        let sources = iter::successors(rejected.source(), |&error| error.source());
        let words: Vec<_> = sources.take(9).map(ToString::to_string).collect();
        assert!((1..=2).contains(&words.len()), "{words:?}");
        assert_eq!(words[0], "rejected by bulkhead");
    }

    #[test]
    fn a_copy_says_what_was_changed_since() {
        let mut rejected = full();
        let _ = rejected.source();
        rejected.name = None;
        let copy = Transparent(rejected.clone());
        assert_eq!(Rejected::find(&copy), Some(&rejected));
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
