//! Gates on trial: they decide on every call, but their rejections are only counted.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Context,
};

use crate::{
    Name, Rejected, RejectedKind,
    ambient::clock::Now,
    gate::{
        Admission, Admit, CallEvent, Completion, Controlled, Gate, GateLayer, Inquiry, IntoGate,
        Read, TicketPoll, Unsent,
    },
    observe::{self, Event, Instance, Observed, Rejections, Tally, register},
    protocol::Hint,
};

/// A gate that rejects nothing, and counts what it would have rejected. Use it to try settings on
/// real traffic first.
///
/// Put it beside the real gate, or in a layer of its own, and compare:
///
/// ```
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_keep::{RejectedKind, rate_limit::{Rate, RateLimitLayer}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let candidate = RateLimitLayer::builder(Rate::per_second(10)).build()?.shadow("search");
/// let service = candidate.layer(service_fn(async |n: u32| Ok::<_, std::io::Error>(n)));
/// for n in 0..15 {
///     service.clone().oneshot(n).await?;
/// }
/// let tried = candidate.handle().snapshot();
/// assert_eq!((tried.calls, tried.would_reject.of(RejectedKind::RateLimited)), (15, 5));
/// # Ok(()) }
/// ```
///
/// The candidate sees each call that reaches it, and how the call ends: a circuit breaker opens and
/// closes, a bulkhead fills. A call that it would have rejected is sent, and the candidate does not
/// learn its result, just as if it had rejected the call. So a candidate shows what it would
/// reject, but not how its rejections would change the upstream. A call that it would have queued
/// is sent at once, holds nothing, and is counted separately: it might have been rejected later.
///
/// A candidate does not affect `poll_ready`, and advertises no limit to callers. Its cost is the
/// candidate's, and one more write per call.
///
/// Timeouts need no trial: `tower_keep_call_duration_seconds` counts how many calls took longer
/// than each of its buckets.
#[derive(Clone)]
pub struct Shadow<G> {
    /// Always `Some`. An optional gate ignores calls that hold nothing of it, as a candidate must
    /// ignore calls that it would have rejected.
    gate: Option<G>,
    state: Arc<State>,
}

/// A handle that watches a candidate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShadowHandle {
    state: Arc<State>,
}

/// The counts of a candidate's decisions so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShadowSnapshot {
    /// All calls that the candidate decided on.
    pub calls: u64,
    /// Calls that it would have rejected, by kind.
    pub would_reject: Rejections,
    /// Calls that it would have queued.
    pub would_wait: u64,
}

struct State {
    /// The tally of calls, all of which are admitted.
    tally: Tally,
    /// Both Relaxed: statistics, which publish nothing else.
    waits: AtomicU64,
    rejected: [AtomicU64; RejectedKind::ALL.len()],
}

impl<G: Gate> Shadow<G> {
    /// Puts one gate, or a tuple of gates, on trial under a name for the metrics. The name may be
    /// that of the real layer. Give the candidate itself no name, or its counters are published as
    /// if it were real. With the feature `tracing` the candidate emits events of its own, without a
    /// name.
    #[must_use]
    pub fn new(gates: impl IntoGate<Gate = G>, name: impl Into<Name>) -> Self {
        let state = Arc::new(State {
            tally: Tally::new("shadow", Some(name.into().as_str())),
            waits: AtomicU64::new(0),
            rejected: std::array::from_fn(|_| AtomicU64::new(0)),
        });
        register(&state);
        Self {
            gate: Some(gates.into_gate()),
            state,
        }
    }

    /// Moves the trial to a gate that holds this one.
    #[cfg(feature = "http")]
    pub(crate) fn within<H>(self, hold: impl FnOnce(G) -> H) -> Shadow<H> {
        Shadow {
            gate: self.gate.map(hold),
            state: self.state,
        }
    }

    /// Returns the handle of the trial.
    #[must_use]
    pub fn handle(&self) -> ShadowHandle {
        self.control()
    }
}

impl<G: Gate + Clone, P> GateLayer<G, P> {
    /// Returns a layer that rejects nothing and counts what this one would reject: see [`Shadow`].
    /// Both share their state.
    #[must_use]
    pub fn shadow(self, name: impl Into<Name>) -> GateLayer<Shadow<G>, P> {
        let shadow = Shadow::new(self.gate().clone(), name);
        GateLayer::with_protocol(shadow, self.into_protocol())
    }
}

