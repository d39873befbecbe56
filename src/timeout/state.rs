//! The state that the layer, its services, its calls and its handles share.

use std::{
    num::NonZeroU16,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

#[cfg(feature = "http")]
use crate::drain::Drain;
use crate::{
    CarryDeadline, Changed, ConfigError, Deadline, Outcome, Rejected, RejectedKind,
    ambient::clock,
    call::CutShort,
    config::nanos_within,
    observe::{self, CALL_DURATION, Instance, Observed, Tally, Totals, trace},
    timeout::{
        covers::{Covers, TimerShare},
        limit::{ByCaller, FirstByte, TimeLimit},
        number::Number,
    },
};

#[derive(Debug)]
pub(super) struct State {
    /// The longest time, in nanoseconds. Relaxed: a call that races a change honors one of the two.
    limit: AtomicU64,
    enabled: bool,
    covers: Covers,
    /// The time of good answers, in nanoseconds, or 0 while unknown. Learned once callers with
    /// deadlines shorter than the limit have arrived. Relaxed: a statistic, and of two simultaneous
    /// answers one may be lost.
    good: AtomicU64,
    /// If true, such a caller has arrived. Relaxed: calls that race with the first one learn
    /// nothing.
    learns: AtomicBool,
    /// If true, it records the ends of calls, or is needed beyond them, so that calls hold it.
    /// Relaxed, like `learns`, which sets it too.
    keeps_calls: AtomicBool,
    tally: Tally,
    /// The number by which calls that do not hold the state find it.
    number: Number,
    /// The count of a stack's calls, if this is its total timeout.
    #[cfg(feature = "http")]
    drain: Option<Drain>,
}

/// The stripe on which a call is counted in its stack, plus one, if it is counted.
pub(super) type StackStripe = Option<NonZeroU16>;

/// The end of a call that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    With(Outcome),
    TimedOut,
    /// Dropped by its caller.
    Cancelled,
}

impl State {
    pub(super) fn new(
        duration: Duration,
        enabled: bool,
        covers: Covers,
        name: Option<&'static str>,
    ) -> Result<Self, ConfigError> {
        let (limit, number) = (AtomicU64::new(checked(duration, name)?), Number::next());
        let mut tally = Tally::new("timeout", name);
        if enabled {
            tally = tally.with_durations(CALL_DURATION, ENDS[usize::from(covers.attempts)]);
        }
        Ok(Self {
            limit,
            enabled,
            covers,
            good: AtomicU64::new(0),
            learns: AtomicBool::new(false),
            keeps_calls: AtomicBool::new(
                tally.has_durations() || covers.body || number.get().is_none(),
            ),
            tally,
            number,
            #[cfg(feature = "http")]
            drain: None,
        })
    }

    #[cfg(feature = "http")]
    pub(super) fn drained_by(mut self, drain: Drain) -> Self {
        self.drain = Some(drain);
        self.keeps_calls = AtomicBool::new(true);
        self
    }

    /// Counts a call that begins, unless its stack is draining. It [leaves](Self::leave) at its
    /// end.
    #[inline(always)]
    pub(super) fn enter(&self) -> Result<StackStripe, Box<Rejected>> {
        #[cfg(feature = "http")]
        if let Some(drain) = &self.drain {
            // There are at most 32 stripes.
            let stripe = u16::try_from(drain.enter()? + 1).unwrap_or(u16::MAX);
            return Ok(NonZeroU16::new(stripe));
        }
        Ok(None)
    }

    /// Ends the call's count. A second call does nothing.
    #[inline]
    pub(super) fn leave(&self, entered: &mut StackStripe) {
        #[cfg(feature = "http")]
        if let (Some(drain), Some(stripe)) = (&self.drain, entered.take()) {
            drain.leave(usize::from(stripe.get()) - 1);
        }
        #[cfg(not(feature = "http"))]
        let _ = entered;
    }

    #[inline]
    pub(super) fn duration(&self) -> Duration {
        Duration::from_nanos(self.limit.load(Ordering::Relaxed))
    }

    pub(super) fn check(&self, duration: Duration) -> Result<u64, ConfigError> {
        checked(duration, self.tally.name)
    }

