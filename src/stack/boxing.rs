//! Stacks with a short type.

use tower::{Layer, Service, util::BoxCloneSyncServiceLayer};

use super::{ClientStack, ServerStack};

/// A stack `L` over services `S` for requests `Req`, as a layer without `L` in its type.
pub type Boxed<L, S, Req> = BoxCloneSyncServiceLayer<
    S,
    Req,
    <<L as Layer<S>>::Service as Service<Req>>::Response,
    <<L as Layer<S>>::Service as Service<Req>>::Error,
>;

impl<P: Clone, W, R, G, F, A> ClientStack<P, W, R, G, F, A> {
    /// Returns the stack as a layer whose type names only the service, the request, the response
    /// and the error. Keep it in a struct or return it from a function. Each call then costs an
    /// allocation. Take the [`handle`](Self::handle) first.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use hyper::body::Incoming;
    /// use hyper_util::client::legacy::{Client, connect::HttpConnector};
    /// use tower::{BoxError, util::BoxCloneSyncServiceLayer};
    /// use tower_keep::{protocol::http::ReplayBody, stack};
    ///
    /// type Hyper = Client<HttpConnector, ReplayBody<Full<Bytes>>>;
    /// type Protected =
    ///     BoxCloneSyncServiceLayer<Hyper, Request<Full<Bytes>>, Response<Incoming>, BoxError>;
    ///
    /// let stack = stack::client().http().build()?;
    /// let handle = stack.handle();
    /// let layer: Protected = stack.boxed();
    /// # let _ = (layer, handle);
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    #[must_use]
    pub fn boxed<S, Req>(self) -> Boxed<Self, S, Req>
    where
        Self: Layer<S, Service: Service<Req, Future: Send + 'static> + Clone + Send + Sync + 'static>
            + Send
            + Sync
            + 'static,
    {
        BoxCloneSyncServiceLayer::new(self)
    }
}

impl<P: Clone, G, F, A> ServerStack<P, G, F, A> {
    /// Returns the stack as a layer whose type names only the service, the request, the response
    /// and the error. Keep it in a struct or return it from a function. Each call then costs an
    /// allocation. Take the [`handle`](Self::handle) first.
    ///
    /// ```
    /// use axum::{Router, extract::Request, routing::{Route, get}};
    /// use tower_keep::stack;
    ///
    /// let stack = stack::server().http().max_in_flight(100).build()?;
    /// let layer = stack.boxed::<Route, Request>();
    /// let app: Router = Router::new().route("/", get(async || "hello")).layer(layer);
    /// # let _ = app;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    #[must_use]
    pub fn boxed<S, Req>(self) -> Boxed<Self, S, Req>
    where
        Self: Layer<S, Service: Service<Req, Future: Send + 'static> + Clone + Send + Sync + 'static>
            + Send
            + Sync
            + 'static,
    {
        BoxCloneSyncServiceLayer::new(self)
    }
}
