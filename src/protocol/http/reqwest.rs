//! reqwest's client behind the layers: with its own requests and responses, or as a service of
//! [`http`] requests.
//!
//! Use it if a program sends with reqwest already. hyper-util's own client needs no adapter. A
//! [`Kept`] client takes the requests of reqwest's builder and returns reqwest's responses:
//!
//! ```no_run
//! # #[cfg(feature = "reqwest-013")] {
//! # use reqwest_013 as reqwest;
//! use tower_keep::{reqwest::Kept, stack};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = reqwest::Client::new();
//! let kept = Kept::new(client.clone(), &stack::client().http().build()?);
//! // With reqwest's feature `json`: `client.put(url).json(&order)`, and `response.json().await?`.
//! let response = kept.send(client.put("http://payments.example/7").body("apples")).await?;
//! println!("{}", response.text().await?);
//! # Ok(()) }
//! # }
//! ```
//!
//! The feature `reqwest-012` is for reqwest 0.12's client, `reqwest-013` for 0.13's, and both may
//! be on. They turn on none of reqwest's own features: TLS, JSON and the rest are yours to choose.
//!
//! [`Reqwest`] is the service inside, for code that uses [`http`]:
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
//! one call. A request body that is not empty is streamed, so reqwest cannot replay it by itself
//! and returns a 307 or 308 unfollowed. The same holds for any body of a request whose method is
//! not idempotent.
//!
//! A call that found no connection was not sent, unless reqwest had followed a redirect before. Its
//! error does not show which, because it names the first URL in both cases. The body shows it:
//! hyper polls it once it has a connection for its request. An [`Error`] records that. A retry then
//! replays a POST after a refused connection, and not after a redirect to a closed port.
//!
//! The crate `tower-reqwest` cannot replace this adapter. It supports one version of reqwest, and
//! takes reqwest's own body only, while a retry sends a body that can be replayed.

mod kept;
mod versions;

use std::{
    error, fmt,
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use versions::FromUrl;

pub use kept::{Kept, KeptError};
pub(super) use versions::ReqwestClient;

/// A service over reqwest's client `C`.
///
/// A request without an absolute URI fails with reqwest's own error. Clones share the client's pool
/// of connections. A dropped response future cancels its request.
#[derive(Debug, Clone, Default)]
pub struct Reqwest<C> {
    client: C,
}

/// reqwest's error `E`, and whether it proves that nothing of the request was sent.
///
/// It is displayed as `E` is, has the methods of `E`, and is caused by it.
#[derive(Debug)]
pub struct Error<E> {
    error: E,
    /// If true, the body was watched, and nothing has polled it.
    untaken: bool,
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
        Called { #[pin] call: F, taken: Option<Taken>, with_url: bool },
        // reqwest cannot represent such a request.
        Invalid { error: Option<E> },
    }
}

pin_project! {
    /// A request body that records when a connection polls it.
    struct Watched<B> {
        #[pin]
        body: B,
        taken: Taken,
    }
}

/// A request extension: the request was reqwest's own, and the response must be too.
#[derive(Debug, Clone, Copy)]
struct OwnRequest {
    /// The timeout of each attempt. Newer versions of reqwest keep it in an extension themselves.
    timeout: Option<Duration>,
}

/// A flag that is set when the body is polled. Relaxed: the error arrives later, through the
/// channels of the client.
type Taken = Arc<AtomicBool>;

impl<C> Reqwest<C> {
    /// Creates a service that sends requests with `client`, which is cheap to clone.
    pub fn new(client: C) -> Self {
        Self { client }
    }
}

impl<F, E, B> ResponseFuture<F, E, B> {
    fn new(call: Result<F, E>, taken: Option<Taken>, with_url: bool) -> Self {
        let state = match call {
            Ok(call) => State::Called {
                call,
                taken,
                with_url,
            },
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
    type Error = Error<reqwest_012::Error>;
    type Future = ResponseFuture<
        <reqwest_012::Client as Service<reqwest_012::Request>>::Future,
        reqwest_012::Error,
        reqwest_012::Body,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.client.poll_ready(cx).map_err(Error::new)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let (body, taken) = match watched(&head.method, body) {
            Some((body, taken)) => (reqwest_012::Body::wrap(body), Some(taken)),
            None => (reqwest_012::Body::default(), None),
        };
        let own = head.extensions.get().copied();
        let request = reqwest_012::Request::try_from(Request::from_parts(head, body));
        let call = request.map(|mut request| {
            if let Some(OwnRequest { timeout }) = own {
                *request.timeout_mut() = timeout;
            }
            self.client.call(request)
        });
        ResponseFuture::new(call, taken, own.is_some())
    }
}

#[cfg(feature = "reqwest-013")]
impl<B> Service<Request<B>> for Reqwest<reqwest_013::Client>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    type Response = Response<reqwest_013::Body>;
    type Error = Error<reqwest_013::Error>;
    type Future = ResponseFuture<
        <reqwest_013::Client as Service<reqwest_013::Request>>::Future,
        reqwest_013::Error,
        reqwest_013::Body,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.client.poll_ready(cx).map_err(Error::new)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let (body, taken) = match watched(&head.method, body) {
            Some((body, taken)) => (reqwest_013::Body::wrap(body), Some(taken)),
            None => (reqwest_013::Body::default(), None),
        };
        let own = head.extensions.get().copied();
        let request = reqwest_013::Request::try_from(Request::from_parts(head, body));
        let call = request.map(|mut request| {
            if let Some(OwnRequest { timeout }) = own {
                *request.timeout_mut() = timeout;
            }
            self.client.call(request)
        });
        ResponseFuture::new(call, taken, own.is_some())
    }
}

