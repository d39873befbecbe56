//! The builder of a list of backends.

use std::{fmt, sync::Arc, time::Duration};

use tower::BoxError;

use super::{
    backend::Backend,
    service::Spill,
    shared::{Shared, Wanted},
    state::State,
};
use crate::{
    ConfigError, Name,
    algorithm::{Budget, RetryBudget},
    observe::register,
};

/// Settings of a [`Spill`], in any order, except that its backends are tried in theirs.
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
    /// Starts with no backend. The protocol reads results and keeps requests, like that of a retry.
    pub fn builder(protocol: P) -> SpillBuilder<P, R, Res> {
        SpillBuilder {
            protocol,
            backends: Vec::new(),
            wanted: None,
            budget: Some(Arc::new(RetryBudget::of_backends().into())),
            total: None,
            name: None,
        }
    }
}

impl<P, R, Res> SpillBuilder<P, R, Res> {
    /// Adds the next backend. They are tried in the order in which they were added.
    pub fn backend(mut self, backend: Backend<R, Res>) -> Self {
        self.backends.push(backend);
        self
    }

    /// Also tries the next backend after answers and errors that a closure does not want. It sees
    /// those results for which no other rule tries the next one. Default: all of them are wanted.
    pub fn wants<F>(mut self, wants: F) -> Self
    where
        F: Fn(Result<&Res, &BoxError>) -> bool + Send + Sync + 'static,
    {
        self.wanted = Some(Arc::new(wants));
        self
    }

    /// Sets the budget for calls that were sent, failed, and go to another backend. Each time costs
    /// a token, and answers earn tokens, as in a [retry's](crate::retry::RetryBuilder::budget). A
    /// call that was rejected before it was sent costs none. Default: its own budget of 1000
    /// tokens, with one for each answer. Share one with a retry around this.
    ///
    /// A retry's ten tokens are too few here. All calls in flight at a backend fail when it does,
    /// and each needs a token to go on. They go to other backends, so the budget only ends what
    /// goes on while all of them fail.
    pub fn budget(mut self, budget: impl Into<Arc<Budget>>) -> Self {
        self.budget = Some(budget.into());
        self
    }

    /// Tries further backends without a budget.
    pub fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// Limits the whole call, with all backends, up to the head of the answer. It is written into
    /// the request as its [`Deadline`](crate::Deadline), unless the request has an earlier one.
    /// Default: the request's own deadline.
    pub fn total_timeout(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// Names this instance in errors and events, and registers it in the
    /// [`Registry`](crate::observe::Registry).
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// Builds the service.
    ///
    /// # Errors
    /// No backend, two with the same name, or a total timeout of zero.
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
