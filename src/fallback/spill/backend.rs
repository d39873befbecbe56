//! A backend of a list.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower::{BoxError, Service};

use crate::{Name, ambient::clock::nanos, resend::Prototype};

/// One backend of a [`Spill`](super::Spill): a service with its own stack, and a name.
pub struct Backend<R, Res> {
    pub(super) name: &'static str,
    service: Prototype<Erased<R, Res>>,
    pub(super) rewrite: Option<Rewrite<R>>,
    pub(super) accepts: Option<Accepts<R>>,
    /// The pause after a failure, in nanoseconds.
    pub(super) cooldown: u64,
    pub(super) is_last_resort: bool,
}

type Rewrite<R> = Arc<dyn Fn(&mut R) + Send + Sync>;

type Accepts<R> = Arc<dyn Fn(&R) -> bool + Send + Sync>;

/// A service of any type.
pub(super) struct Erased<R, Res>(Box<dyn AnyService<R, Res>>);

pub(super) type ErasedFuture<Res> = Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>>;

trait AnyService<R, Res>: Send {
    fn clone_box(&self) -> Box<dyn AnyService<R, Res>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    fn call(&mut self, request: R) -> ErasedFuture<Res>;
}

impl<R, Res> Backend<R, Res> {
    /// Makes a backend. Its name appears in the report, in metrics and in the log. Its service is
    /// cloned for each call that it receives.
    pub fn new<S>(name: impl Into<Name>, service: S) -> Self
    where
        R: 'static,
        Res: 'static,
        S: Service<R, Response = Res, Error: Into<BoxError>, Future: Send + 'static>,
        S: Clone + Send + 'static,
    {
        Self {
            name: name.into().as_str(),
            service: Prototype::new(Erased(Box::new(service))),
            rewrite: None,
            accepts: None,
            cooldown: 0,
            is_last_resort: false,
        }
    }

    /// Changes each request that this backend receives: another model's name, another host. A body
    /// that is recorded for replay passes unchanged. To change bodies, let the protocol
    /// [clone](crate::protocol::http::Client::clone_body) them.
    #[must_use]
    pub fn rewrite(mut self, change: impl Fn(&mut R) + Send + Sync + 'static) -> Self {
        self.rewrite = Some(Arc::new(change));
        self
    }

    /// Skips this backend for requests that a closure does not accept, such as too long a prompt.
    /// Default: it receives all.
    #[must_use]
    pub fn accepts(mut self, accepts: impl Fn(&R) -> bool + Send + Sync + 'static) -> Self {
        self.accepts = Some(Arc::new(accepts));
        self
    }

    /// Skips this backend for `after_failure` after a failure without a hint of its own. Default:
    /// not at all, because a circuit breaker in its stack knows better.
    #[must_use]
    pub fn cooldown(mut self, after_failure: Duration) -> Self {
        self.cooldown = nanos(after_failure);
        self
    }

    /// Tries this backend once more when no other has answered, whatever its cooldown. If several
    /// are set, the first that accepts the request is tried. Default: none.
    #[must_use]
    pub fn last_resort(mut self) -> Self {
        self.is_last_resort = true;
        self
    }

    pub(super) fn fits(&self, request: &R) -> bool {
        self.accepts.as_ref().is_none_or(|accepts| accepts(request))
    }

    pub(super) fn service(&self) -> Erased<R, Res> {
        self.service.service()
    }
}

impl<S, R, Res> AnyService<R, Res> for S
where
    R: 'static,
    Res: 'static,
    S: Service<R, Response = Res, Error: Into<BoxError>, Future: Send + 'static>,
    S: Clone + Send + 'static,
{
    fn clone_box(&self) -> Box<dyn AnyService<R, Res>> {
        Box::new(self.clone())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::poll_ready(self, cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> ErasedFuture<Res> {
        let call = Service::call(self, request);
        Box::pin(async move { call.await.map_err(Into::into) })
    }
}

impl<R, Res> Service<R> for Erased<R, Res> {
    type Response = Res;
    type Error = BoxError;
    type Future = ErasedFuture<Res>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> ErasedFuture<Res> {
        self.0.call(request)
    }
}

impl<R, Res> Clone for Erased<R, Res> {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl<R, Res> fmt::Debug for Backend<R, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("name", &self.name)
            .field("is_last_resort", &self.is_last_resort)
            .finish_non_exhaustive()
    }
}
