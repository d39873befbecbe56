//! A fault, and the calls that it applies to.

use std::{ops::Range, time::Duration};

#[cfg(feature = "tonic-014")]
use crate::fault::{effect::GrpcStatus, kind::Pushback};
use crate::{
    Name,
    fault::{
        Delay,
        condition::{Always, AskedFor, Keyed, OfPeers, When},
        effect::{BuiltIn, Effect, Fail, NotReady, OnCalls, Respond, Status},
        kind::{Answer, BodyKind, Kind},
        schedule::Timeline,
    },
    keyed::KeyFn,
};

/// One fault: its effect, and the calls that it applies to. By default these are all calls while
/// faults run.
///
/// ```
/// use std::time::Duration;
/// use http::Request;
/// use tower_keep::fault::Fault;
///
/// let secs = Duration::from_secs;
/// // A third of the writes fails, in the first ten seconds of each minute.
/// let fault = Fault::status(503)
///     .retry_after(secs(2))
///     .share(0.3)
///     .bursts(secs(60), secs(10))
///     .when(|request: &Request<String>| request.method() == "POST");
/// # let _ = fault;
/// ```
///
/// The share is drawn from the calls that meet all conditions, by a hash of the seed, this fault,
/// the request's number and its attempt.
#[derive(Debug, Clone)]
#[must_use = "a fault does nothing until it is given to a `FaultBuilder`"]
pub struct Fault<E = BuiltIn, W = Always> {
    pub(super) effect: E,
    pub(super) condition: W,
    pub(super) name: Option<&'static str>,
    pub(super) timeline: Timeline,
    /// The shares of peers, checked by `build`.
    pub(super) peer_shares: Vec<f64>,
}

impl Fault {
    /// Sends the call after a wait: a [`Delay`], or always the same `Duration`. The service's
    /// readiness is then polled again. The waits of several faults add up.
    pub fn delay(delay: impl Into<Delay>) -> Self {
        Self::built_in(Kind::Delay(delay.into()))
    }

    /// Holds the call until the run ends, and sends it then. Usually its caller gives up first.
    pub fn hang() -> Self {
        Self::built_in(Kind::Hang)
    }

    /// Fails the call as if there were no connection, with the error of hyper's own client: nothing
    /// was sent. Needs [`http::Client`](crate::protocol::http::Client) or its gRPC sibling. The
    /// request's body is not touched.
    pub fn refused() -> Self {
        Self::built_in(Kind::Answer(Answer::Refused))
    }

    /// Resets the connection while the request is sent, with the error of hyper's own client: it
    /// may have been processed. Needs [`http::Client`](crate::protocol::http::Client) or its gRPC
    /// sibling. The service beneath does not receive the request.
    pub fn reset() -> Self {
        Self::built_in(Kind::Answer(Answer::Reset))
    }

    /// Makes the call's future panic when it is polled.
    pub fn panic() -> Self {
        Self::built_in(Kind::Panic)
    }

    /// Fails the response's body after this many bytes, as if its connection broke. A body that is
    /// known to end before stays whole. Needs a protocol with bodies.
    pub fn cut_body(after: u64) -> Self {
        Self::built_in(Kind::Body(BodyKind::Cut(after)))
    }

    /// Stops the response's body after this many bytes, until the run ends. Needs a protocol with
    /// bodies.
    pub fn stall_body(after: u64) -> Self {
        Self::built_in(Kind::Body(BodyKind::Stall(after)))
    }

    /// Splits the response's body in pieces of at most `bytes` bytes, each after a wait. Needs a
    /// protocol with bodies.
    pub fn trickle_body(bytes: usize, every: Duration) -> Self {
        Self::built_in(Kind::Body(BodyKind::Trickle(bytes, every)))
    }

    fn built_in(kind: Kind) -> Self {
        Self::new(BuiltIn(kind))
    }
}

impl Fault<Status> {
    /// Answers the call with this HTTP status, from 200 to 999, and without a body. The service is
    /// not called. Needs a protocol of HTTP or gRPC. Over gRPC this is the answer of a proxy.
    pub fn status(status: u16) -> Self {
        Self::new(Status {
            code: status,
            retry_after: None,
        })
    }
}

impl Fault<NotReady> {
    /// Makes the service not ready: `poll_ready` is pending until the fault's time is over or the
    /// run ends. There is no request yet, so the share is one of the waits for readiness.
    pub fn not_ready() -> Self {
        Self::new(NotReady)
    }
}

#[cfg(feature = "tonic-014")]
impl Fault<GrpcStatus> {
    /// Answers the call with this gRPC status, trailers only. The service is not called. Needs a
    /// protocol of gRPC.
    pub fn grpc_status(code: tonic::Code) -> Self {
        Self::new(GrpcStatus {
            code,
            pushback: Pushback::Unsaid,
        })
    }
}

