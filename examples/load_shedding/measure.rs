//! The script, and the figures made of what was seen.

use std::time::Duration;

use crate::{
    CAPACITY, arrivals,
    pool::Job,
    traffic::{Answer, Asked},
};

/// A part of the run: so long, so many times the server's capacity is asked of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) load: f64,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
}

pub(crate) const PHASES: [Phase; 4] = [
    phase("1x capacity", 1.0, 0),
    phase("2x", 2.0, 4),
    phase("3x", 3.0, 8),
    phase("afterwards, 0.5x", 0.5, 12),
];

const fn phase(name: &'static str, load: f64, start: u64) -> Phase {
    Phase {
        name,
        load,
        start: Duration::from_secs(start),
        end: Duration::from_secs(start + 4),
    }
}

/// When requests come, in all phases.
pub(crate) fn arrivals() -> Vec<Duration> {
    let mut all = Vec::new();
    for (seed, phase) in (1..).zip(PHASES) {
        let moments = arrivals::arrivals(CAPACITY * phase.load, phase.end - phase.start, seed);
        all.extend(moments.into_iter().map(|at| phase.start + at));
    }
    all
}

/// One server and its callers.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) name: &'static str,
    /// By the moment they were asked.
    pub(crate) requests: Vec<Asked>,
    /// By the moment they came to the workers.
    pub(crate) jobs: Vec<Job>,
}

impl Side {
    pub(crate) fn new(name: &'static str, requests: Vec<Asked>, jobs: Vec<Job>) -> Self {
        Self {
            name,
            requests,
            jobs,
        }
    }

    pub(crate) fn asked(&self, phase: &Phase) -> &[Asked] {
        let from = self
            .requests
            .partition_point(|asked| asked.at < phase.start);
        let to = self.requests.partition_point(|asked| asked.at < phase.end);
        &self.requests[from..to]
    }

    pub(crate) fn count(&self, phase: &Phase, answer: Answer) -> usize {
        let asked = self.asked(phase).iter();
        asked.filter(|asked| asked.answer == answer).count()
    }

    /// Answers in time that were given in the phase, of all that the server could have given.
    pub(crate) fn goodput(&self, phase: &Phase) -> f64 {
        let in_time = self.requests.iter();
        let in_time = in_time.filter(|asked| asked.answer == Answer::InTime);
        let given = in_time.filter(|asked| (phase.start..phase.end).contains(&asked.ended()));
        given.count() as f64 / (CAPACITY * (phase.end - phase.start).as_secs_f64())
    }

    /// Answers in time, of all requests of the phase.
    pub(crate) fn answered(&self, phase: &Phase) -> f64 {
        self.count(phase, Answer::InTime) as f64 / self.asked(phase).len().max(1) as f64
    }

    /// How long callers that got their answer waited for it.
    pub(crate) fn latency(&self, phase: &Phase, percent: usize) -> Option<Duration> {
        let answered = self.asked(phase).iter();
        let answered = answered.filter(|asked| asked.answer == Answer::InTime);
        let mut sorted: Vec<_> = answered.map(|asked| asked.took).collect();
        sorted.sort_unstable();
        let rank = sorted.len() * percent / 100;
        sorted.get(rank).copied()
    }

    /// Calls that the server had and had not done yet.
    pub(crate) fn in_flight(&self, now: Duration) -> usize {
        // Both are in order, because the workers take calls in order.
        let came = self.jobs.partition_point(|job| job.came <= now);
        came - self.jobs.partition_point(|job| job.done <= now)
    }

    pub(crate) fn most_in_flight(&self, phase: &Phase) -> usize {
        let came = self.jobs.iter().map(|job| job.came);
        came.filter(|came| (phase.start..phase.end).contains(came))
            .map(|came| self.in_flight(came))
            .max()
            .unwrap_or(0)
    }
}
