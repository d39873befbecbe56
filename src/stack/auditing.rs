//! Audits within a stack: gates that only mark calls.

use tower::layer::util::Stack;

use super::{ClientStack, ServerStack, saying::BySettings};
use crate::gate::{AuditLayer, Gate, Shadow};

/// The audits of a stack: `A`, and within it the gates `C`.
pub type Audits<A, C, P> = Stack<AuditLayer<BySettings<C, P>, P>, A>;

impl<P: Clone, W, R, G, F, A> ClientStack<P, W, R, G, F, A> {
    /// Audits gates on each attempt that the stack sends. They reject nothing, and mark each
    /// attempt that they would reject, as an [`AuditLayer`] does: in the extensions of the request
    /// and of its response. Over HTTP and gRPC. See
    /// [`ServerStack::audit`](super::ServerStack::audit).
    ///
    /// ```
    /// use tower_keep::{gate::Shadow, rate_limit::{Rate, RateLimitLayer}, stack};
    ///
    /// let quota = RateLimitLayer::builder(Rate::per_second(10)).per_host().gate()?;
    /// let quota = Shadow::new(quota, "ten a second");
    /// let trial = quota.handle();
    /// let stack = stack::client().http().build()?.audit(quota);
    /// assert_eq!(trial.snapshot().calls, 0);
    /// # let _ = stack;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    #[must_use]
    pub fn audit<C: Gate>(self, trial: Shadow<C>) -> ClientStack<P, W, R, G, F, Audits<A, C, P>> {
        ClientStack {
            total: self.total,
            resend: self.resend,
            gates: self.gates,
            attempt: self.attempt,
            audit: audits(self.audit, trial, &self.protocol),
            fallback: self.fallback,
            protocol: self.protocol,
            known: self.known,
            by: self.by,
        }
    }
}

impl<P: Clone, G, F, A> ServerStack<P, G, F, A> {
    /// Audits gates on the calls that the stack admits. They reject nothing, and mark each call
    /// that they would reject, as an [`AuditLayer`] does. The handler sees the mark in the
    /// request's extensions, and the caller the field `x-would-reject`. Over HTTP and gRPC.
    ///
    /// Any gate can be audited: a planned rate, a bulkhead by tenant, several as a tuple. To audit
    /// a limit before a stack enforces it, leave it out of the stack.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_keep::{gate::Shadow, rate_limit::{Rate, RateLimitLayer}, stack};
    ///
    /// let limit = RateLimitLayer::builder(Rate::per_second(10)).gate()?;
    /// let limit = Shadow::new(limit, "ten a second");
    /// let trial = limit.handle();
    /// let stack = stack::server().http().max_in_flight(100).build()?.audit(limit);
    /// let app: Router = Router::new().route("/", get(async || "hello")).layer(stack);
    /// assert_eq!(trial.snapshot().calls, 0);
    /// # let _ = app;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    #[must_use]
    pub fn audit<C: Gate>(self, trial: Shadow<C>) -> ServerStack<P, G, F, Audits<A, C, P>> {
        ServerStack {
            gates: self.gates,
            timeout: self.timeout,
            audit: audits(self.audit, trial, &self.protocol),
            fallback: self.fallback,
            protocol: self.protocol,
            answers: self.answers,
            name: self.name,
            updating: self.updating,
        }
    }
}

/// Adds gates to the audits.
fn audits<A, C: Gate, P: Clone>(audit: A, trial: Shadow<C>, protocol: &P) -> Audits<A, C, P> {
    let trial = trial.within(|gate| BySettings::new(gate, protocol.clone()));
    Stack::new(AuditLayer::of(trial, protocol.clone()), audit)
}
