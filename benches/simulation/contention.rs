//! A crowd of clients that all want to change one row, and how they wait before they try again.
//!
//! The row has a version. A client reads it, and writes with the version that it has read. The
//! write succeeds if nobody else has written since; if not, the client waits and reads again. Each
//! message takes about 10 ms. The simulation is that of Brooker, *Exponential Backoff And Jitter*
//! (AWS Architecture Blog, 2015).
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "figures of a simulation, of which the test uses a part"
)]

use std::{f64::consts::TAU, time::Duration};

use tower_keep::algorithm::{Backoff, Jitter};

use super::events::{Events, MS, Random, SECOND};

/// How a client waits after a write that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    Not,
    /// The exponential alone, which no client should use, so the crate has none.
    Bare,
    With(Jitter),
}

/// How a crowd got on, on average.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    /// Until the last client was done.
    pub(crate) seconds: f64,
    /// Writes.
    pub(crate) calls: f64,
}

enum Event {
    Read(usize),
    Write(usize, u64),
    Again(usize),
}

struct Client {
    failed: u32,
    previous: Duration,
}

/// All ways to wait, the crate's default last.
pub(crate) fn waits() -> [(&'static str, Wait); 7] {
    [
        ("none", Wait::Not),
        ("exponential", Wait::Bare),
        ("range of the base", Wait::With(Jitter::Additive(BASE))),
        ("equal", Wait::With(Jitter::Equal)),
        ("full", Wait::With(Jitter::Full)),
        ("decorrelated", Wait::With(Jitter::Decorrelated)),
        ("range of the exponential", Wait::With(Jitter::default())),
    ]
}

/// The mean of so many runs.
pub(crate) fn mean(wait: Wait, clients: usize, runs: u64) -> Finished {
    let mut sum = Finished {
        seconds: 0.0,
        calls: 0.0,
    };
    for seed in 0..runs {
        let finished = run(wait, clients, seed);
        sum.seconds += finished.seconds / runs as f64;
        sum.calls += finished.calls / runs as f64;
    }
    sum
}

fn run(wait: Wait, clients: usize, seed: u64) -> Finished {
    let mut random = Random::new(seed);
    let mut events = Events::new();
    let mut crowd: Vec<_> = (0..clients).map(|_| Client::new()).collect();
    for client in 0..clients {
        events.plan(link(&mut random), Event::Read(client));
    }
    let (mut version, mut calls, mut last) = (0, 0, 0);
    while let Some((now, event)) = events.next() {
        match event {
            // The answer comes back, and the write goes out.
            Event::Read(client) => {
                let way = link(&mut random) + link(&mut random);
                events.plan(now + way, Event::Write(client, version));
            }
            Event::Write(client, read) => {
                calls += 1;
                let answered = now + link(&mut random);
                if read == version {
                    version += 1;
                    last = last.max(answered);
                } else {
                    let delay = crowd[client].delay(wait, &mut random);
                    events.plan(answered + delay, Event::Again(client));
                }
            }
            Event::Again(client) => events.plan(now + link(&mut random), Event::Read(client)),
        }
    }
    Finished {
        seconds: last as f64 / SECOND as f64,
        calls: f64::from(calls),
    }
}

impl Client {
    fn new() -> Self {
        Self {
            failed: 0,
            previous: BASE,
        }
    }

    fn delay(&mut self, wait: Wait, random: &mut Random) -> u64 {
        let attempt = self.failed;
        self.failed += 1;
        let delay = match wait {
            Wait::Not => Duration::ZERO,
            Wait::Bare => MAX.min(BASE.saturating_mul(1 << attempt.min(20))),
            Wait::With(jitter) => {
                let backoff = Backoff::new(BASE, MAX, jitter).unwrap();
                backoff.delay(attempt, self.previous, random.word())
            }
        };
        self.previous = delay;
        u64::try_from(delay.as_nanos()).unwrap()
    }
}

/// How long a message takes: normal, 10 ms with a deviation of 2.
fn link(random: &mut Random) -> u64 {
    let normal = (-2.0 * random.share().ln()).sqrt() * (TAU * random.share()).cos();
    (((10.0 + 2.0 * normal) * MS as f64).max(0.0)) as u64
}

const BASE: Duration = Duration::from_millis(5);
const MAX: Duration = Duration::from_secs(2);
