//! A client's bulkhead, a gate on trial, and a fallback.

use std::hash::Hash;

use tower::layer::util::Identity;

use super::{CallsPart, Own, named};
use crate::{
    ConfigError,
    bulkhead::{BulkheadBuilder, BulkheadGate, LimitByKey},
    fallback::{FallbackBuilder, FallbackHandle, FallbackLayer},
    gate::{Asking, Asks, Chain, Controlled, Gate, Keyed, Shadow},
    keyed::{HasKey, Host, NotKeyed},
    protocol::Plain,
};

/// The source of a client's bulkhead: the stack's own settings, or a builder. Without its own keys
/// there is a bulkhead for each host, which `W` finds.
pub trait ClientBulkheadPart<W> {
    /// The gate.
    type Gate: Gate;

    /// Makes the gate. `own` are the stack's own settings.
    fn places(
        self,
        own: CallsPart,
        host: W,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError>;
}

/// A gate next to the innermost one of a stack, or none.
pub trait Beside {
    /// Both gates together.
    type With<G: Gate>: Gate;

    /// Adds the gate.
    fn beside<G: Gate>(self, gate: G) -> Self::With<G>;
}

/// A fallback around a stack of the protocol `P`, or none.
pub trait FallbackPart<P> {
    /// The layer.
    type Layer;

    /// Makes the layer.
    fn layer(
        self,
        protocol: &P,
        name: Option<&'static str>,
    ) -> Result<Answering<Self::Layer>, ConfigError>;
}

/// A builder's state: no gate is on trial.
#[derive(Debug, Clone, Copy, Default)]
pub struct Untried;

/// A builder's state: there is no fallback.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFallback;

/// A layer, and its handle if it is a fallback.
pub(in crate::stack) type Answering<L> = (L, Option<FallbackHandle>);

impl<W> ClientBulkheadPart<W> for Own
where
    W: HasKey<Key = Host> + Clone,
{
    type Gate = Asking<Keyed<W, BulkheadGate>>;

    fn places(
        self,
        own: CallsPart,
        host: W,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError> {
        let host = own.hosts.by(host);
        let builder = own.builder_or_any(name)?;
        let builder = named(builder, name, BulkheadBuilder::name);
        builder.with_key(LimitByKey::from(host)).gate()
    }
}

impl<W, A> ClientBulkheadPart<W> for BulkheadBuilder<NotKeyed, Plain, A>
where
    W: HasKey<Key = Host> + Clone,
    A: Asks + Clone,
{
    type Gate = Asking<Keyed<W, BulkheadGate>, A>;

    fn places(
        self,
        own: CallsPart,
        host: W,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError> {
        let builder = own.given(self, name)?.key_settings(own.hosts.keys);
        builder
            .with_key(LimitByKey::from(own.hosts.by(host)))
            .gate()
    }
}

impl<W, F, A> ClientBulkheadPart<W> for BulkheadBuilder<LimitByKey<F>, Plain, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static> + Clone,
    A: Asks + Clone,
{
    type Gate = Asking<Keyed<F, BulkheadGate>, A>;

    fn places(
        self,
        own: CallsPart,
        _: W,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError> {
        own.given(self, name)?.gate()
    }
}

impl<W> ClientBulkheadPart<W> for Option<BulkheadBuilder>
where
    W: HasKey<Key = Host> + Clone,
{
    type Gate = Asking<Keyed<W, BulkheadGate>>;

    fn places(
        self,
        own: CallsPart,
        host: W,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError> {
        match self {
            Some(builder) => builder.places(own, host, name),
            None => Own.places(own, host, name),
        }
    }
}

impl Beside for Untried {
    type With<G: Gate> = G;

    fn beside<G: Gate>(self, gate: G) -> G {
        gate
    }
}

impl<C: Gate> Beside for Shadow<C> {
    type With<G: Gate> = Chain<G, Self>;

    fn beside<G: Gate>(self, gate: G) -> Chain<G, Self> {
        Chain::new(gate, self)
    }
}

impl<P> FallbackPart<P> for NoFallback {
    type Layer = Identity;

    fn layer(self, _: &P, _: Option<&'static str>) -> Result<Answering<Identity>, ConfigError> {
        Ok((Identity::new(), None))
    }
}

impl<F, P: Clone> FallbackPart<P> for FallbackBuilder<F> {
    type Layer = FallbackLayer<F, P>;

    fn layer(
        self,
        protocol: &P,
        name: Option<&'static str>,
    ) -> Result<Answering<Self::Layer>, ConfigError> {
        let builder = named(self, name, Self::name);
        let layer = builder.protocol(protocol.clone()).build()?;
        let handle = layer.handle();
        Ok((layer, Some(handle)))
    }
}

impl<G: Controlled, C> Controlled for Chain<G, Shadow<C>> {
    type Handle = G::Handle;

    fn control(&self) -> Self::Handle {
        self.first.control()
    }
}