/// Wraps a body, to watch it. `None` for an empty body that may be sent any number of times.
/// reqwest can replay such a body itself, in its retries and its redirects.
fn watched<B: Body>(method: &Method, body: B) -> Option<(Watched<B>, Taken)> {
    let idempotent = matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    if idempotent && body.is_end_stream() {
        return None;
    }
    let taken = Taken::default();
    let watching = taken.clone();
    Some((Watched { body, taken }, watching))
}

impl<F, E, Res, B> Future for ResponseFuture<F, E, B>
where
    F: Future<Output = Result<Res, E>>,
    Res: FromUrl + Into<Response<B>>,
{
    type Output = Result<Response<B>, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProject::Called {
                call,
                taken,
                with_url,
            } => {
                let result = ready!(call.poll(cx)).map(|response| {
                    let url = with_url.then(|| response.url());
                    let mut response: Response<B> = response.into();
                    response.extensions_mut().extend(url.unwrap_or_default());
                    response
                });
                Poll::Ready(result.map_err(|error| {
                    let taken = taken.as_ref().map(|taken| taken.load(Ordering::Relaxed));
                    let untaken = taken == Some(false);
                    Error { error, untaken }
                }))
            }
            StateProject::Invalid { error } => {
                let error = error.take().expect("polled after completion");
                Poll::Ready(Err(Error::new(error)))
            }
        }
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        this.taken.store(true, Ordering::Relaxed);
        this.body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.taken.store(true, Ordering::Relaxed);
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<E> Error<E> {
    /// Creates the error of a service that was not called.
    fn new(error: E) -> Self {
        Self {
            error,
            untaken: true,
        }
    }

    /// Returns reqwest's own error.
    pub fn into_inner(self) -> E {
        self.error
    }
}

impl<E> Deref for Error<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.error
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<E: error::Error + 'static> error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Returns whether it is an error of this adapter, and nothing has polled the body of its request.
/// If such an error reports that there was no connection, there was none.
pub(super) fn is_untaken(error: &(dyn error::Error + 'static)) -> bool {
    #[cfg(feature = "reqwest-012")]
    if let Some(error) = error.downcast_ref::<Error<reqwest_012::Error>>() {
        return error.untaken;
    }
    #[cfg(feature = "reqwest-013")]
    if let Some(error) = error.downcast_ref::<Error<reqwest_013::Error>>() {
        return error.untaken;
    }
    false
}

/// Returns whether the request itself is at fault, so that a retry is useless: reqwest could not
/// make it, or it was redirected too often.
pub(crate) fn is_users_fault(error: &(dyn error::Error + 'static)) -> bool {
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
