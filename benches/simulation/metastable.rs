//! How many places a bulkhead may have before callers that give up and come back.
//!
//! A server does one call after the other, 1000 a second. Callers give up after 100 ms, of which
//! the network takes 5, and ask again at once, or 10 ms after a rejection, three times in all. For
//! ten seconds the server is half as fast. The question is how long after that callers are still
//! without answers: a bulkhead of as many places as the server can do within the callers' timeout
//! is full of calls whose answers come just too late.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "figures of a simulation, of which the test uses a part"
)]

use std::collections::VecDeque;

use tower_keep::algorithm::InFlight;

use super::events::{Events, MS, Random, SECOND};

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) places: usize,
    /// Calls a second, of the 1000 that the server can do.
    pub(crate) load: f64,
    /// Whether each call takes exactly a millisecond, or one on average.
    pub(crate) is_fixed: bool,
    /// Whether the server goes on with a call whose caller has left.
    pub(crate) goes_on: bool,
    pub(crate) seed: u64,
}

enum Event {
    Arrival,
    /// A caller asks again.
    Again(u32),
    /// The caller gives up.
    GivesUp(usize),
    /// The server is done with this call.
    Done(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    /// The caller has left. The server may not know.
    Left,
    /// The answer is on its way, and will be too late.
    Late,
    Ended,
}

struct Call {
    attempt: u32,
    asked: u64,
    state: State,
}

struct Server {
    case: Case,
    in_flight: InFlight,
    queue: VecDeque<usize>,
    working: Option<usize>,
    calls: Vec<Call>,
    events: Events<Event>,
    random: Random,
}

/// Seconds after the trigger until 95 % of the callers have their answers for three seconds; `None`
/// if that is not within a minute.
pub(crate) fn seconds_to_recover(case: Case) -> Option<usize> {
    let mut server = Server {
        case,
        in_flight: InFlight::new(case.places),
        queue: VecDeque::new(),
        working: None,
        calls: Vec::new(),
        events: Events::new(),
        random: Random::new(case.seed),
    };
    server.events.plan(0, Event::Arrival);
    let mut answered = vec![0u64; END];
    while let Some((now, event)) = server.events.next() {
        let second = usize::try_from(now / SECOND).unwrap();
        if second >= END {
            break;
        }
        match event {
            Event::Arrival => {
                let gap = SECOND as f64 / (1000.0 * case.load);
                let gap = server.random.exponential(gap).max(1);
                server.events.plan(now + gap, Event::Arrival);
                server.ask(1, now);
            }
            Event::Again(attempt) => server.ask(attempt, now),
            Event::GivesUp(call) => server.give_up(call, now),
            Event::Done(call) => answered[second] += u64::from(server.done(call, now)),
        }
    }
    let good = 0.95 * 1000.0 * case.load;
    let after = &answered[TRIGGER.end..];
    after
        .windows(3)
        .position(|seconds| seconds.iter().all(|answered| *answered as f64 >= good))
}

impl Server {
    fn ask(&mut self, attempt: u32, now: u64) {
        if !self.in_flight.enter() {
            if attempt < ATTEMPTS {
                self.events.plan(now + PAUSE, Event::Again(attempt + 1));
            }
            return;
        }
        let call = self.calls.len();
        let state = State::Waits;
        self.calls.push(Call {
            attempt,
            asked: now,
            state,
        });
        self.queue.push_back(call);
        self.events.plan(now + TIMEOUT, Event::GivesUp(call));
        self.work(now);
    }

    fn give_up(&mut self, call: usize, now: u64) {
        match self.calls[call].state {
            State::Waits => {
                self.calls[call].state = State::Left;
                if !self.case.goes_on && self.working != Some(call) {
                    self.queue.retain(|queued| *queued != call);
                    self.leave(call);
                }
            }
            State::Late => {}
            State::Left | State::Ended => return,
        }
        let attempt = self.calls[call].attempt;
        if attempt < ATTEMPTS {
            self.ask(attempt + 1, now);
        }
    }

    /// Whether the caller was still there.
    fn done(&mut self, call: usize, now: u64) -> bool {
        let still_waits = self.calls[call].state == State::Waits;
        let in_time = still_waits && now + NETWORK <= self.calls[call].asked + TIMEOUT;
        self.working = None;
        self.leave(call);
        if still_waits && !in_time {
            self.calls[call].state = State::Late;
        }
        self.work(now);
        in_time
    }

    fn leave(&mut self, call: usize) {
        self.calls[call].state = State::Ended;
        self.in_flight.leave();
    }

    fn work(&mut self, now: u64) {
        if self.working.is_some() {
            return;
        }
        let Some(call) = self.queue.pop_front() else {
            return;
        };
        self.working = Some(call);
        let is_slow = TRIGGER.contains(&usize::try_from(now / SECOND).unwrap());
        let mean = if is_slow { 2 * MS } else { MS };
        let time = if self.case.is_fixed {
            mean
        } else {
            self.random.exponential(mean as f64)
        };
        self.events.plan(now + time, Event::Done(call));
    }
}

const ATTEMPTS: u32 = 3;
const PAUSE: u64 = 10 * MS;
const TIMEOUT: u64 = 100 * MS;
/// There and back.
const NETWORK: u64 = 5 * MS;
const TRIGGER: std::ops::Range<usize> = 10..20;
const END: usize = 80;
