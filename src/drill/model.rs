//! The upstreams: a queueing model in nanoseconds.
//!
//! Departures are computed, not waited for, because tokio rounds each timer up to a whole
//! millisecond. A service time of 1 ms would become 1.5 ms, and an upstream at nine tenths of its
//! capacity would be overloaded. The model is pure: the time is an argument, and wakers are
//! returned.

use std::{collections::VecDeque, task::Waker};

use super::{
    agenda::{Agenda, AgendaEvent},
    jobs::{Job, JobId, JobStage, Jobs, UpstreamAnswer},
    random::{Purpose, Random},
    servers::{Order, Servers},
    trouble::{Effects, Timeline},
};

/// All upstreams, and their future events.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) agenda: Agenda,
    jobs: Jobs,
    upstreams: Vec<Upstream>,
    timeline: Timeline,
    /// The last moment. Time never goes back. So a call from a task of the user, which only sees
    /// whole milliseconds, cannot overtake.
    now: u64,
}

#[derive(Debug)]
struct Upstream {
    servers: Servers,
    effects: Effects,
    /// The number of calls that run at once, and the factor by which each takes longer.
    workers: (usize, f64),
    random: Random,
    waiting: VecDeque<JobId>,
    /// The number of calls in `waiting` that are not given up.
    waits: usize,
    busy: usize,
    seen: Seen,
}

/// The calls that an upstream has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The times at which calls arrived, in nanoseconds.
    pub(super) arrivals: Vec<u64>,
    /// The number of calls that workers took, and the sum of their waits in seconds.
    pub(super) started: u64,
    pub(super) waited: f64,
}

/// The fate of a call that arrives.
#[derive(Debug)]
pub(super) enum Arrival {
    Answered(UpstreamAnswer),
    Waits(JobId),
}

impl Model {
    pub(super) fn new(servers: Vec<Servers>, timeline: Timeline, seed: u64) -> Self {
        let mut agenda = Agenda::default();
        for (at, upstream) in timeline.changes() {
            agenda.enter(at, AgendaEvent::Change(upstream));
        }
        let upstreams = (0..).zip(servers).map(|(number, servers)| Upstream {
            workers: workers_left(&servers, 1.0),
            servers,
            effects: Effects::default(),
            random: Random::new(seed, Purpose::Upstream(number)),
            waiting: VecDeque::new(),
            waits: 0,
            busy: 0,
            seen: Seen::default(),
        });
        Self {
            agenda,
            jobs: Jobs::default(),
            upstreams: upstreams.collect(),
            timeline,
            now: 0,
        }
    }

