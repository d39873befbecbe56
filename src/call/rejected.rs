//! The one error that this crate makes at run time.

use std::{
    error::Error,
    fmt, io, iter,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::Left;
#[cfg(feature = "layers")]
use super::Outcome;

/// A call that a layer rejected, or cut off, on its own authority.
///
/// On clients it travels as the error (boxed, as is tower's convention); on servers it becomes a
/// response and is left in the response's extensions. [`Rejected::find`] recovers it from any
/// error that is one, or holds one:
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
    /// Why.
    pub kind: RejectedKind,
    /// The pattern that rejected: `"rate_limit"`, `"circuit_breaker"`, `"bulkhead"`, `"throttle"`,
    /// `"timeout"`, `"drain"`.
    pub layer: &'static str,
    /// The instance, as given to `.name(..)`.
    pub name: Option<&'static str>,
    /// How long until the same call could be admitted, where that is known. Waiting exactly this
    /// long is enough, as far as this caller alone is concerned. A server's [stack](crate::stack)
    /// guesses where it is not known.
    pub retry_after: Option<Duration>,
    /// The quota that the call would wait for longest, if the limit has several
    /// [dimensions](crate::rate_limit::RateLimitLayer::dimensions).
    pub dimension: Option<&'static str>,
    /// `None` if the limit does not tell.
    left: Option<Arc<[Left]>>,
    /// Set if the caller's deadline, and not a limit of the layer's, ended a call that was sent.
    cut_short: Option<CutShort>,
    /// The hash of the key whose gate rejected the call, by the map of that gate's layer. The key
    /// itself would be a copy for each rejection, and would go wherever the error goes.
    key: Option<u64>,
    /// A copy of the above, made when the `source` is first asked for.
    lead: OnceLock<Box<Lead>>,
}

/// What the end of a call by its caller's deadline says of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "layers"),
    expect(dead_code, reason = "only layers end calls")
)]
pub(crate) enum CutShort {
    /// Nothing: good answers take as long.
    Early,
    /// It is slow, or hangs: good answers would have been there.
    Late,
}

/// The `source` of a [`Rejected`], which leads back to it.
///
/// An error that forwards `source` to the error that it wraps (an `Arc<E>`, thiserror's
/// `#[error(transparent)]`) shows nothing of that error but this. It is a copy: an error that is
/// its own source hangs all who walk to the end of a chain.
#[derive(Debug)]
pub(crate) struct Lead(Rejected);

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
    /// The [stack](crate::stack) is drained, and takes no new calls.
    Draining,
    /// The store of a limit that processes share does not answer, and the limit is
    /// [closed](crate::rate_limit::Outage::Closed) then.
    StoreDown,
}

impl RejectedKind {
    /// Returns whether the call was rejected before it reached the peer. It then says nothing about
    /// the peer, and may be sent elsewhere whatever its method. True of all kinds but
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
    /// A rejection by `layer`, with no name and no hint; set the fields that you know.
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

    /// Lists what is left of each quota of a limit of several
    /// [dimensions](crate::rate_limit::RateLimitLayer::dimensions), in their order: of the key's,
    /// and then of those of all keys. Empty for others.
    #[must_use]
    pub fn left(&self) -> &[Left] {
        self.left.as_deref().unwrap_or_default()
    }

    #[cfg(feature = "layers")]
    pub(crate) fn set_left(&mut self, left: Vec<Left>) {
        self.left = Some(left.into());
    }

    /// Returns whether the caller's own [`Deadline`](crate::Deadline) ended a call that was sent,
    /// before a limit of the layer's did. It says nothing about the upstream, unless good answers
    /// would have been there by then.
    #[must_use]
    pub fn is_by_callers_deadline(&self) -> bool {
        self.cut_short.is_some()
    }

    /// Says when to come back by a guess, if that is not known and the call may well pass later.
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
            // It is known, or the same call never fits.
            RejectedKind::RateLimited | RejectedKind::CostTooHigh | RejectedKind::MissingKey => {
                false
            }
        };
        if is_busy && self.retry_after.is_none() {
            self.retry_after = guess();
        }
    }

    /// The hash of the key whose gate rejected it.
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

    /// The outcome of a call that ended with this rejection, where that is not for a classifier to
    /// say.
    #[cfg(feature = "layers")]
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.cut_short {
            Some(CutShort::Early) => Some(Outcome::Ignore),
            Some(CutShort::Late) => Some(Outcome::Failure),
            None => self.kind.is_local().then_some(Outcome::Ignore),
        }
    }

    /// The first rejection in `error` and its causes, of which at most 128 are read.
    ///
    /// An [`io::Error`] that wraps one counts, and so does an error that forwards its `source` to
    /// the one that it wraps, as thiserror's `#[error(transparent)]` does.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }
}

/// An error, its cause, the cause of that: at most [`MOST_CAUSES`] of them.
///
/// It sees more than `source` alone tells. Some errors leave out the one that they wrap, which is
/// asked for by name ([`unlisted`]). A wrapper that forwards `source` leaves it out as well: a
/// [`Rejected`] shows itself all the same, by its [`Lead`]. Nothing is read beyond one.
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

/// What an error wraps and does not tell as its `source`: an [`io::Error`] tells the source of what
/// it wraps, an `h2::Error` nothing.
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

/// But for the key, which a handle tells.
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
    /// The layer that rejected. With the feature `tonic-014`, the source of that is a
    /// `tonic::Status` of the code that tells gRPC callers why.
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

/// Many times what clients stack up. An error may be its own cause, and a walk without a bound
/// would never end.
const MOST_CAUSES: usize = 128;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// An error with a cause, as clients of one's own wrap them.
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

    /// Forwards all that it is asked, as thiserror's `#[error(transparent)]` does.
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

    /// Its own cause.
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
