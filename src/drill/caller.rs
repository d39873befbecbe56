//! The user's stack from the callers' side: each call has an end.

use std::{error::Error, future::Future, pin::Pin};

use tower::BoxError;

use super::world::World;
use crate::{Rejected, RejectedKind};

/// A call in flight through the stack. Need not be `Send`, because a run is one thread.
pub(super) type Calling = Pin<Box<dyn Future<Output = CallEnd>>>;

/// A stack over the upstreams, whatever its type.
pub trait Caller<Req> {
    fn call(&self, request: Req) -> Calling;
}

/// The protocol of a drill's calls.
pub trait Kind: Sized + 'static {
    type Request: 'static;
    /// The client of the modelled upstreams.
    type Upstream: Clone + 'static;
    /// The user's own services that make responses.
    type Handlers: Default + Clone + Send + Sync + 'static;

    /// Makes the upstreams' client.
    ///
    /// # Errors
    /// One of the user's own services does not build.
    fn upstream(world: World, handlers: &Self::Handlers) -> Result<Self::Upstream, BoxError>;

    /// Drops the user's own services, which may hold the upstream themselves.
    fn release(upstream: &Self::Upstream);

    /// Adds the services of another drill.
    fn join(handlers: &mut Self::Handlers, other: Self::Handlers);

    /// Makes callers without a stack.
    fn bare(upstream: Self::Upstream) -> Box<dyn Caller<Self::Request>>;
}

/// The end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    Answered,
    Failed,
    /// A layer rejected it, or cut it off.
    Rejected(RejectedKind),
    /// The caller ran out of patience.
    Left,
    /// The run ended first.
    Unfinished,
}

impl CallEnd {
    /// Classifies an error.
    pub(super) fn of_error(error: impl Into<BoxError>) -> Self {
        let error: BoxError = error.into();
        Self::of(&*error)
    }

    fn of(error: &(dyn Error + 'static)) -> Self {
        Rejected::find(error).map_or(Self::Failed, |rejected| Self::Rejected(rejected.kind))
    }
}
