//! The layer and its builder.

use std::time::Duration;

use tower::Layer;

use crate::{
    ConfigError, Name,
    observe::register,
    protocol::Plain,
    striped::Striped,
    timeout::{Timeout, TimeoutHandle, state::State},
};

/// Limits how long a call may take.
#[derive(Debug)]
pub struct TimeoutLayer<P = Plain> {
    state: Striped<State>,
    protocol: P,
}

/// Settings of a [`TimeoutLayer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct TimeoutBuilder<P = Plain> {
    duration: Duration,
    enabled: bool,
    total: bool,
    name: Option<&'static str>,
    protocol: P,
}

impl TimeoutLayer {
    /// A little above what the slowest call that is worth waiting for takes: its 99.9th percentile,
    /// say.
    pub fn builder(duration: Duration) -> TimeoutBuilder {
        TimeoutBuilder {
            duration,
            enabled: true,
            total: false,
            name: None,
            protocol: Plain::new(),
        }
    }
}

impl<P> TimeoutLayer<P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> TimeoutHandle {
        TimeoutHandle::new(self.state.clone())
    }
}

impl<P> TimeoutBuilder<P> {
    /// `false` lets calls take as long as they like, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Limits the call as a whole, around retries and all that waits. The wait for the inner
    /// service's readiness then counts as a part of the call, and `poll_ready` is ready meanwhile.
    /// On HTTP the request gets a [`Deadline`](crate::Deadline), which the layers beneath honor.
    /// Default `false`: one attempt.
    pub fn total(mut self, total: bool) -> Self {
        self.total = total;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// How an expiry travels. Default [`Plain`]: as an error.
    pub fn protocol<Q>(self, protocol: Q) -> TimeoutBuilder<Q> {
        TimeoutBuilder {
            duration: self.duration,
            enabled: self.enabled,
            total: self.total,
            name: self.name,
            protocol,
        }
    }

    #[cfg(feature = "http")]
    pub(crate) fn limit(&self) -> Duration {
        self.duration
    }

    /// # Errors
    /// A duration of zero. `Duration::MAX` never ends a call.
    pub fn build(self) -> Result<TimeoutLayer<P>, ConfigError> {
        let state = State::new(self.duration, self.enabled, self.total, self.name)?;
        let state = Striped::new(state);
        register(state.value());
        Ok(TimeoutLayer {
            state,
            protocol: self.protocol,
        })
    }
}

impl<P: Clone> Clone for TimeoutLayer<P> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S, P: Clone> Layer<S> for TimeoutLayer<P> {
    type Service = Timeout<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout::new(inner, self.state.clone(), self.protocol.clone())
    }
}
