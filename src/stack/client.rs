//! A client's stack.

use std::marker::PhantomData;

use tower::{Layer, layer::util::Identity};

use super::{
    ClientGates, ClientHandle,
    handle::Enabled,
    resend::Retries,
    service::{GatedAttempt, InStack},
    timed::{Sending, WithDeadline},
    updating::Updating,
};
use crate::{
    budget::BudgetsHandle,
    drain::Drain,
    fallback::FallbackHandle,
    gate::{Chain, Controlled, FindKey, GateLayer, Keyed},
    hedge::HedgeHandle,
    keyed::{ByHost, HasKey, Host},
    retry::RetryHandle,
    throttle::ThrottleGate,
    timeout::TimeoutLayer,
};

/// A stack that protects a client: see [the module](super). All services it makes, and all their
/// clones, share its state.
///
/// `P` is the protocol. `W` distinguishes hosts, or [does not](AnyHost). `R` sends calls again, `G`
/// are the gates, and `F` is the fallback. Their defaults are those of `stack::client().http()`.
/// The [guide](crate::guide::keeping) shows how to name the types of other stacks.
#[derive(Debug, Clone)]
pub struct ClientStack<
    P,
    W = ByHost,
    R = Retries<P, W>,
    G = ClientGates<W>,
    F = Identity,
    A = Identity,
> {
    pub(super) total: TimeoutLayer<WithDeadline<P>>,
    pub(super) resend: R,
    pub(super) gates: GateLayer<G, WithDeadline<P>>,
    pub(super) attempt: TimeoutLayer<WithDeadline<P>>,
    pub(super) audit: A,
    pub(super) fallback: F,
    pub(super) protocol: P,
    pub(super) known: Known,
    pub(super) by: PhantomData<fn() -> W>,
}

/// The part of a client's handle that is not in its layers.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) retry: RetryHandle,
    pub(super) hedge: Option<HedgeHandle>,
    pub(super) budgets: BudgetsHandle<Host>,
    pub(super) fallback: Option<FallbackHandle>,
    pub(super) drain: Drain,
    pub(super) name: Option<&'static str>,
    pub(super) updating: Updating,
    pub(super) enabled: Enabled,
}

/// A marker: all requests go to the same upstream, or to upstreams that fail together.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyHost;

impl HasKey for AnyHost {
    type Key = Host;
}

impl<Req> FindKey<Req, Host> for AnyHost {
    fn find(&self, _: &Req) -> Option<Host> {
        None
    }
}

impl<P, W: HasKey<Key = Host>, R, L: Controlled, B: Controlled, F, A>
    ClientStack<P, W, R, ClientGates<W, L, B>, F, A>
{
    /// Returns the handle of all parts.
    #[must_use]
    pub fn handle(&self) -> ClientHandle<L::Handle, B::Handle> {
        let Chain {
            first: breaker,
            second:
                Chain {
                    first: throttle,
                    second:
                        Chain {
                            first: limit,
                            second: bulkhead,
                        },
                },
        } = &self.gates.gate().0;
        let known = self.known.clone();
        ClientHandle {
            total_timeout: self.total.handle(),
            retry: known.retry,
            hedge: known.hedge,
            retry_budgets: known.budgets,
            circuit_breaker: breaker.handle(),
            throttle: throttle.as_ref().map(Keyed::<W, ThrottleGate>::handle),
            rate_limit: limit.control_if_on(),
            limit: limit.control(),
            bulkhead: bulkhead.control(),
            attempt_timeout: self.attempt.handle(),
            fallback: known.fallback,
            drain: known.drain,
            name: known.name,
            updating: known.updating,
            enabled: known.enabled,
        }
    }
}

impl<S, P: Clone, W, R, G, F, A> Layer<S> for ClientStack<P, W, R, G, F, A>
where
    A: Layer<S>,
    R: Layer<GatedAttempt<A::Service, P, G>>,
    F: Layer<InStack<A::Service, P, W, R::Service>>,
{
    type Service = F::Service;

    fn layer(&self, inner: S) -> Self::Service {
        let audited = self.audit.layer(inner);
        let sending = Sending::new(audited, self.protocol.clone());
        let attempts = self.gates.layer(self.attempt.layer(sending));
        let layers = self.total.layer(self.resend.layer(attempts));
        self.fallback
            .layer(InStack::new(layers, self.protocol.clone()))
    }
}
