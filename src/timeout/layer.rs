//! The layer and its builder.

use std::{marker::PhantomData, time::Duration};

use tower::{Layer, Service};

use crate::{
    CarryDeadline, ConfigError, Name,
    observe::register,
    protocol::Plain,
    sync::Striped,
    timeout::{
        ResponseFuture, Timeout, TimeoutHandle, TimeoutReach, ToResponse,
        future::Within,
        state::{Covers, State},
    },
};
#[cfg(feature = "http")]
use crate::{
    drain::Drain,
    timeout::{ToBodyEnd, state::TimerShare},
};

/// Limits how long a call may take.
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
    /// A little above what the slowest call that is worth waiting for takes: its 99.9th percentile,
    /// say.
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
        let state = self.state.for_call();
        match Within::enter(protocol, state, &mut request) {
            Ok((limit, within)) => ResponseFuture::sent(service.call(request), limit, within),
            Err((rejected, within)) => ResponseFuture::rejected(rejected, within),
        }
    }
}

impl<P, M> TimeoutBuilder<P, M> {
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
        self.reach.attempts = total;
        self.reach.readiness = total;
        self
    }

    /// Leaves `poll_ready` to the inner service all the same: for a stack whose circuit breaker has
    /// backpressure, which a balancer must see.
    #[cfg(feature = "http")]
    pub(crate) fn passes_backpressure(mut self, passes: bool) -> Self {
        self.reach.readiness &= !passes;
        self
    }

    /// Shares one timer between a stack's two timeouts: this is the total one, or an attempt's.
    #[cfg(feature = "http")]
    pub(crate) fn in_stack(mut self) -> Self {
        self.reach.timer = match self.reach.attempts {
            true => TimerShare::Total,
            false => TimerShare::Attempt,
        };
        self
    }

    /// Names this instance in errors and events, and makes it known to the
    /// [`Registry`](crate::observe::Registry): without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into().as_str());
        self
    }

    /// How an expiry travels. Default [`Plain`]: as an error.
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

    /// Counts the response's body as a part of the call: a peer that stalls, or trickles, after the
    /// head does not hang the reader. When the time is up the body is dropped, and its reader gets
    /// the [`Rejected`](crate::Rejected) as an error, whatever the protocol: by then the head is
    /// gone. The body's error is a [`BoxError`](tower::BoxError). The time runs from the call, so
    /// every call reads the clock. A reader that is slow is cut off as well; frames read in time,
    /// and trailers, are unchanged. Default: the timeout ends with the head.
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

    /// Ends a call whose first byte does not come in so long: from the call to the first frame of
    /// the body that has any, whatever the head does. A stream whose head is there at once, and
    /// whose first words take time, is such a call. Default: none but that of all of it.
    ///
    /// The timeout reaches [to the end of the body](Self::until_body_end) then, and the builder's
    /// duration is that of all of it. A reader that has not polled is not cut off.
    #[cfg(feature = "http")]
    pub fn first_byte(mut self, duration: Duration) -> TimeoutBuilder<P, ToBodyEnd> {
        self.reach.first_byte = Some(duration);
        self.until_body_end()
    }

    /// Ends a call whose next frame does not come in so long after the one before, or after the
    /// head. The time runs while the reader waits, so a slow reader is not cut off by it. With
    /// [`first_byte`](Self::first_byte) it begins with the first byte. Default: none.
    ///
    /// The timeout reaches [to the end of the body](Self::until_body_end) then.
    #[cfg(feature = "http")]
    pub fn between_frames(mut self, duration: Duration) -> TimeoutBuilder<P, ToBodyEnd> {
        self.reach.between_frames = Some(duration);
        self.until_body_end()
    }

    #[cfg(feature = "http")]
    pub(crate) fn limit(&self) -> Duration {
        self.duration
    }

    /// # Errors
    /// A duration of zero, of any of the times. `Duration::MAX` never ends a call.
    pub fn build(self) -> Result<TimeoutLayer<P, M>, ConfigError>
    where
        M: TimeoutReach,
    {
        self.made(|state| state)
    }

    /// One that counts the calls of a stack, and rejects new ones while that is drained.
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
