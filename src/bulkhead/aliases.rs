//! Short names of the layers and their services, futures and permits.

use crate::{
    bulkhead::BulkheadGate,
    gate::{
        Asking, GateLayer, Gated, Keyed, KeyedHandle, Permit as GatePermit,
        ResponseFuture as GateFuture,
    },
    protocol::Plain,
};

/// A layer that limits how many calls run at once. All its services, and all their clones, share
/// one limit.
pub type BulkheadLayer<P = Plain, A = ()> = GateLayer<Asking<BulkheadGate, A>, P>;

/// A bulkhead per host, route or tenant, so that one that hangs takes no permits of the others.
///
/// Built with [`keyed_by`](super::BulkheadBuilder::keyed_by). At most
/// [`max_keys`](super::BulkheadBuilder::max_keys) keys have their own bulkhead. A new key beyond
/// that replaces a key with nothing in flight, or else shares one bulkhead with others.
pub type KeyedBulkheadLayer<F, P = Plain, A = ()> = GateLayer<Asking<Keyed<F, BulkheadGate>, A>, P>;

/// A handle that watches and changes keyed bulkheads.
pub type KeyedBulkheadHandle<K> = KeyedHandle<K, BulkheadGate>;

/// A service behind a [`BulkheadLayer`].
pub type Bulkhead<S, P = Plain, A = ()> = Gated<S, Asking<BulkheadGate, A>, P>;

/// The answer of a [`Bulkhead`]: the inner answer, or a rejection.
pub type ResponseFuture<S, P, Req, A = ()> = GateFuture<S, Asking<BulkheadGate, A>, P, Req>;

/// A permit of a bulkhead, from the moment a call is sent until it is dropped.
pub type Permit<A = ()> = GatePermit<Asking<BulkheadGate, A>>;
