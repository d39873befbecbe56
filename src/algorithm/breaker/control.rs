//! The word that holds a breaker's state.

use std::time::Duration;

use crate::algorithm::{
    breaker::transition::{BreakerState, Cause, CircuitOpen, Transition},
    window::{Class, Counts},
};

/// `generation:18 | streak:5 | payload:38 | state:3`.
///
/// The payload is the deadline in whole milliseconds since the caller's start while open, and the
/// [`Probes`] while half-open. While closed it is the millisecond at which the probes closed it. It
/// is 0 if the circuit was closed by hand or from the start, or so long ago that it no longer
/// matters, and in all other states. Milliseconds wrap after 8.7 years, and are read as the moment
/// nearest to the present: see [`near`].
///
/// The streak counts the openings since closed last held for a whole window, and stays at 31. The
/// generation wraps after 262 144 transitions. A call would have to span exactly so many for its
/// result to be taken for a new one.
///
/// The streak is not a field of its own, because the next deadline follows from it. It must change
/// in the same step as the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control(u64);

/// The probes of half-open: `out:9 | succeeded:9 | failed:9 | slow:9`. A slow probe is among the
/// succeeded or the failed as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Probes {
    pub(super) out: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

impl Probes {
    pub(super) fn counts(self) -> Counts {
        Counts {
            successes: self.succeeded,
            failures: self.failed,
            slow: self.slow,
            abandoned: 0,
        }
    }
}

impl Control {
    pub(super) fn closed() -> Self {
        Self(code(BreakerState::Closed))
    }

    pub(super) fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(super) fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn state(self) -> BreakerState {
        match self.0 & STATE_MASK {
            0 => BreakerState::Closed,
            1 => BreakerState::Open,
            2 => BreakerState::HalfOpen,
            3 => BreakerState::ForcedOpen,
            4 => BreakerState::Disabled,
            _ => BreakerState::MetricsOnly,
        }
    }

    #[inline]
    pub(super) fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    /// Returns whether results are counted: while closed, or metrics-only.
    #[inline]
    pub(super) fn counts_calls(self) -> bool {
        matches!(
            self.state(),
            BreakerState::Closed | BreakerState::MetricsOnly
        )
    }

    /// Returns the generation in its bits of the word.
    #[inline]
    pub(super) fn generation_bits(self) -> u64 {
        self.0 >> GENERATION_SHIFT << GENERATION_SHIFT
    }

    /// Returns whether another word has the same generation in the same bits.
    #[inline]
    pub(super) fn has_generation_bits(self, word: u64) -> bool {
        (self.0 ^ word) >> GENERATION_SHIFT == 0
    }

    pub(super) fn streak(self) -> u32 {
        (self.0 >> STREAK_SHIFT & STREAK_MASK) as u32
    }

    /// Returns the deadline of an open circuit, in nanoseconds.
    pub(super) fn deadline(self, now: u64) -> u64 {
        near(self.payload(), now)
    }

    /// Returns the rejection by an open circuit.
    pub(super) fn rejected(self, now: u64) -> CircuitOpen {
        CircuitOpen {
            wait: Some(Duration::from_nanos(self.deadline(now).saturating_sub(now))),
        }
    }

    /// Returns when the probes closed a closed circuit, in nanoseconds, if that still matters.
    pub(super) fn closed_at(self, now: u64) -> Option<u64> {
        self.is_new().then(|| near(self.payload(), now))
    }

    /// Returns whether the moment at which the probes closed a closed circuit may still matter.
    #[inline]
    pub(super) fn is_new(self) -> bool {
        self.payload() != 0
    }

    /// Returns how the probes of a half-open state have ended, or zeros for another state.
    pub(super) fn counts(self) -> Counts {
        if self.state() == BreakerState::HalfOpen {
            self.probes().counts()
        } else {
            Counts::default()
        }
    }

    pub(super) fn probes(self) -> Probes {
        let payload = self.payload();
        let field = |number: u32| payload >> (number * Probes::BITS) & Probes::MOST;
        Probes {
            out: field(0),
            succeeded: field(1),
            failed: field(2),
            slow: field(3),
        }
    }

    /// Returns the next generation, open until `deadline`. That is in nanoseconds, and rounded down
    /// to a millisecond: a hint of 30.0001 s would become a `Retry-After` of 31.
    pub(super) fn open(self, deadline: u64, streak: u32) -> Self {
        self.next(
            BreakerState::Open,
            streak,
            (deadline / MILLI) & PAYLOAD_MASK,
        )
    }

    /// Returns the next generation, half-open with its first probe in flight.
    pub(super) fn half_open(self) -> Self {
        self.next(
            BreakerState::HalfOpen,
            self.streak(),
            Probes::default().issue().payload(),
        )
    }

