//! The event that a retry reports.

use std::{any::Any, error::Error, fmt, sync::Arc, time::Duration};

use crate::Outcome;

/// A retry that is planned, as [`on_retry`](super::RetryBuilder::on_retry) receives it.
///
/// Displayed as what was wrong with the attempt before.
#[non_exhaustive]
pub struct RetryEvent<'a> {
    /// The layer's name.
    pub name: Option<&'static str>,
    /// The number of the attempt that was no success, from 1.
    pub attempt: u32,
    /// The wait before the next attempt.
    pub wait: Duration,
    /// The protocol's verdict on the result. [`Ignore`](Outcome::Ignore) for a rejection by a layer
    /// beneath.
    pub outcome: Outcome,
    /// The status of the HTTP response, if there was one.
    pub status: Option<u16>,
    /// The error, if there was one that can be read as an `Error`.
    pub error: Option<&'a (dyn Error + 'static)>,
    pub(super) request: Option<&'a dyn Any>,
    pub(super) words: &'a dyn Fn() -> String,
}

impl<'a> RetryEvent<'a> {
    /// Returns the request's head, if the protocol keeps one of the type `T`. The clients of
    /// `protocol::http` and `grpc` keep an [`http::request::Parts`].
    #[must_use]
    pub fn request<T: 'static>(&self) -> Option<&'a T> {
        self.request?.downcast_ref()
    }
}

impl fmt::Display for RetryEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.words)())
    }
}

impl fmt::Debug for RetryEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryEvent")
            .field("name", &self.name)
            .field("attempt", &self.attempt)
            .field("wait", &self.wait)
            .field("outcome", &self.outcome)
            .field("status", &self.status)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// The closure that a user wants called at each retry.
#[derive(Clone, Default)]
pub(super) struct Hook(Option<Arc<Closure>>);

type Closure = dyn Fn(&RetryEvent<'_>) + Send + Sync;

impl Hook {
    pub(super) fn new(hook: impl Fn(&RetryEvent<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn tell(&self, event: &RetryEvent<'_>) {
        if let Some(hook) = &self.0 {
            hook(event);
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() {
            "a closure"
        } else {
            "nothing"
        })
    }
}