impl<G> Controlled for Shadow<G> {
    type Handle = ShadowHandle;

    fn control(&self) -> ShadowHandle {
        ShadowHandle {
            state: self.state.clone(),
        }
    }
}

impl<G: Gate> Shadow<G> {
    /// Asks the candidate. Returns the call's pass, or the rejection that it would have received.
    #[inline]
    pub(in crate::gate) fn ask<Req>(
        &self,
        inquiry: Inquiry<'_, Req, G::Asked>,
        now: &Now,
    ) -> (Option<G::Pass>, Option<Box<Rejected>>)
    where
        G: Admit<Req>,
    {
        self.state.tally.count(Event::Admitted);
        match self.gate.admit(inquiry, now) {
            Admission::Granted(pass) => (pass, None),
            Admission::Queued(ticket) => {
                self.state.waits.fetch_add(1, Ordering::Relaxed);
                self.gate.leave(ticket, now);
                (None, None)
            }
            Admission::Rejected(rejected) => {
                self.state.rejected(&rejected);
                (None, Some(rejected))
            }
        }
    }
}

impl ShadowHandle {
    /// Returns the candidate's counts so far.
    #[must_use]
    pub fn snapshot(&self) -> ShadowSnapshot {
        self.state.snapshot()
    }
}

impl State {
    fn snapshot(&self) -> ShadowSnapshot {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ShadowSnapshot {
            calls: self.tally.totals().admitted,
            would_reject: Rejections::from_fn(|kind| of(&self.rejected[kind])),
            would_wait: of(&self.waits),
        }
    }

    fn rejected(&self, rejected: &Rejected) {
        self.rejected[rejected.kind.index()].fetch_add(1, Ordering::Relaxed);
    }
}

impl<G: Gate> Gate for Shadow<G> {
    type Pass = Option<G::Pass>;
    type Ticket = Infallible;
    type Asked = G::Asked;

    fn give_back(&self, pass: Self::Pass, why: Unsent, now: &Now) {
        self.gate.give_back(pass, why, now);
    }

    #[inline]
    fn end(&self, pass: Self::Pass, how: Completion, now: &Now) {
        self.gate.end(pass, how, now);
    }

    fn leave(&self, ticket: Infallible, _: &Now) {
        match ticket {}
    }

    #[inline]
    fn owes(&self, pass: &Self::Pass) -> bool {
        self.gate.owes(pass)
    }

    fn renew(&self, pass: &mut Self::Pass, now: &Now) -> Result<(), Box<Rejected>> {
        if let Err(rejected) = self.gate.renew(pass, now) {
            self.state.rejected(&rejected);
        }
        Ok(())
    }

    #[inline]
    fn event(&self, pass: &mut Self::Pass, event: CallEvent, now: &Now) {
        self.gate.event(pass, event, now);
    }

    fn told(&self, pass: &Self::Pass, hint: &Hint, now: &Now) {
        self.gate.told(pass, hint, now);
    }
}

impl<G: Admit<Req>, Req> Admit<Req> for Shadow<G> {
    #[inline]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Pass, Infallible> {
        let (pass, _) = self.ask(inquiry, now);
        Admission::Granted(pass)
    }

    fn poll_ticket(
        &self,
        ticket: &mut Infallible,
        _: Inquiry<'_, Req, Self::Asked>,
        _: &mut Context<'_>,
        _: &Now,
    ) -> TicketPoll<Self::Pass> {
        match *ticket {}
    }
}

impl<G: Read<Res>, Res> Read<Res> for Shadow<G> {
    #[inline]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        self.gate.read(pass, response, now);
    }
}

impl Observed for State {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let now = self.snapshot();
        let state = observe::State::Shadow {
            calls: now.calls,
            would_reject: now.would_reject,
            would_wait: now.would_wait,
        };
        Instance::new(&self.tally, Vec::new(), state)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("name", &self.tally.name)
            .finish_non_exhaustive()
    }
}

impl<G: fmt::Debug> fmt::Debug for Shadow<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