    pub(super) fn update(&self, duration: Duration) -> Result<Changed, ConfigError> {
        let nanos = self.check(duration)?;
        let before = self.limit.swap(nanos, Ordering::Relaxed);
        let (layer, name) = (self.tally.layer, self.tally.name);
        let times = (Duration::from_nanos(before), Duration::from_nanos(nanos));
        let changed = Changed::default().note(layer, "duration", times);
        trace::updated((layer, name), &changed);
        Ok(changed)
    }

    pub(super) fn totals(&self) -> Totals {
        self.tally.totals()
    }

    /// Returns whether the wait for the inner service's readiness is part of the call.
    #[inline]
    pub(super) fn covers_readiness(&self) -> bool {
        self.covers.readiness && self.enabled
    }

    /// Returns the limit of a call that begins now. Writes the deadline into the request if the
    /// protocol wants that. `None` if the request's own deadline has passed.
    #[inline(always)]
    pub(super) fn limit<P, Req>(&self, protocol: &P, request: &mut Req) -> Option<TimeLimit>
    where
        P: CarryDeadline<Req>,
    {
        if !self.enabled {
            return Some(TimeLimit::Unlimited);
        }
        let carried = protocol.deadline(request);
        let own = protocol.timeouts(request).and_then(|timeouts| {
            if self.covers.attempts {
                timeouts.total
            } else {
                timeouts.attempt
            }
        });
        let wants_deadline = protocol.wants_deadline(self.covers.attempts);
        if carried.is_none() && !self.covers.body && !wants_deadline {
            let limit = self.limit.load(Ordering::Relaxed);
            return Some(TimeLimit::For(own.map_or(limit, clock::nanos)));
        }
        let own = own.unwrap_or_else(|| self.duration());
        let now = clock::moment_of_call();
        let end = clock::later(now, own);
        let (at, limit) = match carried.map(Deadline::moment) {
            Some(until) if now >= until => return None,
            Some(until) if until < end => {
                self.learns.store(true, Ordering::Relaxed);
                self.keeps_calls.store(true, Ordering::Relaxed);
                (until, TimeLimit::ByCaller(ByCaller::new(now, until, own)))
            }
            _ => (end, TimeLimit::Until(end)),
        };
        let limit = match self.covers.first_byte {
            None => limit,
            Some(first) => Self::first_byte(clock::later(now, first), at, limit),
        };
        if wants_deadline {
            protocol.set_deadline(request, Deadline::at(at));
        } else if carried.is_some() {
            protocol.refresh_deadline(request);
        }
        Some(limit)
    }

    /// Returns the limit with the deadline of the first byte, if that is earlier.
    #[cold]
    fn first_byte(first: Instant, until: Instant, limit: TimeLimit) -> TimeLimit {
        if first >= until {
            return limit;
        }
        let by_caller = matches!(limit, TimeLimit::ByCaller(_));
        TimeLimit::FirstByte(FirstByte::new(first, until, by_caller))
    }

    #[cfg(feature = "http")]
    pub(super) fn covers(&self) -> Covers {
        self.covers
    }

    /// Returns whether it records how long calls take.
    #[inline]
    pub(super) fn records(&self) -> bool {
        self.times_calls() || self.learns()
    }

    /// Returns whether the durations of good answers are learned.
    #[inline]
    pub(super) fn learns(&self) -> bool {
        self.learns.load(Ordering::Relaxed)
    }

    /// Records the answer to a call that was sent. `waited` is `None` if it was answered at once.
    pub(super) fn answered(&self, outcome: Outcome, waited: Option<Duration>) {
        if self.times_calls() {
            self.ended(Ended::With(outcome), waited.unwrap_or_default());
        }
        if let (Outcome::Success, Some(took)) = (outcome, waited) {
            self.learn(took);
        }
    }

    /// Learns the duration of a good answer. The estimate rises fast and falls slowly, so that it
    /// is close to the slower answers.
    fn learn(&self, took: Duration) {
        let (took, good) = (clock::nanos(took).max(1), self.good.load(Ordering::Relaxed));
        let good = match good {
            0 => took,
            _ if took > good => good + (took - good).div_ceil(4),
            _ => good - (good - took) / 64,
        };
        self.good.store(good, Ordering::Relaxed);
    }

