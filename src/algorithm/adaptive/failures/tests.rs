//! Tests adaptive limits before a modelled upstream, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::*;
use crate::algorithm::{
    AdaptiveLimit, InFlight,
    adaptive::{Aimd, Gradient2, Sample, Samples, Vegas},
};

/// An upstream, and the calls to it.
#[derive(Debug, Clone, Copy)]
struct Upstream {
    /// Calls per second.
    rate: f64,
    workers: usize,
    /// The mean of exponential service times, in seconds.
    service: f64,
    /// The most calls that wait. More are rejected after a millisecond.
    queue: usize,
    timeout: f64,
    /// The share of calls that fail whatever the load, and the seconds after which they fail.
    fails: (f64, f64),
}

/// Ten workers that serve 1000 calls a second, under three times that load.
const SERVER: Upstream = Upstream {
    rate: 3000.0,
    workers: 10,
    service: 0.01,
    queue: usize::MAX,
    timeout: 0.1,
    fails: (0.0, 0.0),
};

/// The result of a run, of its last three quarters.
#[derive(Debug, Default)]
struct Found {
    answered: f64,
    /// The mean limit.
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Asked,
    Served(usize),
    Failed(usize),
}

struct Run<'a> {
    algorithm: &'a mut dyn AdaptiveLimit,
    upstream: Upstream,
    samples: Samples,
    in_flight: InFlight,
    events: BinaryHeap<Reverse<(u64, usize, Event)>>,
    /// The time at which each call was sent, or `None` once it has ended for its caller.
    sent: Vec<Option<u64>>,
    queue: VecDeque<usize>,
    busy: usize,
    random: u64,
}

impl Run<'_> {
    fn unit(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.unit()).ln() * mean
    }

    fn plan(&mut self, at: u64, after: f64, event: Event) {
        let number = self.events.len() + self.sent.len();
        #[expect(clippy::cast_possible_truncation, reason = "some seconds")]
        let at = at + (after * 1e9) as u64;
        self.events.push(Reverse((at, number, event)));
    }

    fn ask(&mut self, now: u64) {
        if !self.in_flight.enter() {
            return self.samples.full();
        }
        let call = self.sent.len();
        self.sent.push(Some(now));
        let Upstream {
            timeout,
            fails: (share, after),
            ..
        } = self.upstream;
        self.plan(now, timeout, Event::Failed(call));
        if self.unit() < share {
            self.plan(now, after, Event::Failed(call));
        } else if self.busy >= self.upstream.workers && self.queue.len() >= self.upstream.queue {
            self.plan(now, 0.001, Event::Failed(call));
        } else {
            self.queue.push_back(call);
            self.serve(now);
        }
    }

    fn serve(&mut self, now: u64) {
        while self.busy < self.upstream.workers {
            let Some(call) = self.queue.pop_front() else {
                return;
            };
            self.busy += 1;
            let time = self.exponential(self.upstream.service);
            self.plan(now, time, Event::Served(call));
        }
    }

    /// Returns whether the caller was still waiting.
    fn end(&mut self, call: usize, sample: Sample, now: u64) -> bool {
        let Some(sent) = self.sent[call].take() else {
            return false;
        };
        let count = self.in_flight.count();
        if let Some(window) = self.samples.record(sample, now - sent, count, now) {
            let limit = self.in_flight.limit();
            let max = 1000;
            let next = self.algorithm.update(&Window {
                limit,
                max,
                ..window
            });
            self.in_flight.set_limit(next);
            self.samples.open(true, now);
        }
        self.in_flight.leave();
        true
    }
}

