//! The fresh service for a call that is sent again.

use std::sync::{Mutex, PoisonError};

use crate::sync::Held;

/// A clone of the inner service, never called, that is cloned for each call that is sent again.
/// Most calls are sent once, and are spared a clone of all layers beneath.
///
/// The mutex is there because a service need not be `Sync`, and only resent calls lock it. It is
/// held while the service is cloned. This is the one place where user code runs under a lock of
/// this crate: a `Clone` must not wait for a call through the layer that is cloning it.
#[derive(Debug)]
pub(crate) struct Prototype<S>(Mutex<S>);

impl<S: Clone> Prototype<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }

    /// Returns a clone of the service, not yet polled for readiness.
    pub(crate) fn service(&self) -> S {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The source of what a call takes from its layer: the layer's handle, and a service for each
/// further attempt.
pub trait Origin<S> {
    /// The layer's handle, which holds its state.
    type Handle;

    /// Returns the layer's handle.
    fn handle(&self) -> &Self::Handle;

    /// Returns a clone of the service, not yet polled for readiness.
    fn service(&self) -> S;
}

/// The state that the services of one application of a layer share.
#[derive(Debug)]
pub(crate) struct Shared<S, H> {
    pub(crate) handle: H,
    prototype: Prototype<S>,
}

/// The origin of a call through a layer's service.
#[derive(Debug)]
pub struct FromService<S, H>(pub(crate) Held<Shared<S, H>>);

/// The origin of a call through a layer that wraps no service: the call brings its own service,
/// which is cheap to clone.
#[derive(Debug, Clone, Copy)]
pub struct FromLayer<'a, S, H> {
    handle: &'a H,
    service: S,
}

impl<S: Clone, H> Shared<S, H> {
    pub(crate) fn new(handle: H, prototype: S) -> Self {
        Self {
            handle,
            prototype: Prototype::new(prototype),
        }
    }
}

impl<'a, S, H> FromLayer<'a, S, H> {
    pub(crate) fn new(handle: &'a H, service: S) -> Self {
        Self { handle, service }
    }
}

impl<S: Clone, H> Origin<S> for FromService<S, H> {
    type Handle = H;

    #[inline]
    fn handle(&self) -> &H {
        &self.0.handle
    }

    fn service(&self) -> S {
        self.0.prototype.service()
    }
}

impl<S: Clone, H> Origin<S> for FromLayer<'_, S, H> {
    type Handle = H;

    #[inline]
    fn handle(&self) -> &H {
        self.handle
    }

    fn service(&self) -> S {
        self.service.clone()
    }
}