    /// Returns the troubles and their times.
    pub(super) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Returns the calls that each upstream has seen so far.
    pub(super) fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.upstreams.iter().map(|upstream| &upstream.seen)
    }

    /// Handles a call that arrives.
    pub(super) fn arrive(&mut self, number: usize, at: u64) -> Arrival {
        let at = self.at(at);
        let upstream = &mut self.upstreams[number];
        upstream.seen.arrivals.push(at);
        let (stage, fate) = match upstream.fate() {
            Ok(fate) => fate,
            Err(answer) => return Arrival::Answered(answer),
        };
        let id = self.jobs.add(Job {
            upstream: number,
            stage,
            fate,
            arrived: at,
            is_alone: false,
            waker: None,
        });
        if stage == JobStage::Waits {
            upstream.waiting.push_back(id);
            upstream.waits += 1;
            self.start(number, at);
        }
        Arrival::Waits(id)
    }

    /// Returns the answer of a call, once there is one. Until then it keeps the waker. An answered
    /// call is removed.
    pub(super) fn poll(&mut self, id: JobId, waker: &Waker) -> Option<UpstreamAnswer> {
        let job = self.jobs.find(id)?;
        if job.stage == JobStage::Done {
            return self.jobs.remove(id).map(|job| job.fate);
        }
        match &mut job.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
        None
    }

    /// Handles a caller that has left.
    pub(super) fn leave(&mut self, id: JobId, at: u64) {
        let at = self.at(at);
        let Some(job) = self.jobs.find(id) else {
            return;
        };
        let (number, stage) = (job.upstream, job.stage);
        job.is_alone = true;
        job.waker = None;
        let gives_up = self.upstreams[number].servers.gives_up;
        match stage {
            JobStage::Waits if gives_up => self.upstreams[number].waits -= 1,
            JobStage::Runs if gives_up => self.upstreams[number].busy -= 1,
            JobStage::Waits | JobStage::Runs => return,
            JobStage::Hangs | JobStage::Done => {}
        }
        self.jobs.remove(id);
        self.start(number, at);
    }

    /// Handles a worker that finishes a call. Returns the waker to wake.
    pub(super) fn depart(&mut self, id: JobId, at: u64) -> Option<Waker> {
        let at = self.at(at);
        // A call that was lost meanwhile occupies no worker any more.
        let job = self
            .jobs
            .find(id)
            .filter(|job| job.stage == JobStage::Runs)?;
        let number = job.upstream;
        self.upstreams[number].busy -= 1;
        let woken = self.answer(id, None);
        self.start(number, at);
        woken
    }

    /// Handles the begin or end of a trouble. Returns the wakers to wake.
    pub(super) fn change(&mut self, number: usize, at: u64) -> Vec<Waker> {
        let at = self.at(at);
        let effects = self.timeline.effects(number, at);
        let upstream = &mut self.upstreams[number];
        upstream.effects = effects;
        upstream.workers = workers_left(&upstream.servers, effects.capacity);
        let mut woken = Vec::new();
        if effects.loses > 0.0 {
            for id in self.jobs.unanswered(number) {
                let upstream = &mut self.upstreams[number];
                if upstream.random.happens(effects.loses) {
                    match self.jobs.find(id).map(|job| job.stage) {
                        Some(JobStage::Runs) => upstream.busy -= 1,
                        _ => upstream.waits -= 1,
                    }
                    woken.extend(self.answer(id, Some(UpstreamAnswer::Reset)));
                }
            }
        }
        self.start(number, at);
        woken
    }

    /// Answers a call: as decided when it arrived, or with `otherwise`.
    fn answer(&mut self, id: JobId, otherwise: Option<UpstreamAnswer>) -> Option<Waker> {
        let job = self.jobs.find(id)?;
        job.stage = JobStage::Done;
        job.fate = otherwise.unwrap_or(job.fate);
        let woken = job.waker.take();
        if job.is_alone {
            self.jobs.remove(id);
        }
        woken
    }

    /// Gives waiting calls to idle workers.
    fn start(&mut self, number: usize, at: u64) {
        let upstream = &mut self.upstreams[number];
        let (workers, stretch) = upstream.workers;
        while upstream.busy < workers && upstream.waits > 0 {
            let next = match upstream.servers.order {
                Order::First => upstream.waiting.pop_front(),
                Order::Last => upstream.waiting.pop_back(),
            };
            let Some(id) = next else { return };
            // Calls that were given up, or lost, are still in the queue.
            let Some(job) = self
                .jobs
                .find(id)
                .filter(|job| job.stage == JobStage::Waits)
            else {
                continue;
            };
            job.stage = JobStage::Runs;
            upstream.waits -= 1;
            upstream.busy += 1;
            upstream.seen.started += 1;
            upstream.seen.waited += (at - job.arrived) as f64 / 1e9;
            let time = upstream.service_time(stretch);
            self.agenda
                .enter(at.saturating_add(time), AgendaEvent::Depart(id));
        }
    }

    /// Returns the moment, never before an earlier one.
    fn at(&mut self, at: u64) -> u64 {
        self.now = self.now.max(at);
        self.now
    }
}

impl Upstream {
    /// Decides on a call that arrives now: its stage, and the future answer.
    ///
    /// # Errors
    /// The immediate answer.
    fn fate(&mut self) -> Result<(JobStage, UpstreamAnswer), UpstreamAnswer> {
        let Effects {
            fails,
            status,
            refused,
            resets,
            hangs,
            ..
        } = self.effects;
        if self.random.happens(refused) {
            return Err(UpstreamAnswer::Refused);
        }
        if self.random.happens(hangs) {
            return Ok((JobStage::Hangs, UpstreamAnswer::Reset));
        }
        let is_busy = self.busy >= self.workers.0;
        if is_busy && self.waits >= self.servers.queue {
            return Err(UpstreamAnswer::Overloaded);
        }
        let fate = if self.random.happens(resets) {
            UpstreamAnswer::Reset
        } else if self.random.happens(fails) {
            UpstreamAnswer::Failed(status)
        } else {
            UpstreamAnswer::Well
        };
        Ok((JobStage::Waits, fate))
    }

    fn service_time(&mut self, stretch: f64) -> u64 {
        let Effects { slow, sick, .. } = self.effects;
        let sick = if self.random.happens(sick.0) {
            sick.1
        } else {
            1.0
        };
        let load = self.busy as f64 / f64::from(self.servers.workers.max(1));
        let factor = slow * sick * stretch * (1.0 + self.servers.load_factor * load);
        self.servers.service.draw(&mut self.random, factor)
    }
}

/// Returns the workers for a share of the capacity, and the factor by which each takes longer:
/// three and a half workers are four slower ones.
fn workers_left(servers: &Servers, capacity: f64) -> (usize, f64) {
    let left = f64::from(servers.workers) * capacity;
    // Not rounded up: a value just above a whole number counts as that number.
    let enough = |count: &u32| f64::from(*count) >= left - 1e-9;
    match (1..=servers.workers).find(enough) {
        Some(workers) if left > 0.0 => (workers as usize, f64::from(workers) / left),
        _ => (0, 1.0),
    }
}

#[cfg(test)]
mod tests;
