//! reqwest's client as a service of [`http`] requests, so that the layers stand over it.
//!
//! Use it where a program sends with reqwest already. Over hyper-util's own client nothing is
//! needed. The feature `reqwest-012` is for reqwest 0.12's client, `reqwest-013` for 0.13's, and
//! both may be on. They turn on none of reqwest's own features: TLS and the rest are yours to
//! choose.
//!
//! ```no_run
//! # #[cfg(feature = "reqwest-013")] {
//! # use reqwest_013 as reqwest;
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_keep::{
//!     circuit_breaker::CircuitBreakerLayer, protocol::http::Client, reqwest::Reqwest,
//!     retry::RetryLayer,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let client = Client::new();
//! let stack = ServiceBuilder::new()
//!     .layer(RetryLayer::builder().protocol(client).build()?)
//!     .layer(CircuitBreakerLayer::builder().protocol(client).build()?)
//!     .service(Reqwest::new(reqwest::Client::new()));
//!
//! let request = Request::get("http://payments.example/").body(Full::<Bytes>::default())?;
//! let response = stack.oneshot(request).await?;
//! println!("{} {:?}", response.status(), response.into_body().collect().await?.to_bytes());
//! # Ok(()) }
//! # }
//! ```
//!
//! Redirects, cookies and decompression stay with reqwest, below the layers: a redirected call is
//! one call. A request body that is not empty is streamed, so reqwest cannot send it again by
//! itself and returns a 307 or 308 unfollowed.
//!
//! The crate `tower-reqwest` is of no use here: it stands for one version of reqwest, and takes
//! reqwest's own body only, while a retry sends a body that can be replayed.

use std::{
    error::Error,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

/// A service over reqwest's client `C`.
///
/// A request without an absolute URI fails with reqwest's own error. Clones share the client's pool
/// of connections. A dropped response future cancels its request.
#[derive(Debug, Clone, Default)]
pub struct Reqwest<C> {
    client: C,
}

pin_project! {
    /// The response future of a [`Reqwest`], for a response with a body `B`.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, E, B> {
        #[pin]
        state: State<F, E>,
        body: PhantomData<fn() -> B>,
    }
}

pin_project! {
    #[project = StateProject]
    #[derive(Debug)]
    enum State<F, E> {
        Called { #[pin] call: F },
        // reqwest has no such request.
        Invalid { error: Option<E> },
    }
}

impl<C> Reqwest<C> {
    /// Sends requests with `client`, which is cheap to clone.
    pub fn new(client: C) -> Self {
        Self { client }
    }
}

impl<F, E, B> ResponseFuture<F, E, B> {
    fn new(call: Result<F, E>) -> Self {
        let state = match call {
            Ok(call) => State::Called { call },
            Err(error) => State::Invalid { error: Some(error) },
        };
        Self {
            state,
            body: PhantomData,
        }
    }
}

#[cfg(feature = "reqwest-012")]
impl<B> Service<Request<B>> for Reqwest<reqwest_012::Client>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    type Response = Response<reqwest_012::Body>;
    type Error = reqwest_012::Error;
    type Future = ResponseFuture<
        <reqwest_012::Client as Service<reqwest_012::Request>>::Future,
        reqwest_012::Error,
        reqwest_012::Body,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // A body of its own is one that reqwest can send again, in its retries and its redirects.
        let request = request.map(|body| match body.is_end_stream() {
            true => reqwest_012::Body::default(),
            false => reqwest_012::Body::wrap(body),
        });
        ResponseFuture::new(request.try_into().map(|request| self.client.call(request)))
    }
}

#[cfg(feature = "reqwest-013")]
impl<B> Service<Request<B>> for Reqwest<reqwest_013::Client>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    type Response = Response<reqwest_013::Body>;
    type Error = reqwest_013::Error;
    type Future = ResponseFuture<
        <reqwest_013::Client as Service<reqwest_013::Request>>::Future,
        reqwest_013::Error,
        reqwest_013::Body,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // As above.
        let request = request.map(|body| match body.is_end_stream() {
            true => reqwest_013::Body::default(),
            false => reqwest_013::Body::wrap(body),
        });
        ResponseFuture::new(request.try_into().map(|request| self.client.call(request)))
    }
}

impl<F, E, Res, B> Future for ResponseFuture<F, E, B>
where
    F: Future<Output = Result<Res, E>>,
    Res: Into<Response<B>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProject::Called { call } => Poll::Ready(ready!(call.poll(cx)).map(Into::into)),
            StateProject::Invalid { error } => {
                Poll::Ready(Err(error.take().expect("polled after completion")))
            }
        }
    }
}

/// Whether the request itself is at fault, so that sending it again is of no use: reqwest could not
/// make it, or it was redirected too often.
pub(crate) fn is_users_fault(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "reqwest-012")]
    if let Some(error) = error.downcast_ref::<reqwest_012::Error>() {
        return error.is_builder() || error.is_redirect();
    }
    #[cfg(feature = "reqwest-013")]
    if let Some(error) = error.downcast_ref::<reqwest_013::Error>() {
        return error.is_builder() || error.is_redirect();
    }
    false
}
