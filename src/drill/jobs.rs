//! Calls at the upstreams.

use std::task::Waker;

/// A call at an upstream. A place is used again, and its generation tells the calls apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobId {
    place: usize,
    generation: u32,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) upstream: usize,
    pub(super) stage: Stage,
    /// The answer to come, decided as it arrives.
    pub(super) fate: Answer,
    /// When it arrived, in nanoseconds.
    pub(super) arrived: u64,
    /// Set once its caller has left, so that nobody takes its answer.
    pub(super) is_alone: bool,
    pub(super) waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Waits,
    Runs,
    /// Nothing will ever come.
    Hangs,
    Done,
}

/// The answer of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Well,
    Failed(u16),
    /// The queue is full.
    Overloaded,
    /// There was no connection: nothing was sent.
    Refused,
    /// The connection broke: nobody knows whether it was processed.
    Reset,
}

/// All of them.
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

    /// The call, unless it is gone.
    pub(super) fn find(&mut self, id: JobId) -> Option<&mut Job> {
        let (generation, job) = self.places.get_mut(id.place)?;
        job.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Job> {
        self.find(id)?;
        self.free.push(id.place);
        self.places[id.place].1.take()
    }

    /// The calls that an upstream has not answered yet.
    pub(super) fn unanswered(&self, upstream: usize) -> Vec<JobId> {
        let jobs = self.places.iter().enumerate();
        let jobs = jobs.filter_map(|(place, (generation, job))| {
            let job = job.as_ref()?;
            let waits = matches!(job.stage, Stage::Waits | Stage::Runs);
            (job.upstream == upstream && waits).then_some(JobId {
                place,
                generation: *generation,
            })
        });
        jobs.collect()
    }
}