impl<F> Fault<Respond<F>> {
    /// Answers the call with the response that a closure makes of the request. Over HTTP its body
    /// is a [`FaultBody`](super::FaultBody), which `.into()` makes of bytes and texts.
    pub fn response<Req, Res>(response: F) -> Self
    where
        F: Fn(&Req) -> Res,
    {
        Self::new(Respond(response))
    }
}

impl<F> Fault<Fail<F>> {
    /// Fails the call with the error that a closure makes of the request. On a server it must be
    /// the service's own error, which an axum `Router` does not have.
    pub fn error<Req, Err>(error: F) -> Self
    where
        F: Fn(&Req) -> Err,
    {
        Self::new(Fail(error))
    }
}

impl<E> Fault<E> {
    fn new(effect: E) -> Self {
        Self {
            effect,
            condition: Always,
            name: None,
            timeline: Timeline::default(),
            peer_shares: Vec::new(),
        }
    }
}

impl<W> Fault<Status, W> {
    /// Adds a `Retry-After`, in whole seconds rounded up. Default: none.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.effect.retry_after = Some(wait);
        self
    }
}

#[cfg(feature = "tonic-014")]
impl<W> Fault<GrpcStatus, W> {
    /// Adds `grpc-retry-pushback-ms`: a retry should come after exactly this time. Default: none.
    pub fn pushback(mut self, wait: Duration) -> Self {
        self.effect.pushback = Pushback::After(wait);
        self
    }

    /// Adds a `grpc-retry-pushback-ms` that forbids retries.
    pub fn no_retry(mut self) -> Self {
        self.effect.pushback = Pushback::Never;
        self
    }
}

impl<E: Effect, W> Fault<E, W> {
    /// Names it in metrics, marks and headers. Default: its kind, such as `status`. Faults with the
    /// same name are counted together.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// Hits this share of the attempts, from 0 to 1. Default 1: all.
    pub fn share(mut self, share: f64) -> Self {
        self.timeline.share = share;
        self
    }

    /// Hits another share from this time after the start. Call it several times for a timeline.
    pub fn then_share(mut self, from: Duration, share: f64) -> Self {
        self.timeline.later.push((from, share));
        self
    }

    /// Limits it to a window, from one time after the start to another. Call it several times for
    /// several windows. Default: always.
    pub fn during(mut self, window: Range<Duration>) -> Self {
        self.timeline.windows.push(window);
        self
    }

    /// Limits it to bursts: one starts every `every`, the first with the run, and lasts for
    /// `lasting`. Default: always.
    pub fn bursts(mut self, every: Duration, lasting: Duration) -> Self {
        self.timeline.bursts = Some((every, lasting));
        self
    }
}

impl<E: OnCalls, W> Fault<E, W> {
    /// Hits only calls whose request the closure accepts, `Fn(&Req) -> bool`.
    pub fn when<Req, F>(self, accepts: F) -> Fault<E, When<W, F>>
    where
        F: Fn(&Req) -> bool,
    {
        self.on(|before| When { before, accepts })
    }

    /// Hits only calls to sick peers, which are this share of all peers. A closure finds the peer,
    /// `Fn(&Req) -> Option<K>`, as [`keyed::host`](crate::keyed::host) does. A peer is sick for all
    /// of its calls and attempts. Calls without a peer are spared.
    pub fn peers<Req, K, F>(mut self, share: f64, peer: F) -> Fault<E, OfPeers<W, F, Req>>
    where
        F: Fn(&Req) -> Option<K>,
    {
        self.peer_shares.push(share);
        let key = KeyFn::new(peer);
        self.on(|before| OfPeers { before, share, key })
    }

    /// Draws by a key of the request, `Fn(&Req) -> Option<K>`, in place of its number. Requests of
    /// the same key and attempt then have the same fate, in any order. Requests without a key are
    /// drawn by number.
    pub fn by_key<Req, K, F>(self, key: F) -> Fault<E, Keyed<W, F, Req>>
    where
        F: Fn(&Req) -> Option<K>,
    {
        let key = KeyFn::new(key);
        self.on(|before| Keyed { before, key })
    }

    /// Hits only calls that request it: this header lists the fault's [name](Self::name), between
    /// commas. The guard must also accept the request, `Fn(&Request<B>) -> bool`. Any caller can
    /// send a header, so the guard must check in another way which callers may.
    pub fn by_header<Req, G>(self, header: &'static str, guard: G) -> Fault<E, AskedFor<W, G>>
    where
        G: Fn(&Req) -> bool,
    {
        self.on(|before| AskedFor {
            before,
            header,
            guard,
        })
    }

    fn on<Other>(self, condition: impl FnOnce(W) -> Other) -> Fault<E, Other> {
        Fault {
            effect: self.effect,
            condition: condition(self.condition),
            name: self.name,
            timeline: self.timeline,
            peer_shares: self.peer_shares,
        }
    }
}
