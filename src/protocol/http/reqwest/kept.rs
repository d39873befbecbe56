//! reqwest's own requests and responses through layers.

use std::{any::Any, error, fmt};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::Body;
use tower::{BoxError, Layer, Service, ServiceExt};

use super::{Error, OwnRequest, Reqwest, ReqwestClient};
use crate::Rejected;

/// A client of reqwest behind layers, with reqwest's own requests and responses: the client `C`,
/// and the layered service `S`.
///
/// ```no_run
/// # #[cfg(feature = "reqwest-013")] {
/// # use reqwest_013 as reqwest;
/// use tower_keep::{reqwest::{Kept, KeptError}, stack};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = reqwest::Client::new();
/// let kept = Kept::new(client.clone(), &stack::client().http().build()?);
///
/// // In place of `client.get(..).send()`, with all that reqwest's builder can: `.json(&body)` too.
/// let request = client.put("http://payments.example/orders/7").body("three apples");
/// match kept.send(request).await {
///     Ok(response) => println!("{}", response.text().await?),
///     Err(KeptError::Inner(error)) => println!("reqwest said: {error}"),
///     Err(KeptError::Rejected(why)) => println!("busy, come back in {:?}", why.retry_after),
///     Err(error) => println!("{error}"),
/// }
/// # Ok(()) }
/// # }
/// ```
///
/// **Requests.** A body is replayed as over hyper, if it is not longer than the
/// [protocol's](crate::protocol::http::Client) limit: `.json(..)`, `.form(..)` and `.body(..)` as
/// well as streams. A request's `.timeout(..)` is reqwest's, for each attempt and its response's
/// body. The timeout of the whole call is the stack's.
///
/// **Responses** are reqwest's, with their URL: `.json()`, `.text()`, `.bytes()`,
/// `.error_for_status()`. A status is not an error, as always with reqwest.
///
/// **Cost** in addition to that of the layers: a clone of the layered service, as for each service
/// that is called concurrently, and a clone of the URL.
#[derive(Debug, Clone)]
pub struct Kept<S, C> {
    service: S,
    client: C,
}

/// The failure of a call through a [`Kept`] client. `E` is reqwest's own error.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeptError<E> {
    /// reqwest's own error, from the last attempt.
    Inner(E),
    /// A layer has rejected the call, or ended it early: the reason, and the time to come back, if
    /// known.
    Rejected(Rejected),
    /// An error of another crate's layer.
    Other(BoxError),
}

impl<C: ReqwestClient> Kept<(), C> {
    /// Adds the layers, for example a stack, to the client.
    pub fn new<L: Layer<Reqwest<C>>>(client: C, layers: &L) -> Kept<L::Service, C> {
        Kept {
            service: layers.layer(Reqwest::new(client.clone())),
            client,
        }
    }
}

impl<S, C: ReqwestClient> Kept<S, C> {
    /// Returns the client, to make requests with. Requests that it sends itself bypass the layers.
    pub fn client(&self) -> &C {
        &self.client
    }

    /// Sends a request through the layers, in place of reqwest's `Client::execute`.
    ///
    /// # Errors
    /// reqwest's error, or the reason why the layers did not send the request or ended it early.
    pub async fn execute<B>(&self, request: C::Request) -> Result<C::Response, KeptError<C::Error>>
    where
        S: Service<Request<C::Body>, Response = Response<B>, Error: Into<BoxError>> + Clone,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
    {
        self.execute_with(request, |_| ()).await
    }

    /// Sends a request with extensions for the layers:
    /// [`Idempotent`](crate::protocol::http::Idempotent), [`Timeouts`](crate::Timeouts), or a
    /// [`Deadline`](crate::Deadline).
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn execute_with<B>(
        &self,
        request: C::Request,
        extend: impl FnOnce(&mut Extensions),
    ) -> Result<C::Response, KeptError<C::Error>>
    where
        S: Service<Request<C::Body>, Response = Response<B>, Error: Into<BoxError>> + Clone,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
    {
        let timeout = C::timeout(&request);
        let mut request = C::into_http(request).map_err(KeptError::Inner)?;
        extend(request.extensions_mut());
        request.extensions_mut().insert(OwnRequest { timeout });
        let response = self.service.clone().oneshot(request).await;
        let response = response.map_err(|error| KeptError::read(error.into()))?;
        Ok(C::respond(response.map(own_body::<C, B>)))
    }

    /// Builds a request and sends it through the layers, in place of reqwest's
    /// `RequestBuilder::send`.
    ///
    /// # Errors
    /// The errors of [`execute`](Self::execute), and errors of the request itself.
    pub async fn send<B>(
        &self,
        request: C::RequestBuilder,
    ) -> Result<C::Response, KeptError<C::Error>>
    where
        S: Service<Request<C::Body>, Response = Response<B>, Error: Into<BoxError>> + Clone,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
    {
        let request = C::build(request).map_err(KeptError::Inner)?;
        self.execute(request).await
    }
}

/// Returns reqwest's own body as it is, and wraps any other in reqwest's body.
fn own_body<C: ReqwestClient, B>(body: B) -> C::Body
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    let mut body = Some(body);
    let any: &mut dyn Any = &mut body;
    let own = any.downcast_mut::<Option<C::Body>>().and_then(Option::take);
    own.or_else(|| body.map(C::wrap))
        .expect("one of the two has taken it")
}

impl<E: error::Error + Send + Sync + 'static> KeptError<E> {
    fn read(error: BoxError) -> Self {
        let error = match error.downcast::<Error<E>>() {
            Ok(error) => return Self::Inner(error.into_inner()),
            Err(error) => error,
        };
        match error.downcast::<Rejected>() {
            Ok(rejected) => Self::Rejected(*rejected),
            Err(error) => Self::Other(error),
        }
    }
}

impl<E> KeptError<E> {
    /// Returns reqwest's own error, if it was one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the rejection, if a layer has rejected the call or ended it early.
    pub fn rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Rejected(rejected) => Some(rejected),
            _ => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for KeptError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(error) => error.fmt(f),
            Self::Rejected(rejected) => rejected.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl<E: error::Error + 'static> error::Error for KeptError<E> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Rejected(rejected) => Some(rejected),
            Self::Other(error) => Some(&**error),
        }
    }
}
