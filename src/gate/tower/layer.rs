//! The layer.

use std::fmt;

use tower::{Layer, Service};

use crate::{
    gate::{
        Admit, Controlled, Demand, Gate, Gated, IntoGate, ResponseFuture,
        tower::{deferred::Telling, service::Inner},
    },
    protocol::{Plain, Unset},
    sync::Striped,
};

/// A layer of one gate or several. All its services, and all their clones, share one state.
pub struct GateLayer<G, P = Plain> {
    gate: Striped<G>,
    protocol: P,
}

impl<G: Gate> GateLayer<G, Unset> {
    /// Creates a layer of one gate, or of a tuple of up to four, from the outside in. Choose the
    /// [protocol](Self::protocol) next: without one, the layer makes no services.
    #[must_use]
    pub fn new(gates: impl IntoGate<Gate = G>) -> Self {
        Self::with_protocol(gates.into_gate(), Unset)
    }
}

impl<G, P> GateLayer<G, P> {
    pub(crate) fn with_protocol(gate: G, protocol: P) -> Self {
        Self {
            gate: Striped::new(gate),
            protocol,
        }
    }

    /// Sets how results are classified and how rejections are returned. There is no default.
    #[must_use]
    pub fn protocol<Q>(self, protocol: Q) -> GateLayer<G, Q> {
        GateLayer {
            gate: self.gate,
            protocol,
        }
    }

    pub(crate) fn shared_protocol(&self) -> &P {
        &self.protocol
    }

    pub(in crate::gate) fn into_protocol(self) -> P {
        self.protocol
    }

    pub(crate) fn gate(&self) -> &G {
        &self.gate
    }

    /// Sends a call through the gates, to a service that is ready and cheap to clone.
    #[inline]
    pub(crate) fn send<S, Q, Req>(
        &self,
        service: S,
        request: Req,
        demand: Demand,
        protocol: Q,
    ) -> ResponseFuture<S, G, Q, Req>
    where
        S: Service<Req> + Clone,
        G: Admit<Req>,
    {
        let protocol = (protocol, Telling::nobody());
        Inner::ready(service).enter(&self.gate, request, demand, protocol, drop)
    }
}

impl<G: Controlled, P> GateLayer<G, P> {
    /// Returns the handle: of a rate limit, circuit breaker, bulkhead or throttle, of a keyed one,
    /// or of a trial.
    #[must_use]
    pub fn handle(&self) -> G::Handle {
        self.gate().control()
    }
}

impl<G, P: Clone> Clone for GateLayer<G, P> {
    fn clone(&self) -> Self {
        Self {
            gate: self.gate.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

impl<S, G, P: Clone> Layer<S> for GateLayer<G, P> {
    type Service = Gated<S, G, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.gate.clone(), self.protocol.clone())
    }
}

impl<G: fmt::Debug, P> fmt::Debug for GateLayer<G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateLayer")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
