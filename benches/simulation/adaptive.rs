//! Limits that learn, before a server whose capacity and latency step up and down.
//!
//! Calls arrive at twice the server's capacity, at random. The server works on some at once, each
//! for half its service time and a random rest with that mean; others wait in order.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "figures of a simulation, of which the test uses a part"
)]

use std::collections::VecDeque;

use tower_keep::algorithm::{
    AdaptiveLimit, InFlight,
    adaptive::{Sample, Samples},
};

use super::events::{Events, MS, Random, SECOND};

/// What the server is like for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    /// How many calls it works on at once.
    pub(crate) places: usize,
    /// How long it works on one, on average.
    pub(crate) service: u64,
}

/// Whether the server says when it has too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// All that come wait.
    Unbounded,
    /// While half as many wait as are worked on, it rejects.
    Bounded,
}

/// What became of one phase, over its last third.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Calls answered, over what the server can do.
    pub(crate) goodput: f64,
    /// The mean latency of answers, over the service time.
    pub(crate) latency: f64,
    /// The mean limit.
    pub(crate) limit: f64,
    /// Seconds of the phase until a second had 90 % of the capacity at twice the latency at most,
    /// and so had the two after it; the whole phase if none.
    pub(crate) settled: u64,
}

pub(crate) const PHASE: u64 = 30 * SECOND;

pub(crate) const PHASES: [Phase; 5] = [
    Phase {
        name: "50 places, 50 ms",
        places: 50,
        service: 50 * MS,
    },
    Phase {
        name: "capacity halves",
        places: 25,
        service: 50 * MS,
    },
    Phase {
        name: "capacity x 4",
        places: 100,
        service: 50 * MS,
    },
    Phase {
        name: "half of it, twice as slow",
        places: 50,
        service: 100 * MS,
    },
    Phase {
        name: "fast again",
        places: 50,
        service: 25 * MS,
    },
];

/// A limit as the bulkhead runs one.
pub(crate) struct Limiter {
    in_flight: InFlight,
    learned: Option<(Samples, Box<dyn AdaptiveLimit>)>,
}

impl Limiter {
    pub(crate) fn fixed(limit: usize) -> Self {
        Self {
            in_flight: InFlight::new(limit),
            learned: None,
        }
    }

    pub(crate) fn adaptive(limit: impl AdaptiveLimit + 'static) -> Self {
        Self {
            in_flight: InFlight::new(limit.initial()),
            learned: Some((Samples::new(), Box::new(limit))),
        }
    }

    fn enter(&self) -> bool {
        let entered = self.in_flight.enter();
        if let (false, Some((samples, _))) = (entered, &self.learned) {
            samples.full();
        }
        entered
    }

    fn leave(&mut self, sample: Sample, rtt: u64, now: u64) {
        let Some((samples, algorithm)) = &mut self.learned else {
            return self.in_flight.leave();
        };
        if let Some(mut window) = samples.record(sample, rtt, self.in_flight.count(), now) {
            window.limit = self.in_flight.limit();
            let next = algorithm.update(&window);
            self.in_flight.set_limit(next);
            samples.open(next != window.limit, now);
        }
        self.in_flight.leave();
    }
}

enum Event {
    Arrival,
    Done { sent: u64 },
}

/// A second of the outside view.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    answered: u64,
    latency: u64,
    limit: u64,
    arrivals: u64,
}

/// Runs the limiter through phases of so long.
pub(crate) fn run(
    mut limiter: Limiter,
    phases: &[Phase],
    length: u64,
    backlog: Backlog,
    seed: u64,
) -> Vec<Measured> {
    let mut random = Random::new(seed);
    let mut events = Events::new();
    let mut queue = VecDeque::new();
    let mut working = 0;
    let seconds = usize::try_from(length / SECOND).unwrap();
    let mut tallies = vec![Tally::default(); seconds * phases.len()];
    events.plan(0, Event::Arrival);
    while let Some((now, event)) = events.next() {
        let second = usize::try_from(now / SECOND).unwrap();
        let Some(tally) = tallies.get_mut(second) else {
            break;
        };
        let phase = phases[second / seconds];
        match event {
            Event::Arrival => {
                let gap = phase.service as f64 / phase.places as f64 / 2.0;
                events.plan(now + random.exponential(gap).max(1), Event::Arrival);
                tally.arrivals += 1;
                tally.limit += limiter.in_flight.limit() as u64;
                if limiter.enter() {
                    if backlog == Backlog::Bounded && queue.len() >= phase.places / 2 {
                        limiter.leave(Sample::Overload, MS, now + MS);
                    } else {
                        queue.push_back(now);
                    }
                }
            }
            Event::Done { sent } => {
                working -= 1;
                tally.answered += 1;
                tally.latency += now - sent;
                limiter.leave(Sample::Success, now - sent, now);
            }
        }
        while working < phase.places {
            let Some(sent) = queue.pop_front() else { break };
            working += 1;
            let half = phase.service / 2;
            let done = now + half + random.exponential(half as f64);
            events.plan(done, Event::Done { sent });
        }
    }
    phases
        .iter()
        .zip(tallies.chunks(seconds))
        .map(|(phase, tallies)| measure(*phase, tallies))
        .collect()
}

/// The best fixed limit of a phase: the most goodput at no more than twice the service time; of
/// those within 1 % of it, the lowest.
pub(crate) fn best_fixed(phase: Phase, backlog: Backlog) -> (usize, Measured) {
    let tried: Vec<_> = [90, 100, 110, 120, 150, 200]
        .into_iter()
        .map(|percent| phase.places * percent / 100)
        .map(|limit| {
            let measured = run(Limiter::fixed(limit), &[phase], 3 * SECOND, backlog, 1);
            (limit, measured[0])
        })
        .filter(|(_, measured)| measured.latency <= 2.0)
        .collect();
    let most = tried
        .iter()
        .map(|(_, measured)| measured.goodput)
        .fold(0.0, f64::max);
    let is_best = |(_, measured): &(usize, Measured)| measured.goodput >= most - 0.01;
    tried.into_iter().find(is_best).unwrap()
}

fn measure(phase: Phase, tallies: &[Tally]) -> Measured {
    let capacity = phase.places as f64 * SECOND as f64 / phase.service as f64;
    let last = &tallies[tallies.len() * 2 / 3..];
    let sum = |of: fn(&Tally) -> u64| last.iter().map(of).sum::<u64>() as f64;
    let is_good = |tally: &Tally| {
        let latency = tally.latency as f64 / tally.answered.max(1) as f64;
        tally.answered as f64 >= 0.9 * capacity && latency <= 2.0 * phase.service as f64
    };
    let settled = tallies
        .windows(3)
        .position(|three| three.iter().all(is_good))
        .unwrap_or(tallies.len());
    Measured {
        goodput: sum(|tally| tally.answered) / last.len() as f64 / capacity,
        latency: sum(|tally| tally.latency)
            / sum(|tally| tally.answered).max(1.0)
            / phase.service as f64,
        limit: sum(|tally| tally.limit) / sum(|tally| tally.arrivals).max(1.0),
        settled: settled as u64,
    }
}
