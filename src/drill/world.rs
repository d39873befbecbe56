//! The state that a run's upstreams, callers and conductor share.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use super::{
    jobs::{JobId, UpstreamAnswer},
    model::{Arrival, Model},
};
use crate::ambient::clock::Clock;

/// A handle to the modelled upstreams of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct World(Arc<SharedModel>);

#[derive(Debug)]
struct SharedModel {
    state: Mutex<State>,
    names: Vec<String>,
    /// Started with the run: its nanoseconds are those of the model.
    clock: Clock,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) model: Model,
    /// The time at which the conductor polls a call, in nanoseconds. `None` if it does not, and a
    /// task of the user is running.
    pub(super) polling_at: Option<u64>,
}

impl World {
    pub(super) fn new(model: Model, names: Vec<String>) -> Self {
        let state = State {
            model,
            polling_at: None,
        };
        Self(Arc::new(SharedModel {
            state: Mutex::new(state),
            names,
            clock: Clock::start(),
        }))
    }

    pub(super) fn clock(&self) -> Clock {
        self.0.clock
    }

    /// Locks the state. Wakers must be woken, and futures dropped, outside this lock: both run user
    /// code.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the index of an upstream, by its name in any case, like a host. Without one of that
    /// name it is the first.
    pub(super) fn number(&self, name: Option<&str>) -> usize {
        let mut names = self.0.names.iter();
        let known = |name: &str| names.position(|known| known.eq_ignore_ascii_case(name));
        name.and_then(known).unwrap_or(0)
    }

    /// Sends a call to an upstream, now.
    pub(super) fn send(&self, number: usize) -> Sending {
        let clock = self.0.clock;
        let mut state = self.lock();
        let at = state.polling_at.unwrap_or_else(|| clock.now());
        let arrival = state.model.arrive(number, at);
        drop(state);
        Sending {
            world: self.clone(),
            arrival: Some(arrival),
        }
    }
}

/// A call at an upstream. If dropped unfinished, its caller has left.
#[derive(Debug)]
pub(super) struct Sending {
    world: World,
    /// `None` once it is answered.
    arrival: Option<Arrival>,
}

impl Sending {
    fn waits(&self) -> Option<JobId> {
        match self.arrival {
            Some(Arrival::Waits(id)) => Some(id),
            _ => None,
        }
    }
}

impl Future for Sending {
    type Output = UpstreamAnswer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<UpstreamAnswer> {
        let answer = match self.arrival {
            Some(Arrival::Answered(answer)) => Some(answer),
            Some(Arrival::Waits(id)) => self.world.lock().model.poll(id, context.waker()),
            None => None,
        };
        match answer {
            Some(answer) => {
                self.arrival = None;
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(id) = self.waits() {
            let clock = self.world.clock();
            let mut state = self.world.lock();
            let at = state.polling_at.unwrap_or_else(|| clock.now());
            state.model.leave(id, at);
        }
    }
}
