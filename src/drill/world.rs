//! The state that a run's upstreams, callers and conductor share.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use super::{
    DrillError,
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
    /// If true, another name is a mistake.
    knows_names: bool,
    /// Started with the run: its nanoseconds are those of the model.
    clock: Clock,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) model: Model,
    /// The time at which the conductor polls a call, in nanoseconds. `None` if it does not, and a
    /// task of the user is running.
    pub(super) polling_at: Option<u64>,
    /// The first name that a call or a stack has used, and that no upstream has.
    unknown: Option<String>,
}

impl World {
    /// Creates a world. If `knows_names` is false, a name that no upstream has is the first one's.
    pub(super) fn new(model: Model, names: Vec<String>, knows_names: bool) -> Self {
        let state = State {
            model,
            polling_at: None,
            unknown: None,
        };
        Self(Arc::new(SharedModel {
            state: Mutex::new(state),
            names,
            knows_names,
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

    /// Returns the index of an upstream, by its name in any case, like a host. Without a name it is
    /// the first, and a single upstream has any name. Notes a name that none of several has.
    pub(super) fn number(&self, name: Option<&str>) -> usize {
        let Some(name) = name else { return 0 };
        let mut names = self.0.names.iter();
        let known = names.position(|known| known.eq_ignore_ascii_case(name));
        if known.is_none() && self.0.knows_names && self.0.names.len() > 1 {
            let mut state = self.lock();
            state.unknown.get_or_insert_with(|| name.to_owned());
        }
        known.unwrap_or(0)
    }

    /// Returns an upstream's name, by its index.
    pub(super) fn name(&self, number: usize) -> &str {
        self.0.names.get(number).map_or("", String::as_str)
    }

    /// Returns the names of all upstreams, for an error.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self
            .0
            .names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        names.join(", ")
    }

    /// Returns whether an upstream has this name, in any case.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut names = self.0.names.iter();
        names.any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Returns whether a call or a stack has used a name that no upstream has.
    pub(super) fn is_lost(&self) -> bool {
        self.lock().unknown.is_some()
    }

    /// Checks that all names were those of upstreams.
    ///
    /// # Errors
    /// A call or a stack has used another name. The figures would be those of a different system.
    pub(super) fn check_names(&self) -> Result<(), DrillError> {
        let Some(unknown) = self.lock().unknown.clone() else {
            return Ok(());
        };
        let names = self.names();
        let fix = format!(
            "a call goes to `{unknown}`, but the upstreams are {names}: add it, or change the host"
        );
        Err(DrillError::setting("upstream", fix))
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
