//! The user's stack as callers see it: something that ends, in one way or another.

use std::{error::Error, future::Future, pin::Pin};

use tower::BoxError;

use super::world::World;
use crate::{Rejected, RejectedKind};

/// A call on its way through the stack. It need not be `Send`: a run is one thread.
pub(super) type Calling = Pin<Box<dyn Future<Output = End>>>;

/// A stack over the upstreams, whatever its type.
pub trait Caller<Req> {
    fn call(&self, request: Req) -> Calling;
}

/// A protocol: what a drill asks with.
pub trait Kind: Sized + 'static {
    type Request: 'static;
    /// The stand-in for the upstreams.
    type Upstream: Clone + 'static;
    /// The user's own services that make responses.
    type Handlers: Default + Clone + Send + Sync + 'static;

    /// # Errors
    /// One of the user's own services does not build.
    fn upstream(world: World, handlers: &Self::Handlers) -> Result<Self::Upstream, BoxError>;

    /// Lets the user's own services go, which may hold the upstream themselves.
    fn release(upstream: &Self::Upstream);

    /// Adds those of another drill.
    fn join(handlers: &mut Self::Handlers, other: Self::Handlers);

    /// Callers without any stack.
    fn bare(upstream: Self::Upstream) -> Box<dyn Caller<Self::Request>>;
}

/// The end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Answered,
    Failed,
    /// A layer turned it away, or cut it off.
    Rejected(RejectedKind),
    /// The caller lost patience.
    Left,
    /// The run was over.
    Unfinished,
}

impl End {
    /// Reads an error.
    pub(super) fn of_error(error: impl Into<BoxError>) -> Self {
        let error: BoxError = error.into();
        Self::of(&*error)
    }

    fn of(error: &(dyn Error + 'static)) -> Self {
        Rejected::find(error).map_or(Self::Failed, |rejected| Self::Rejected(rejected.kind))
    }
}
