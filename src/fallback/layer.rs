//! The layer and its builder.

use tower::Layer;

use crate::{
    Name,
    fallback::{
        Fallback, FallbackHandle,
        state::{Settings, State, With},
    },
    observe::register,
    protocol::{Choice, Chosen, Plain, Unset},
    striped::Striped,
};

/// Answers calls that have failed otherwise. All services it makes, and all their clones, share the
/// counts.
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
    /// `keep` takes of a request what the other answer needs: a closure `Fn(&Req) -> T`. `answer`
    /// makes that, or passes the failure on: a closure `Fn(T, Result<Res, Err>) -> impl
    /// Future<Output = Result<Res, Err>>`.
    pub fn builder<K, A>(keep: K, answer: A) -> FallbackBuilder<With<K, A>> {
        FallbackBuilder {
            fallback: With { keep, answer },
            settings: Settings {
                enabled: true,
                on_failure: true,
                on_overload: true,
                on_rejection: true,
                name: None,
            },
            protocol: Unset,
        }
    }
}

impl<F, P> FallbackLayer<F, P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> FallbackHandle {
        FallbackHandle::new(self.state.clone())
    }
}

impl<F, P> FallbackBuilder<F, P> {
    /// Whether failures are answered otherwise. Default `true`.
    pub fn on_failure(mut self, answer: bool) -> Self {
        self.settings.on_failure = answer;
        self
    }

    /// Whether an upstream's "too much", such as a 429, is answered otherwise. Default `true`.
    pub fn on_overload(mut self, answer: bool) -> Self {
        self.settings.on_overload = answer;
        self
    }

    /// Whether rejections of layers beneath are answered otherwise. Default `true`.
    pub fn on_rejection(mut self, answer: bool) -> Self {
        self.settings.on_rejection = answer;
        self
    }

    /// `false` passes every result on, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Names this instance in metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.settings.name = Some(name.into().as_str());
        self
    }

    /// Which results are failures. No default: with [`Plain`] a 503 would be none.
    pub fn protocol<Q>(self, protocol: Q) -> FallbackBuilder<F, Chosen<Q>> {
        FallbackBuilder {
            fallback: self.fallback,
            settings: self.settings,
            protocol: Chosen(protocol),
        }
    }

    /// Nothing of it can be wrong.
    #[must_use]
    pub fn build(self) -> FallbackLayer<F, P::Protocol>
    where
        P: Choice,
    {
        let state = Striped::new(State::new(self.settings));
        register(state.value());
        FallbackLayer {
            fallback: self.fallback,
            state,
            protocol: self.protocol.protocol(),
        }
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
