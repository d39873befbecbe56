//! The layer and its builder.

use std::{marker::PhantomData, time::Duration};

use tower::{Layer, Service};

use crate::{
    CarryDeadline, ConfigError, Name,
    observe::register,
    protocol::Plain,
    sync::Striped,
    timeout::{
        ResponseFuture, Timeout, TimeoutHandle, TimeoutReach, ToResponse, covers::Covers,
        future::TimedCall, state::State,
    },
};
#[cfg(feature = "http")]
use crate::{
    drain::Drain,
    timeout::{ToBodyEnd, covers::TimerShare},
};

/// A layer that limits how long a call may take.
#[derive(Debug)]
pub struct TimeoutLayer<P = Plain, M = ToResponse> {
    state: Striped<State>,
    protocol: P,
    scope: PhantomData<fn() -> M>,
}

/// Settings of a [`TimeoutLayer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct TimeoutBuilder<P = Plain, M = ToResponse> {
    duration: Duration,
    enabled: bool,
    reach: Covers,
    name: Option<&'static str>,
    protocol: P,
    scope: PhantomData<fn() -> M>,
}

impl TimeoutLayer {
    /// Starts with a limit. Set it a little above the time of the slowest call worth waiting for:
    /// above the 99.9th percentile, say.
    pub fn builder(duration: Duration) -> TimeoutBuilder {
        TimeoutBuilder {
            duration,
            enabled: true,
            reach: Covers::default(),
            name: None,
            protocol: Plain::new(),
            scope: PhantomData,
        }
    }
}

impl<P, M> TimeoutLayer<P, M> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> TimeoutHandle {
        TimeoutHandle::new(self.state.clone())
    }
}

impl<P, M> TimeoutLayer<P, M> {
    #[inline]
    pub(crate) fn shared_protocol(&self) -> &P {
        &self.protocol
    }

    /// Sends a call through the layer, to a service that is ready.
    #[inline]
    pub(crate) fn send<S, Q, Req>(
        &self,
        mut service: S,
        mut request: Req,
        protocol: Q,
    ) -> ResponseFuture<S, Q, Req, M>
    where
        S: Service<Req>,
        Q: CarryDeadline<Req>,
    {
        let state = self.state.here();
        let mut within = TimedCall::of(protocol, state);
        match within.begin(state, &mut request) {
            Ok(limit) => ResponseFuture::sent(service.call(request), limit, within),
            Err(rejected) => ResponseFuture::rejected(rejected, within),
        }
    }
}

impl<P, M> TimeoutBuilder<P, M> {
    /// Sets whether calls are limited. If `false`, they may take any time, with the same type.
    /// Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets whether the limit covers the whole call, with its retries and all waits. The wait for
    /// the inner service's readiness is then part of the call, and `poll_ready` returns ready
    /// meanwhile. An HTTP request gets a [`Deadline`](crate::Deadline), which the layers beneath
    /// honor. Default `false`: one attempt.
    pub fn total(mut self, total: bool) -> Self {
        self.reach.attempts = total;
        self.reach.readiness = total;
        self
    }

    /// Leaves `poll_ready` to the inner service despite `total`. For a stack whose circuit breaker
    /// has backpressure, which a balancer must see.
    #[cfg(feature = "http")]
    pub(crate) fn passes_backpressure(mut self, passes: bool) -> Self {
        self.reach.readiness &= !passes;
        self
    }

    /// Shares one timer between a stack's two timeouts. This one is the total timeout or the
    /// attempt's.
    #[cfg(feature = "http")]
    pub(crate) fn in_stack(mut self) -> Self {
        self.reach.timer = match self.reach.attempts {
            true => TimerShare::Total,
            false => TimerShare::Attempt,
        };
        self
    }

    /// Names this instance in errors and events, and registers it in the
    /// [`Registry`](crate::observe::Registry). Without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// Sets how an expiry is returned. Default [`Plain`]: as an error.
    pub fn protocol<Q>(self, protocol: Q) -> TimeoutBuilder<Q, M> {
        TimeoutBuilder {
            duration: self.duration,
            enabled: self.enabled,
            reach: self.reach,
            name: self.name,
            protocol,
            scope: PhantomData,
        }
    }