fn run(algorithm: &mut dyn AdaptiveLimit, upstream: Upstream, seconds: u64) -> Found {
    let in_flight = InFlight::new(algorithm.initial());
    let mut run = Run {
        algorithm,
        upstream,
        samples: Samples::new(),
        in_flight,
        events: BinaryHeap::new(),
        sent: Vec::new(),
        queue: VecDeque::new(),
        busy: 0,
        random: 0x9E37_79B9_7F4A_7C15,
    };
    let (mut asked, mut answered, mut limits) = (0.0, 0.0, 0.0);
    run.plan(0, 0.0, Event::Asked);
    while let Some(Reverse((now, _, event))) = run.events.pop() {
        if now > seconds * 1_000_000_000 {
            break;
        }
        let counts = if now > seconds * 250_000_000 {
            1.0
        } else {
            0.0
        };
        match event {
            Event::Asked => {
                asked += counts;
                limits += counts * run.in_flight.limit() as f64;
                let gap = run.exponential(1.0 / upstream.rate);
                run.plan(now, gap, Event::Asked);
                run.ask(now);
            }
            Event::Served(call) => {
                run.busy -= 1;
                let in_time = run.end(call, Sample::Success, now);
                answered += if in_time { counts } else { 0.0 };
                run.serve(now);
            }
            Event::Failed(call) => {
                run.end(call, Sample::Failure, now);
            }
        }
    }
    Found {
        answered: answered / asked,
        limit: limits / asked,
    }
}

fn all() -> [Box<dyn AdaptiveLimit>; 3] {
    [
        Box::new(Aimd::default()),
        Box::new(Vegas::default()),
        Box::new(Gradient2::default()),
    ]
}

#[test]
fn quick_rejections_hold_the_limit_down() {
    for limit in all() {
        for rate in [3000.0, 10_000.0] {
            let upstream = Upstream {
                rate,
                queue: 0,
                ..SERVER
            };
            let found = run(&mut *limit.fresh(), upstream, 20);
            assert!((8.0..20.0).contains(&found.limit), "{found:?}, {limit:?}");
            assert!(found.answered > 0.9 * 1000.0 / rate, "{found:?}, {limit:?}");
        }
    }
}

#[test]
fn timeouts_lower_the_limit() {
    for mut limit in all() {
        // Answers take over half of the timeout, so that timeouts are not slow beside them.
        let upstream = Upstream {
            rate: 1500.0,
            workers: 60,
            service: 0.06,
            ..SERVER
        };
        let found = run(&mut *limit, upstream, 30);
        assert!(found.limit < 120.0, "{found:?}, {limit:?}");
        assert!(found.answered > 0.4, "{found:?}, {limit:?}");
    }
}

#[test]
fn timeouts_alone_lower_the_limit() {
    for mut limit in all() {
        let upstream = Upstream {
            fails: (1.0, 0.1),
            ..SERVER
        };
        let found = run(&mut *limit, upstream, 30);
        assert!(found.limit < 5.0, "{found:?}, {limit:?}");
        // The limit recovers with the upstream.
        let found = run(
            &mut *limit,
            Upstream {
                rate: 800.0,
                ..SERVER
            },
            30,
        );
        assert!(found.answered > 0.98, "{found:?}, {limit:?}");
    }
}

#[test]
fn failures_of_another_cause_cost_a_tenth_at_most() {
    for fails in [(0.05, 0.5), (0.05, 0.005), (0.01, 0.5)] {
        for mut limit in all() {
            let upstream = Upstream {
                rate: 1000.0,
                workers: usize::MAX,
                service: 0.02,
                timeout: 10.0,
                fails,
                ..SERVER
            };
            let found = run(&mut *limit, upstream, 60);
            let most = 1.0 - fails.0;
            assert!(
                found.answered > 0.9 * most,
                "{fails:?}: {found:?}, {limit:?}"
            );
        }
    }
}

#[test]
fn a_server_at_nine_tenths_of_its_load_rejects_little() {
    for mut limit in all() {
        let upstream = Upstream {
            rate: 900.0,
            ..SERVER
        };
        let found = run(&mut *limit, upstream, 40);
        assert!(found.answered > 0.97, "{found:?}, {limit:?}");
    }
}
