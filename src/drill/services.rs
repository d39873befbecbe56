//! The user's own services: those that make the responses of a modelled upstream, and tiers.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response};
use tower::{BoxError, Service};

use super::{Body, grpc::Wire, world::World};

/// A user's service that makes responses.
pub(super) type Handler = Arc<dyn Fn(Request<Body>) -> Handling + Send + Sync>;
pub(super) type Handling = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;
/// A closure that makes a new handler for each run.
type MakeHandler = Arc<dyn Fn() -> Handler + Send + Sync>;
/// A closure that makes a new tier for each run, over the upstreams that it calls.
type MakeTier<U> = Arc<dyn Fn(U) -> Result<Handler, BoxError> + Send + Sync>;

/// The user's own services, made for each run, and the wire protocol.
pub struct Handlers<U> {
    pub(super) wire: Wire,
    of_upstreams: Vec<(String, MakeHandler)>,
    tiers: Vec<(String, MakeTier<U>)>,
}

/// The services of one run.
#[derive(Default)]
pub(super) struct Services {
    pub(super) wire: Wire,
    of_upstreams: Vec<(String, Handler)>,
    /// The tiers. They hold the upstreams, which hold them, until the run is over.
    tiers: Mutex<Vec<(String, Handler)>>,
}

impl<U: 'static> Handlers<U> {
    pub(super) fn add<S, B>(&mut self, name: String, make: impl Fn() -> S + Send + Sync + 'static)
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let make = move || handler(make());
        self.of_upstreams.push((name, Arc::new(make)));
    }

    pub(super) fn add_tier<S, B>(
        &mut self,
        name: String,
        make: impl Fn(U) -> Result<S, BoxError> + Send + Sync + 'static,
    ) where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let make = move |upstream| make(upstream).map(handler);
        self.tiers.push((name, Arc::new(make)));
    }

    pub(super) fn join(&mut self, other: Self) {
        self.of_upstreams.extend(other.of_upstreams);
        self.tiers.extend(other.tiers);
    }

    pub(super) fn of_upstreams(&self) -> Services {
        let made = self.of_upstreams.iter();
        Services {
            wire: self.wire,
            of_upstreams: made.map(|(name, make)| (name.clone(), make())).collect(),
            tiers: Mutex::default(),
        }
    }

    /// Returns the name of a handler that no upstream has.
    pub(super) fn unknown(&self, world: &World) -> Option<&str> {
        let mut names = self.of_upstreams.iter().map(|(name, _)| name.as_str());
        names.find(|name| !world.has(name))
    }

    pub(super) fn tiers(&self) -> &[(String, MakeTier<U>)] {
        &self.tiers
    }
}

impl Services {
    /// Returns the service that makes the responses of a modelled upstream.
    pub(super) fn handler(&self, upstream: &str) -> Option<Handler> {
        let mut handlers = self.of_upstreams.iter();
        let found = handlers.find(|(name, _)| name.eq_ignore_ascii_case(upstream));
        found.map(|(_, handler)| handler.clone())
    }

    /// Returns the tier of a host.
    pub(super) fn tier(&self, host: &str) -> Option<Handler> {
        let tiers = self.lock();
        let found = tiers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(host));
        found.map(|(_, handler)| handler.clone())
    }

    pub(super) fn add_tier(&self, name: String, tier: Handler) {
        self.lock().push((name, tier));
    }

    pub(super) fn release(&self) {
        // Dropped without the lock, because their drops are user code.
        let tiers = std::mem::take(&mut *self.lock());
        drop(tiers);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Handler)>> {
        self.tiers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn handler<S, B>(service: S) -> Handler
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            poll_fn(|context| service.poll_ready(context))
                .await
                .map_err(Into::into)?;
            let response = service.call(request).await.map_err(Into::into)?;
            Ok(response.map(Body::new))
        })
    })
}

impl<U> Default for Handlers<U> {
    fn default() -> Self {
        Self {
            wire: Wire::default(),
            of_upstreams: Vec::new(),
            tiers: Vec::new(),
        }
    }
}

impl<U> Clone for Handlers<U> {
    fn clone(&self) -> Self {
        Self {
            wire: self.wire,
            of_upstreams: self.of_upstreams.clone(),
            tiers: self.tiers.clone(),
        }
    }
}

impl<U> fmt::Debug for Handlers<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.of_upstreams.iter().map(|(name, _)| name);
        let tiers = self.tiers.iter().map(|(name, _)| name);
        f.debug_list().entries(names.chain(tiers)).finish()
    }
}