    /// Includes the response's body in the call: a peer that stalls, or trickles, after the head
    /// does not hang the reader. When the time is over the body is dropped. Its reader gets the
    /// [`Rejected`](crate::Rejected) as an error whatever the protocol, because the head has
    /// already been returned. The body's error is a [`BoxError`](tower::BoxError).
    ///
    /// The time runs from the call, so every call reads the clock. A slow reader is cut off as
    /// well. Frames read in time, and trailers, are unchanged. Default: the timeout ends with the
    /// head.
    #[cfg(feature = "http")]
    pub fn until_body_end(self) -> TimeoutBuilder<P, ToBodyEnd> {
        TimeoutBuilder {
            duration: self.duration,
            enabled: self.enabled,
            reach: self.reach,
            name: self.name,
            protocol: self.protocol,
            scope: PhantomData,
        }
    }

    /// Ends a call whose first byte does not arrive within `duration`. It runs from the call to the
    /// first body frame that holds any data, whenever the head arrives. An example is a stream
    /// whose head arrives at once, and whose first words take time. Default: no limit but that of
    /// the whole call.
    ///
    /// The timeout then covers the [body to its end](Self::until_body_end), so the builder's
    /// duration also ends a stream that still sends. A reader that has not polled is not cut off.
    #[cfg(feature = "http")]
    pub fn first_byte(mut self, duration: Duration) -> TimeoutBuilder<P, ToBodyEnd> {
        self.reach.first_byte = Some(duration);
        self.until_body_end()
    }

    /// Ends a call whose next frame does not arrive within `duration` after the one before, or
    /// after the head. The time runs while the reader waits, so it does not cut off a slow reader.
    /// With [`first_byte`](Self::first_byte) it begins with the first byte. Default: none.
    ///
    /// The timeout then covers the [body to its end](Self::until_body_end), so the builder's
    /// duration also ends a stream that still sends.
    #[cfg(feature = "http")]
    pub fn between_frames(mut self, duration: Duration) -> TimeoutBuilder<P, ToBodyEnd> {
        self.reach.between_frames = Some(duration);
        self.until_body_end()
    }

    #[cfg(feature = "http")]
    pub(crate) fn limit(&self) -> Duration {
        self.duration
    }

    /// Builds the layer. A `Duration::MAX` never ends a call.
    ///
    /// # Errors
    /// One of the durations is zero.
    pub fn build(self) -> Result<TimeoutLayer<P, M>, ConfigError>
    where
        M: TimeoutReach,
    {
        self.made(|state| state)
    }

    /// Builds the layer of a stack: it counts the stack's calls, and rejects new ones while
    /// draining.
    #[cfg(feature = "http")]
    pub(crate) fn build_drained(self, drain: Drain) -> Result<TimeoutLayer<P, M>, ConfigError>
    where
        M: TimeoutReach,
    {
        self.made(|state| state.drained_by(drain))
    }

    fn made(self, change: impl FnOnce(State) -> State) -> Result<TimeoutLayer<P, M>, ConfigError>
    where
        M: TimeoutReach,
    {
        let reach = Covers {
            body: M::COVERS_BODY,
            ..self.reach
        };
        for (field, duration) in [
            ("first_byte", reach.first_byte),
            ("between_frames", reach.between_frames),
        ] {
            if duration == Some(Duration::ZERO) {
                let fix = "give it some time, or leave it";
                let error = ConfigError::new(field, Duration::ZERO, fix);
                return Err(error.of("timeout", self.name));
            }
        }
        let state = State::new(self.duration, self.enabled, reach, self.name)?;
        let state = Striped::new(change(state));
        register(state.value());
        state.number().register(state.value());
        Ok(TimeoutLayer {
            state,
            protocol: self.protocol,
            scope: PhantomData,
        })
    }
}

impl<P: Clone, M> Clone for TimeoutLayer<P, M> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            protocol: self.protocol.clone(),
            scope: PhantomData,
        }
    }
}

impl<S, P: Clone, M> Layer<S> for TimeoutLayer<P, M> {
    type Service = Timeout<S, P, M>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout::new(inner, self.state.clone(), self.protocol.clone())
    }
}
