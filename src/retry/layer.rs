//! The layer and its builder.

use std::{sync::Arc, time::Duration};

use tower::Layer;

use crate::{
    ConfigError, Name,
    algorithm::{Backoff, Budget},
    observe::register,
    protocol::{Choice, Chosen, Plain, Unset},
    retry::{
        Policy, Retry, RetryHandle,
        state::{Fixed, State},
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
pub struct RetryBuilder<P = Unset> {
    policy: Policy,
    payer: Payer,
    fixed: Fixed,
    protocol: P,
}

/// What pays for the retries of a layer.
#[derive(Debug, Clone)]
enum Payer {
    /// A default budget, made by `build`: clones of a builder make layers that share nothing.
    Own,
    Given(Arc<Budget>),
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
            payer: Payer::Own,
            fixed: Fixed {
                enabled: true,
                retry_rejected: false,
                name: None,
            },
            protocol: Unset,
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
    /// The largest number of times that a call is sent, the first time included. Default 3.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.policy = self.policy.attempts(attempts);
        self
    }

    /// How long to wait between attempts. Default: from 100 ms, doubling up to 10 s, jittered.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.policy = self.policy.backoff(backoff);
        self
    }

    /// The longest `Retry-After` that is waited for; beyond it the response is returned. Default 10
    /// s.
    pub fn max_retry_after(mut self, duration: Duration) -> Self {
        self.policy = self.policy.max_retry_after(duration);
        self
    }

    /// What pays for retries: any [`Budget`]. Layers that call the same upstream may share one:
    /// pass clones of an `Arc<Budget>`.
    ///
    /// Default: a [`RetryBudget`](crate::algorithm::RetryBudget) of 10 of this layer's own, of
    /// which it keeps what ten seconds of its successes pay, and one token at least. So a client of
    /// a call a second has one retry to spend in an outage, and one of ten a second has ten. A
    /// budget that you pass keeps all its tokens.
    pub fn budget(mut self, budget: impl Into<Arc<Budget>>) -> Self {
        self.payer = Payer::Given(budget.into());
        self
    }

    /// Retries without a limit for all calls together. An upstream that fails gets up to `attempts`
    /// times its load by it, just then.
    pub fn without_budget(mut self) -> Self {
        self.payer = Payer::Unlimited;
        self
    }

    /// Retries rejections of the layers beneath as well: an open circuit, a rate limit, a full
    /// bulkhead. The wait is what the rejection says, if that is within `max_retry_after` and the
    /// deadline. The first such retry of a call needs no token. Default `false`: most such calls
    /// are better answered at once.
    pub fn retry_rejected(mut self, retry: bool) -> Self {
        self.fixed.retry_rejected = retry;
        self
    }

    /// `false` sends everything once, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.fixed.enabled = enabled;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.fixed.name = Some(name.into().as_str());
        self
    }

    /// Which results may be retried, and which requests. No default: see
    /// [`Replay`](crate::protocol::Replay).
    pub fn protocol<Q>(self, protocol: Q) -> RetryBuilder<Chosen<Q>> {
        RetryBuilder {
            policy: self.policy,
            payer: self.payer,
            fixed: self.fixed,
            protocol: Chosen(protocol),
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
    pub fn build(self) -> Result<RetryLayer<P::Protocol>, ConfigError>
    where
        P: Choice,
    {
        let policy = self.policy.check(self.fixed.name)?;
        let (budget, owned) = match self.payer {
            Payer::Own => (Some(Arc::default()), true),
            Payer::Given(budget) => (Some(budget), false),
            Payer::Unlimited => (None, false),
        };
        let state = Arc::new(State::new(policy, budget, owned, self.fixed));
        register(&state);
        Ok(RetryLayer {
            state,
            protocol: self.protocol.protocol(),
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
