//! The word that a breaker's state is packed into.

use std::time::Duration;

use crate::{
    algorithm::breaker::{BreakerState, Cause, Pass, Refused, Transition},
    outcome::Outcome,
};

/// `generation:21 | payload:40 | state:3`.
///
/// The payload is the deadline in whole milliseconds since the caller's start while open (34 years), the [`Probes`]
/// while half-open, and 0 otherwise. The generation wraps after two million transitions: a call would have to span
/// exactly so many for its result to be taken for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control(u64);

/// The probes of half-open: `out:13 | succeeded:13 | failed:13`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probes {
    pub(super) out: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
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

    pub(super) fn state(self) -> BreakerState {
        match self.0 & STATE_MASK {
            0 => BreakerState::Closed,
            1 => BreakerState::Open,
            2 => BreakerState::HalfOpen,
            3 => BreakerState::ForcedOpen,
            _ => BreakerState::Disabled,
        }
    }

    pub(super) fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    pub(super) fn pass(self) -> Pass {
        Pass { generation: self.generation() }
    }

    /// In nanoseconds; of an open circuit.
    pub(super) fn deadline(self) -> u64 {
        self.payload().saturating_mul(MILLI)
    }

    /// By an open circuit.
    pub(super) fn refused(self, now: u64) -> Refused {
        Refused { wait: Some(Duration::from_nanos(self.deadline().saturating_sub(now))) }
    }

    /// Of a half-open circuit.
    pub(super) fn probes(self) -> Probes {
        let payload = self.payload();
        let field = |shift: u32| payload >> shift & Probes::MOST;
        Probes { out: field(0), succeeded: field(Probes::BITS), failed: field(2 * Probes::BITS) }
    }

    /// The next generation, open until `deadline` (in nanoseconds, rounded up to a millisecond).
    pub(super) fn open(self, deadline: u64) -> Self {
        self.next(BreakerState::Open, deadline.div_ceil(MILLI).min(PAYLOAD_MASK))
    }

    /// The next generation, half-open with its first probe out.
    pub(super) fn half_open(self) -> Self {
        self.next(BreakerState::HalfOpen, Probes { out: 1, succeeded: 0, failed: 0 }.payload())
    }

    /// The next generation, in a state that needs no payload.
    pub(super) fn settle(self, state: BreakerState) -> Self {
        self.next(state, 0)
    }

    /// The same generation of half-open, with other probes.
    pub(super) fn with(self, probes: Probes) -> Self {
        Self(self.0 & !(PAYLOAD_MASK << PAYLOAD_SHIFT) | probes.payload() << PAYLOAD_SHIFT)
    }

    pub(super) fn transition(self, to: Self, cause: Cause) -> Transition {
        Transition { from: self.state(), to: to.state(), generation: to.generation(), cause }
    }

    fn payload(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT & PAYLOAD_MASK
    }

    fn next(self, state: BreakerState, payload: u64) -> Self {
        // The generation is at the top, so its carry falls off the word.
        let generation = (self.0 >> GENERATION_SHIFT).wrapping_add(1) << GENERATION_SHIFT;
        Self(generation | payload << PAYLOAD_SHIFT | code(state))
    }
}

impl Probes {
    const BITS: u32 = 13;
    pub(super) const MOST: u64 = (1 << Self::BITS) - 1;

    /// Slots that no further probe can have: out, or judged.
    pub(super) fn taken(self) -> u64 {
        self.out + self.succeeded + self.failed
    }

    pub(super) fn issue(self) -> Self {
        Self { out: self.out + 1, ..self }
    }

    /// A neutral outcome only gives the slot back.
    pub(super) fn take_back(self, outcome: Outcome) -> Self {
        let out = self.out.saturating_sub(1);
        match outcome {
            Outcome::Success => Self { out, succeeded: self.succeeded + 1, ..self },
            Outcome::Failure | Outcome::Overload => Self { out, failed: self.failed + 1, ..self },
            Outcome::Ignore => Self { out, ..self },
        }
    }

    fn payload(self) -> u64 {
        self.out | self.succeeded << Self::BITS | self.failed << (2 * Self::BITS)
    }
}

fn code(state: BreakerState) -> u64 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::Open => 1,
        BreakerState::HalfOpen => 2,
        BreakerState::ForcedOpen => 3,
        BreakerState::Disabled => 4,
    }
}

const MILLI: u64 = 1_000_000;
const STATE_MASK: u64 = 0b111;
const PAYLOAD_SHIFT: u32 = 3;
const PAYLOAD_MASK: u64 = (1 << 40) - 1;
const GENERATION_SHIFT: u32 = 43;
