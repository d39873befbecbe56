//! Connections that are refused or reset, and the errors that hyper's own client makes of them.
//!
//! Neither error can be constructed, and an imitation would be classified differently: their types
//! tell whether a request was sent. So the request goes through hyper's client, whose connector
//! fails, or returns a connection that breaks.

use std::{
    future::{Future, Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http::{Request, Uri, Version, uri};
use http_body::Body;
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper_util::client::legacy::{
    self, Client,
    connect::{Connected, Connection},
};
use tower::{BoxError, Service};

/// Ways in which a connection fails.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fails {
    /// No connection can be made.
    Refused,
    /// The connection is reset while the request is sent.
    Reset,
}

/// Sends a request so that it fails in this way.
pub(super) async fn send<B>(request: Request<B>, fails: Fails) -> legacy::Error
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let client = Client::builder(OnTokio)
        .pool_max_idle_per_host(0)
        .retry_canceled_requests(false)
        .build(Connector(fails));
    // Boxed, because hyper's client moves it.
    let request = sendable(request).map(Box::pin);
    match client.request(request).await {
        Err(error) => error,
        Ok(_) => unreachable!("nothing is read from such a connection"),
    }
}

/// Returns a request that hyper's client sends: it requires a host, and HTTP/1.
fn sendable<B>(mut request: Request<B>) -> Request<B> {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().authority().is_none() {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(uri::Authority::from_static("fault.invalid"));
        if parts.path_and_query.is_none() {
            parts.path_and_query = Some(uri::PathAndQuery::from_static("/"));
        }
        // All three parts are present, so the URI is valid.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
    request
}

/// Runs hyper's connections on the current runtime.
#[derive(Debug, Clone, Copy)]
struct OnTokio;

impl<F> Executor<F> for OnTokio
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

#[derive(Debug, Clone, Copy)]
struct Connector(Fails);

impl Service<Uri> for Connector {
    type Response = Breaking;
    type Error = io::Error;
    type Future = Ready<io::Result<Breaking>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(match self.0 {
            Fails::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
            Fails::Reset => Ok(Breaking::default()),
        })
    }
}

/// A connection that accepts what is written, and is then reset.
#[derive(Debug, Default)]
struct Breaking {
    written: bool,
    reader: Option<Waker>,
}

impl Connection for Breaking {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.written {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Write for Breaking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