    /// Returns the next generation, closed by the probes.
    pub(super) fn close(self, now: u64) -> Self {
        self.next(
            BreakerState::Closed,
            self.streak(),
            ((now / MILLI) & PAYLOAD_MASK).max(1),
        )
    }

    /// Returns the next generation, set by hand: nothing of the past matters.
    pub(super) fn settle(self, state: BreakerState) -> Self {
        self.next(state, 0, 0)
    }

    /// Returns the next generation, otherwise the same.
    pub(super) fn anew(self) -> Self {
        self.next(self.state(), self.streak(), self.payload())
    }

    /// Returns the same generation of half-open, with other probes.
    pub(super) fn with(self, probes: Probes) -> Self {
        Self(self.0 & !(PAYLOAD_MASK << PAYLOAD_SHIFT) | probes.payload() << PAYLOAD_SHIFT)
    }

    /// Returns the same generation of closed, without the moment at which it began.
    pub(super) fn settled_in(self, forget_streak: bool) -> Self {
        let streak = if forget_streak {
            STREAK_MASK << STREAK_SHIFT
        } else {
            0
        };
        Self(self.0 & !(PAYLOAD_MASK << PAYLOAD_SHIFT) & !streak)
    }

    pub(super) fn transition(self, to: Self, cause: Cause, counts: Counts) -> Transition {
        Transition {
            from: self.state(),
            to: to.state(),
            generation: to.generation(),
            cause,
            counts,
            at: Duration::ZERO,
            open_for: None,
            rejected: None,
        }
    }

    fn payload(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT & PAYLOAD_MASK
    }

    fn next(self, state: BreakerState, streak: u32, payload: u64) -> Self {
        // The generation is at the top, so its carry falls off the word.
        let generation = (self.0 >> GENERATION_SHIFT).wrapping_add(1) << GENERATION_SHIFT;
        let streak = u64::from(streak).min(STREAK_MASK) << STREAK_SHIFT;
        Self(generation | streak | payload << PAYLOAD_SHIFT | code(state))
    }
}

impl Probes {
    const BITS: u32 = 9;
    pub(super) const MOST: u64 = (1 << Self::BITS) - 1;

    /// Returns the number of slots that no further probe can have: in flight, or judged.
    pub(super) fn taken(self) -> u64 {
        self.out + self.judged()
    }

    pub(super) fn judged(self) -> u64 {
        self.succeeded + self.failed
    }

    pub(super) fn issue(self) -> Self {
        Self {
            out: self.out + 1,
            ..self
        }
    }

    /// Takes back a probe. With `None` it says nothing about the upstream and only gives the slot
    /// back.
    pub(super) fn take_back(self, class: Option<Class>) -> Self {
        let mut probes = Self {
            out: self.out.saturating_sub(1),
            ..self
        };
        if let Some(class) = class {
            *(if class.is_failure() {
                &mut probes.failed
            } else {
                &mut probes.succeeded
            }) += 1;
            probes.slow += u64::from(class.is_slow());
        }
        probes
    }

    fn payload(self) -> u64 {
        self.out
            | self.succeeded << Self::BITS
            | self.failed << (2 * Self::BITS)
            | self.slow << (3 * Self::BITS)
    }
}

/// Returns the moment nearest to `now`, in nanoseconds, that has these low bits of its
/// milliseconds.
///
/// No circuit is open for longer than 30 days, so a moment more than 99 days ahead is taken for one
/// long past. Two circuits are wrong by that. An open circuit that no call has met for 8.4 years
/// may reject for another 99 days. A circuit that probes closed so long ago repeats its ramp.
fn near(millis: u64, now: u64) -> u64 {
    let present = now / MILLI;
    let ahead = millis.wrapping_sub(present) & PAYLOAD_MASK;
    let moment = if ahead <= MOST_AHEAD {
        present.saturating_add(ahead)
    } else {
        present.saturating_sub(PAYLOAD_MASK + 1 - ahead)
    };
    moment.saturating_mul(MILLI)
}

fn code(state: BreakerState) -> u64 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::Open => 1,
        BreakerState::HalfOpen => 2,
        BreakerState::ForcedOpen => 3,
        BreakerState::Disabled => 4,
        BreakerState::MetricsOnly => 5,
    }
}

const MILLI: u64 = 1_000_000;
const STATE_MASK: u64 = 0b111;
const PAYLOAD_SHIFT: u32 = 3;
const PAYLOAD_MASK: u64 = (1 << 38) - 1;
/// The most milliseconds that a moment may be ahead: 99 days.
const MOST_AHEAD: u64 = 1 << 33;
const STREAK_SHIFT: u32 = 41;
const STREAK_MASK: u64 = 31;
const GENERATION_SHIFT: u32 = 46;
