//! The short names of the layers and of what they make.

use crate::{
    bulkhead::BulkheadGate,
    gate::{
        Asking, GateLayer, Gated, Keyed, KeyedHandle, Permit as GatePermit,
        ResponseFuture as GateFuture,
    },
    protocol::Plain,
};

/// Limits how many calls run at once. All services it makes, and all their clones, share the one
/// limit.
pub type BulkheadLayer<P = Plain, A = ()> = GateLayer<Asking<BulkheadGate, A>, P>;

/// A bulkhead for each host, route or tenant, so that one that hangs takes the places of no other.
///
/// Made by [`keyed_by`](super::BulkheadBuilder::keyed_by). At most
/// [`max_keys`](super::BulkheadBuilder::max_keys) of them: a new key past that takes the place of
/// one in which nothing is in flight, or else shares one with others.
pub type KeyedBulkheadLayer<F, P = Plain, A = ()> = GateLayer<Asking<Keyed<F, BulkheadGate>, A>, P>;

/// Watches and changes keyed bulkheads from outside.
pub type KeyedBulkheadHandle<K> = KeyedHandle<K, BulkheadGate>;

/// A service behind a [`BulkheadLayer`].
pub type Bulkhead<S, P = Plain, A = ()> = Gated<S, Asking<BulkheadGate, A>, P>;

/// The answer of a [`Bulkhead`]: the inner one, or a rejection.
pub type ResponseFuture<S, P, Req, A = ()> = GateFuture<S, Asking<BulkheadGate, A>, P, Req>;

/// A place in a bulkhead, from the moment a call is sent until it is dropped.
pub type Permit<A = ()> = GatePermit<Asking<BulkheadGate, A>>;
