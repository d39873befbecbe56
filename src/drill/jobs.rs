//! Calls at the upstreams.

use std::task::Waker;

/// The id of a call at an upstream. Slots are reused, and the generation distinguishes the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobId {
    place: usize,
    generation: u32,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) upstream: usize,
    pub(super) stage: JobStage,
    /// The future answer, decided when the call arrives.
    pub(super) fate: UpstreamAnswer,
    /// The time at which it arrived, in nanoseconds.
    pub(super) arrived: u64,
    /// Set once its caller has left, so that its answer is not read.
    pub(super) is_alone: bool,
    pub(super) waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobStage {
    Waits,
    Runs,
    /// Never answered.
    Hangs,
    Done,
}

/// The answer of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpstreamAnswer {
    Well,
    Failed(u16),
    /// The queue is full.
    Overloaded,
    /// There was no connection: nothing was sent.
    Refused,
    /// The connection broke: it may have been processed.
    Reset,
}

/// All calls at the upstreams.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    places: Vec<(u32, Option<Job>)>,
    free: Vec<usize>,
}

impl Jobs {
    pub(super) fn add(&mut self, job: Job) -> JobId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() - 1
        });
        let (generation, held) = &mut self.places[place];
        *generation = generation.wrapping_add(1);
        *held = Some(job);
        JobId {
            place,
            generation: *generation,
        }
    }

    /// Returns the call, unless it is gone.
    pub(super) fn find(&mut self, id: JobId) -> Option<&mut Job> {
        let (generation, job) = self.places.get_mut(id.place)?;
        job.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Job> {
        self.find(id)?;
        self.free.push(id.place);
        self.places[id.place].1.take()
    }

    /// Returns the calls that an upstream has not answered yet.
    pub(super) fn unanswered(&self, upstream: usize) -> Vec<JobId> {
        let jobs = self.places.iter().enumerate();
        let jobs = jobs.filter_map(|(place, (generation, job))| {
            let job = job.as_ref()?;
            let waits = matches!(job.stage, JobStage::Waits | JobStage::Runs);
            (job.upstream == upstream && waits).then_some(JobId {
                place,
                generation: *generation,
            })
        });
        jobs.collect()
    }
}
