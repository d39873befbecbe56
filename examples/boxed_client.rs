//! A stack on a client whose service takes requests of its own type, is boxed, and is not `Clone`.
//! SDKs that take layers by `with_layer` have such clients.
//!
//! Two things make it fit. The retry copies bodies and does not record them, so requests keep their
//! type. The stack clones its service for a retry, so a `Buffer` is beneath it.
//!
//! ```console
//! cargo run --example boxed_client
//! ```

use std::{
    future::IntoFuture,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::{Router, http::StatusCode, routing::put};
use tower::{BoxError, ServiceBuilder, buffer::BufferLayer};
use tower_keep::stack;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let stack = stack::client()
        .http()
        .protocol(|http| http.copy_body(sdk::Body::try_clone))
        .build()?;
    // From the outside in. The buffer holds the calls that wait for the service to be ready.
    let layers = ServiceBuilder::new()
        .layer(stack.clone())
        .layer(BufferLayer::new(64));
    let mut client = sdk::Client::new(serve().await?).with_layer(&layers);

    let status = client.put("/orders/7", "three apples").await?;
    let retries = stack.handle().retry.snapshot().retries;
    println!("{status} after {retries} retries");
    assert_eq!((status, retries), (StatusCode::OK, 2));
    Ok(())
}

/// A server that is not ready at first.
async fn serve() -> std::io::Result<String> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let answer = async |body: String| match CALLS.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => StatusCode::SERVICE_UNAVAILABLE,
        _ if body == "three apples" => StatusCode::OK,
        _ => StatusCode::BAD_REQUEST,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = Router::new().route("/orders/{id}", put(answer));
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(url)
}

/// Somebody else's client.
mod sdk {
    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::{Either, Full, combinators::UnsyncBoxBody};
    use hyper::body::Incoming;
    use hyper_util::{client::legacy, rt::TokioExecutor};
    use tower::{BoxError, Layer, Service, ServiceExt, util::BoxService};

    type Boxed = BoxService<Request<Body>, Response<Incoming>, BoxError>;

    pub(crate) struct Client {
        service: Boxed,
        url: String,
    }

    /// Bytes that are known, or a stream.
    pub(crate) type Inner = Either<Full<Bytes>, UnsyncBoxBody<Bytes, BoxError>>;

    #[derive(Debug)]
    pub(crate) struct Body(Inner);

    impl Body {
        /// Copies a body that is known; a stream cannot be.
        pub(crate) fn try_clone(&self) -> Option<Self> {
            match &self.0 {
                Either::Left(known) => Some(Self(Either::Left(known.clone()))),
                Either::Right(_) => None,
            }
        }
    }

    impl Client {
        pub(crate) fn new(url: String) -> Self {
            let hyper = legacy::Client::builder(TokioExecutor::new()).build_http::<Inner>();
            let hyper = hyper.map_request(|request: Request<Body>| request.map(|body| body.0));
            let service = BoxService::new(hyper.map_err(BoxError::from));
            Self { service, url }
        }

        pub(crate) fn with_layer<L>(self, layer: &L) -> Self
        where
            L: Layer<Boxed>,
            L::Service: Service<Request<Body>, Response = Response<Incoming>, Error = BoxError>,
            L::Service: Send + 'static,
            <L::Service as Service<Request<Body>>>::Future: Send,
        {
            let service = BoxService::new(layer.layer(self.service));
            Self { service, ..self }
        }

        pub(crate) async fn put(
            &mut self,
            path: &str,
            text: &'static str,
        ) -> Result<StatusCode, BoxError> {
            let body = Body(Either::Left(text.into()));
            let request = Request::put(format!("{}{path}", self.url)).body(body)?;
            Ok(self.service.ready().await?.call(request).await?.status())
        }
    }
}