    /// Rejects a call whose time is over while it was in flight.
    pub(super) fn time_out(&self, limit: TimeLimit) -> Box<Rejected> {
        let (since, own) = match limit {
            TimeLimit::ByCaller(call) => (call.since(), Duration::from_nanos(call.own)),
            // A late first byte is not the caller's deadline.
            TimeLimit::FirstByte(
                times @ FirstByte {
                    first,
                    by_caller: true,
                    ..
                },
            ) if clock::has_passed(times.until()) => {
                let before = self.covers.first_byte.unwrap_or_default();
                (first.checked_sub(before).unwrap_or(first), self.duration())
            }
            _ => return self.reject(RejectedKind::TimedOut),
        };
        let ran = clock::moment().saturating_duration_since(since);
        let cut_short = if ran < self.patience(own) {
            CutShort::Early
        } else {
            CutShort::Late
        };
        self.reject_as(RejectedKind::TimedOut, Some(cut_short))
    }

    /// Returns how long a call must have run to count as slow before its limit is over. Twice the
    /// time of good answers, but at most the limit, or a quarter of the limit while that time is
    /// unknown.
    fn patience(&self, limit: Duration) -> Duration {
        match self.good.load(Ordering::Relaxed) {
            0 => limit / 4,
            good => limit.min(Duration::from_nanos(good.saturating_mul(2))),
        }
    }

    #[inline]
    pub(super) fn timer_share(&self) -> TimerShare {
        self.covers.timer
    }

    #[inline]
    pub(super) fn number(&self) -> &Number {
        &self.number
    }

    #[inline]
    pub(super) fn keeps_calls(&self) -> bool {
        self.keeps_calls.load(Ordering::Relaxed)
    }

    /// Returns whether the durations of calls are recorded.
    #[inline]
    pub(super) fn times_calls(&self) -> bool {
        self.tally.has_durations()
    }

    /// Records the end of a call that was sent, and its duration.
    pub(super) fn ended(&self, how: Ended, elapsed: Duration) {
        let label = match how {
            Ended::With(Outcome::Success) => 0,
            Ended::With(Outcome::Failure) => 1,
            Ended::With(Outcome::Overload) => 2,
            Ended::With(Outcome::Ignore) => 3,
            Ended::TimedOut => 4,
            Ended::Cancelled => 5,
        };
        self.tally.took(label, clock::nanos(elapsed));
    }

    /// Counts a call that is given up, and returns its rejection.
    pub(super) fn reject(&self, kind: RejectedKind) -> Box<Rejected> {
        self.reject_as(kind, None)
    }

    fn reject_as(&self, kind: RejectedKind, cut_short: Option<CutShort>) -> Box<Rejected> {
        let mut rejected = Box::new(self.tally.rejection(kind, None));
        if let Some(cut_short) = cut_short {
            rejected.set_cut_short(cut_short);
        }
        self.tally.rejected(&rejected);
        rejected
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
        // The name is the same for both timeouts of a stack.
        let param = if self.covers.attempts {
            "total_duration"
        } else {
            "duration"
        };
        let config = vec![(param, self.duration().as_secs_f64())];
        let state = observe::State::Timeout {
            total: self.covers.attempts,
        };
        Instance::new(&self.tally, config, state)
    }
}

/// Returns the duration in nanoseconds. Longer than 584 years is 584 years.
fn checked(duration: Duration, name: Option<&'static str>) -> Result<u64, ConfigError> {
    let max = Duration::from_nanos(u64::MAX);
    nanos_within(
        "duration",
        duration.min(max),
        Duration::from_nanos(1)..=max,
        "give calls some time; 1s is a start",
    )
    .map_err(|error| error.of("timeout", name))
}

/// The labels of attempts, and of whole calls, by how they ended.
const ENDS: [&[[&str; 2]]; 2] = [
    &[
        ["attempt", "success"],
        ["attempt", "failure"],
        ["attempt", "overload"],
        ["attempt", "ignored"],
        ["attempt", "timeout"],
        ["attempt", "cancelled"],
    ],
    &[
        ["total", "success"],
        ["total", "failure"],
        ["total", "overload"],
        ["total", "ignored"],
        ["total", "timeout"],
        ["total", "cancelled"],
    ],
];
