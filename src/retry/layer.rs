//! The layer and its builder.

use std::{sync::Arc, time::Duration};

use tower::Layer;

use crate::{
    ConfigError,
    algorithm::{Backoff, RetryBudget},
    protocol::Plain,
    retry::{
        Retry, RetryHandle,
        handle::{Policy, State},
    },
};

/// Retries calls. All services it makes, and all their clones, share one budget.
#[derive(Debug)]
pub struct RetryLayer<P = Plain> {
    state: Arc<State>,
    protocol: P,
}

/// Settings of a [`RetryLayer`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RetryBuilder<P = Plain> {
    policy: Policy,
    budget: Budget,
    enabled: bool,
    name: Option<&'static str>,
    protocol: P,
}

/// What pays for the retries of a layer.
#[derive(Debug, Clone)]
enum Budget {
    /// A default one, made by `build`: clones of a builder make layers that share nothing.
    Own,
    Given(Arc<RetryBudget>),
    Unlimited,
}

impl RetryLayer {
    /// Up to three attempts, the second after some 100 to 200 ms, with a budget of 10 that each
    /// success fills by 0.1.
    ///
    /// The protocol must say which requests may be sent again: give one.
    pub fn builder() -> RetryBuilder {
        RetryBuilder {
            policy: Policy::default(),
            budget: Budget::Own,
            enabled: true,
            name: None,
            protocol: Plain::new(),
        }
    }
}

impl<P> RetryLayer<P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> RetryHandle {
        RetryHandle::new(self.state.clone())
    }
}

impl<P> RetryBuilder<P> {
    /// How often a call is sent at most, the first time included. Default 3: more rarely helps, and
    /// multiplies load.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.policy.attempts = attempts;
        self
    }

    /// How long to wait between attempts. Default: from 100 ms, doubling up to 10 s, jittered.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.policy.backoff = backoff;
        self
    }

    /// The longest `Retry-After` that is waited for; beyond it the response is returned. Default 10
    /// s.
    pub fn max_retry_after(mut self, duration: Duration) -> Self {
        self.policy.max_retry_after = duration;
        self
    }

    /// What pays for retries. Default: a budget of 10 of this layer's own. Layers that call the
    /// same peer may share one: pass clones of an `Arc`.
    pub fn budget(mut self, budget: impl Into<Arc<RetryBudget>>) -> Self {
        self.budget = Budget::Given(budget.into());
        self
    }

    /// Retries without limit of the whole. With it a peer that fails gets up to `attempts` times
    /// its load, just then.
    pub fn without_budget(mut self) -> Self {
        self.budget = Budget::Unlimited;
        self
    }

    /// `false` sends everything once, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Which results may be retried, and which requests. No default: see
    /// [`Replay`](crate::protocol::Replay).
    pub fn protocol<Q>(self, protocol: Q) -> RetryBuilder<Q> {
        RetryBuilder {
            policy: self.policy,
            budget: self.budget,
            enabled: self.enabled,
            name: self.name,
            protocol,
        }
    }

    /// How long a hint may be that is waited for.
    #[cfg(feature = "http")]
    pub(crate) fn retry_after_cap(&self) -> Duration {
        self.policy.max_retry_after
    }

    /// Lowers the default of that; what was set stays.
    #[cfg(feature = "http")]
    pub(crate) fn cap_retry_after(mut self, cap: Duration) -> Self {
        if self.policy.max_retry_after == Policy::default().max_retry_after {
            self.policy.max_retry_after = self.policy.max_retry_after.min(cap);
        }
        self
    }

    /// # Errors
    /// No attempts.
    pub fn build(self) -> Result<RetryLayer<P>, ConfigError> {
        let mut policy = self.policy;
        if policy.attempts == 0 {
            return Err(ConfigError::new(
                "attempts",
                0,
                "send each call at least once; 3 is the default",
            )
            .of("retry", self.name));
        }
        if !self.enabled {
            policy.attempts = 1;
        }
        let budget = match self.budget {
            Budget::Own => Some(Arc::default()),
            Budget::Given(budget) => Some(budget),
            Budget::Unlimited => None,
        };
        Ok(RetryLayer {
            state: Arc::new(State::new(policy, budget)),
            protocol: self.protocol,
        })
    }
}

impl<P: Clone> Clone for RetryLayer<P> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S: Clone, P: Clone> Layer<S> for RetryLayer<P> {
    type Service = Retry<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, self.state.clone(), self.protocol.clone())
    }
}
