//! The layer and its builder.

use tower::{Layer, Service};

use crate::{
    ConfigError, Name,
    fallback::{
        Answer, Backup, Fallback, FallbackHandle, OnlyWhen, Passed, ResponseFuture, Value, With,
        service::send,
        state::{Settings, State},
    },
    observe::register,
    protocol::{Choice, Chosen, Plain, Protocol, Unset},
    sync::Striped,
};

/// A layer that gives another answer to calls that have failed. All services it makes, and all
/// their clones, share the counts.
#[derive(Debug)]
pub struct FallbackLayer<F, P = Plain> {
    fallback: F,
    state: Striped<State>,
    protocol: P,
}

/// Settings of a [`FallbackLayer`], in any order.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct FallbackBuilder<F, P = Unset> {
    fallback: F,
    settings: Settings,
    protocol: P,
}

impl FallbackLayer<()> {
    /// Starts with two closures. `keep` is `Fn(&Req) -> T`: it takes of a request what the other
    /// answer needs. `answer` is `Fn(T, Result<Res, Err>) -> impl Future<Output = Result<Res,
    /// Err>>`: it makes the answer, or passes the failure on.
    pub fn builder<K, A>(keep: K, answer: A) -> FallbackBuilder<With<K, A>> {
        FallbackBuilder::new(With { keep, answer })
    }

    /// Starts with a fixed response.
    pub fn value<V: Clone>(value: V) -> FallbackBuilder<Value<V>> {
        FallbackBuilder::new(Value(value))
    }

    /// Starts with a backup: the failed call's request is sent to this service. It has the same
    /// requests and responses, and its error becomes that of the layer. The wait for its readiness
    /// has no limit: give it a timeout.
    ///
    /// The request is kept as a [retry](crate::retry) keeps it. Over HTTP its body is recorded
    /// while it streams, so nothing needs to be `Clone`. On [`Plain`] it is cloned, and `Plain`
    /// must say which requests are idempotent. Other requests go to the backup only after a
    /// rejection, or if they were certainly not sent. If the request cannot be made again, or the
    /// backup's readiness fails, the failure is the result.
    pub fn service<B: Clone>(backup: B) -> FallbackBuilder<Backup<B>> {
        FallbackBuilder::new(Backup::new(backup))
    }
}

impl<F, P> FallbackLayer<F, P> {
    pub(crate) fn shared_protocol(&self) -> &P {
        &self.protocol
    }

    /// Sends a call to a service that is ready, with this fallback.
    #[inline]
    pub(crate) fn send<S, Q, Req>(
        &self,
        mut service: S,
        request: Req,
        protocol: Q,
    ) -> ResponseFuture<S, F, Q, Req>
    where
        S: Service<Passed<F, Req, Q>>,
        Q: Protocol<S::Response, S::Error>,
        F: Answer<Req, Q, Q::Response<()>, Q::Error> + Clone,
    {
        send(
            &mut service,
            &self.fallback,
            request,
            (protocol, &self.state),
        )
    }

    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> FallbackHandle {
        FallbackHandle::new(self.state.clone())
    }
}

impl<F> FallbackBuilder<F> {
    fn new(fallback: F) -> Self {
        Self {
            fallback,
            settings: Settings::default(),
            protocol: Unset,
        }
    }
}

impl<F, P> FallbackBuilder<F, P> {
    /// Answers only failures that the closure accepts, `Fn(Result<&Res, &Err>) -> bool`. It sees
    /// the results that the three settings below let through. Default: all. If set several times,
    /// all closures must accept.
    pub fn when<Res, Err, W>(self, when: W) -> FallbackBuilder<OnlyWhen<F, W>, P>
    where
        W: Fn(Result<&Res, &Err>) -> bool,
    {
        FallbackBuilder {
            fallback: OnlyWhen {
                fallback: self.fallback,
                when,
            },
            settings: self.settings,
            protocol: self.protocol,
        }
    }

    /// Sets whether failures get another answer. Default `true`.
    pub fn on_failure(mut self, answer: bool) -> Self {
        self.settings.on_failure = answer;
        self
    }

    /// Sets whether overloads get another answer, such as a 429 of the upstream. Default `true`.
    pub fn on_overload(mut self, answer: bool) -> Self {
        self.settings.on_overload = answer;
        self
    }

    /// Sets whether rejections of layers beneath get another answer. Default `true`.
    pub fn on_rejection(mut self, answer: bool) -> Self {
        self.settings.on_rejection = answer;
        self
    }

    /// Sets whether there are other answers. If `false`, every result is passed on, with the same
    /// type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Names this instance and registers it in the [`Registry`](crate::observe::Registry). Without
    /// a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.settings.name = Some(name.into().as_str());
        self
    }

    /// Sets which results are failures. No default: with [`Plain`] a 503 would be none.
    pub fn protocol<Q>(self, protocol: Q) -> FallbackBuilder<F, Chosen<Q>> {
        FallbackBuilder {
            fallback: self.fallback,
            settings: self.settings,
            protocol: Chosen(protocol),
        }
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// None so far. It returns a `Result` like the other layers' `build`.
    pub fn build(self) -> Result<FallbackLayer<F, P::Protocol>, ConfigError>
    where
        P: Choice,
    {
        let state = Striped::new(State::new(self.settings));
        register(state.value());
        Ok(FallbackLayer {
            fallback: self.fallback,
            state,
            protocol: self.protocol.protocol(),
        })
    }
}

impl<F: Clone, P: Clone> Clone for FallbackLayer<F, P> {
    fn clone(&self) -> Self {
        Self {
            fallback: self.fallback.clone(),
            state: self.state.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S, F: Clone, P: Clone> Layer<S> for FallbackLayer<F, P> {
    type Service = Fallback<S, F, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let (fallback, protocol) = (self.fallback.clone(), self.protocol.clone());
        Fallback::new(inner, fallback, self.state.clone(), protocol)
    }
}
