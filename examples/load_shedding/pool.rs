//! What the server's calls need: a fixed number of workers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{SERVICE_TIME, WORKERS, clock::Clock};

/// Workers that take calls in order of arrival, and finish what they were given: a pool of threads,
/// or of connections to a database, does not learn that a caller has left. A call needs no CPU, so
/// that the capacity is the same on a busy machine.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: Mutex<Vec<Job>>,
    clock: Clock,
}

/// A call, from the moment it was given to the pool to that at which a worker has done it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) came: Duration,
    pub(crate) done: Duration,
}

impl Pool {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            jobs: Mutex::default(),
            clock,
        })
    }

    pub(crate) async fn work(&self) -> &'static str {
        let done = self.submit(self.clock.now());
        self.clock.sleep_until(done).await;
        "done"
    }

    /// Plans a call. All take the same time, so it begins when the call so many places ahead of it
    /// as there are workers is done.
    fn submit(&self, came: Duration) -> Duration {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = jobs
            .len()
            .checked_sub(WORKERS)
            .map(|place| jobs[place].done);
        let done = ahead.map_or(came, |ahead| ahead.max(came)) + SERVICE_TIME;
        jobs.push(Job { came, done });
        done
    }

    /// All calls so far, in order of arrival.
    pub(crate) fn jobs(&self) -> Vec<Job> {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
