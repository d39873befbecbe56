//! The builder.

use std::{fmt, sync::Arc, time::Duration};

use tower::BoxError;

use super::{
    backend::Backend,
    service::Spill,
    shared::{Shared, Wanted},
    state::State,
};
use crate::{ConfigError, Name, algorithm::Budget, observe::register};

/// Settings of a [`Spill`], in any order but that of its backends.
#[must_use = "a builder does nothing until `build`"]
pub struct SpillBuilder<P, R, Res> {
    protocol: P,
    backends: Vec<Backend<R, Res>>,
    wanted: Option<Wanted<Res>>,
    budget: Option<Arc<Budget>>,
    total: Option<Duration>,
    name: Option<&'static str>,
}

impl<P, R, Res> Spill<P, R, Res> {
    /// Starts with no backend. The protocol reads results and keeps requests, as that of a retry.
    pub fn builder(protocol: P) -> SpillBuilder<P, R, Res> {
        SpillBuilder {
            protocol,
            backends: Vec::new(),
            wanted: None,
            budget: Some(Arc::default()),
            total: None,
            name: None,
        }
    }
}

impl<P, R, Res> SpillBuilder<P, R, Res> {
    /// Adds the next backend. The first that was added is the first to be asked.
    pub fn backend(mut self, backend: Backend<R, Res>) -> Self {
        self.backends.push(backend);
        self
    }

    /// Asks the next backend also after answers and errors that a closure does not want. It sees
    /// those that nothing else sends on. Default: all others are wanted.
    pub fn wants<F>(mut self, wants: F) -> Self
    where
        F: Fn(Result<&Res, &BoxError>) -> bool + Send + Sync + 'static,
    {
        self.wanted = Some(Arc::new(wants));
        self
    }

    /// Bounds how often a call that was sent and failed goes to another backend: one token for each
    /// time, earned by answers, as a [retry's](crate::retry::RetryBuilder::budget). What was
    /// rejected before it was sent is free. Default: a budget of its own, of 10 and 0.1 for each
    /// answer. Share it with a retry around this.
    pub fn budget(mut self, budget: impl Into<Arc<Budget>>) -> Self {
        self.budget = Some(budget.into());
        self
    }

    /// Goes on whatever it costs.
    pub fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// Bounds the whole call, all backends together, up to the head of the answer. It is written
    /// into the request as its [`Deadline`](crate::Deadline), if the request has no earlier one.
    /// Default: the request's own.
    pub fn total_timeout(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// Names this instance in errors and events, and makes it known to the
    /// [`Registry`](crate::observe::Registry).
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// # Errors
    /// No backend, two of one name, or a total timeout of zero.
    pub fn build(self) -> Result<Spill<P, R, Res>, ConfigError> {
        let named = |error: ConfigError| error.of("spill", self.name);
        if self.backends.is_empty() {
            return Err(named(ConfigError::new("backend", 0, "add at least one")));
        }
        for (place, backend) in self.backends.iter().enumerate() {
            let mut before = self.backends[..place].iter();
            if before.any(|other| other.name == backend.name) {
                let fix = "give each backend a name of its own";
                return Err(named(ConfigError::new("backend", backend.name, fix)));
            }
        }
        if self.total == Some(Duration::ZERO) {
            let fix = "give calls some time, or leave it";
            return Err(named(ConfigError::new(
                "total_timeout",
                Duration::ZERO,
                fix,
            )));
        }
        let names = self.backends.iter().map(|backend| backend.name);
        let state = Arc::new(State::new(self.name, names));
        register(&state);
        Ok(Spill::new(Shared {
            protocol: self.protocol,
            backends: self.backends,
            wanted: self.wanted,
            budget: self.budget,
            total: self.total,
            state,
        }))
    }
}

impl<P, R, Res> fmt::Debug for SpillBuilder<P, R, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillBuilder")
            .field("backends", &self.backends)
            .finish_non_exhaustive()
    }
}
