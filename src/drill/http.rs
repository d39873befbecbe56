//! HTTP: the upstream as a client, or as a handler.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tower::{BoxError, Service};

use super::{
    Body,
    caller::{Caller, Calling, End, Kind},
    jobs::Answer,
    world::{Sending, World},
};
use crate::Rejected;

/// Drills over HTTP.
#[derive(Debug)]
pub struct Http(());

/// The modelled upstreams, as an HTTP client. A request goes to the upstream whose name is the host
/// of its URI, and to the first if there is none of that name.
///
/// A refused or broken connection is an [`io::Error`] of that kind: after a refused one nothing was
/// sent, after a broken one nobody knows. Cheap to clone. It is always ready: calls wait at the
/// upstream.
#[derive(Clone)]
pub struct HttpUpstream {
    world: World,
    handlers: Vec<(String, Handler)>,
}

/// Makes responses, as the user's own service does.
type Handler = Arc<dyn Fn(Request<Body>) -> Handling + Send + Sync>;
type Handling = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;
/// Makes a new handler for each run.
type MakeHandler = Arc<dyn Fn() -> Handler + Send + Sync>;

/// The user's own services, by the upstream that they stand for.
#[derive(Default, Clone)]
pub struct Handlers(Vec<(String, MakeHandler)>);

/// Traffic over HTTP: a [`Request`], or a builder of one without a body.
pub trait IntoRequest {
    /// The request.
    ///
    /// # Panics
    /// A builder that was given something that is not HTTP.
    fn into_request(self) -> Request<Body>;
}

impl<B: Into<Body>> IntoRequest for Request<B> {
    fn into_request(self) -> Request<Body> {
        self.map(Into::into)
    }
}

impl IntoRequest for http::request::Builder {
    fn into_request(self) -> Request<Body> {
        match self.body(Body::default()) {
            Ok(request) => request,
            Err(error) => panic!("the drill's traffic is not HTTP: {error}"),
        }
    }
}

impl Handlers {
    pub(super) fn add<S, B>(&mut self, name: String, make: impl Fn() -> S + Send + Sync + 'static)
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let make = move || -> Handler {
            let service = make();
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
        };
        self.0.push((name, Arc::new(make)));
    }
}

impl Kind for Http {
    type Request = Request<Body>;
    type Upstream = HttpUpstream;
    type Handlers = Handlers;

    fn upstream(world: World, handlers: &Handlers) -> HttpUpstream {
        let made = handlers.0.iter();
        let handlers = made.map(|(name, make)| (name.clone(), make())).collect();
        HttpUpstream { world, handlers }
    }

    fn bare(upstream: HttpUpstream) -> Box<dyn Caller<Request<Body>>> {
        Box::new(HttpCaller(upstream))
    }
}

impl<B> Service<Request<B>> for HttpUpstream
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = HttpAnswer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> HttpAnswer {
        let host = request.uri().host();
        let handler = self.handlers.iter();
        let mut handler = handler.filter(|(name, _)| host.is_none_or(|host| host == name));
        let handler = handler.next().map(|(_, handler)| handler.clone());
        let sending = self.world.send(self.world.number(host));
        HttpAnswer {
            sending: Some(sending),
            // A handler gets the request. Without one it is dropped with its body when the call
            // ends, as a client that sends it would.
            request: Some(request.map(Body::unseen)),
            handler,
            handling: None,
        }
    }
}

/// The response of an [`HttpUpstream`], to come.
#[must_use = "futures do nothing unless polled"]
pub struct HttpAnswer {
    /// `None` once the upstream has answered.
    sending: Option<Sending>,
    request: Option<Request<Body>>,
    handler: Option<Handler>,
    handling: Option<Handling>,
}

impl Future for HttpAnswer {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(sending) = &mut this.sending {
            let answer = match Pin::new(sending).poll(context) {
                Poll::Ready(answer) => answer,
                Poll::Pending => return Poll::Pending,
            };
            this.sending = None;
            let request = this.request.take();
            match (answer, this.handler.take(), request) {
                (Answer::Well, Some(handler), Some(request)) => {
                    this.handling = Some(handler(request));
                }
                _ => return Poll::Ready(respond(answer)),
            }
        }
        match &mut this.handling {
            Some(handling) => handling.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

fn respond(answer: Answer) -> Result<Response<Body>, BoxError> {
    let status = match answer {
        Answer::Well => StatusCode::OK,
        Answer::Failed(status) => {
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Answer::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        // Of the types that std and hyper have, so that a layer reads them as it reads theirs.
        Answer::Refused => return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
        Answer::Reset => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
    };
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    Ok(response)
}

/// A stack over HTTP, called as a client calls it: response and body.
pub(super) struct HttpCaller<S>(pub(super) S);

impl<S, B> Caller<Request<Body>> for HttpCaller<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + 'static,
{
    fn call(&self, request: Request<Body>) -> Calling {
        let mut service = self.0.clone();
        Box::pin(async move {
            if let Err(error) = poll_fn(|context| service.poll_ready(context)).await {
                return End::of_error(error);
            }
            match service.call(request).await {
                Ok(response) => read(response).await,
                Err(error) => End::of_error(error),
            }
        })
    }
}

/// Reads a response to the end of its body.
async fn read<B: http_body::Body>(response: Response<B>) -> End {
    let (parts, body) = response.into_parts();
    let end = match parts.extensions.get::<Rejected>() {
        Some(rejected) => End::Rejected(rejected.kind),
        None if parts.status.is_server_error() => End::Failed,
        None if parts.status == StatusCode::TOO_MANY_REQUESTS => End::Failed,
        None => End::Answered,
    };
    if body.is_end_stream() {
        return end;
    }
    let mut body = pin!(body);
    loop {
        match poll_fn(|context| body.as_mut().poll_frame(context)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return End::Failed,
            None => return end,
        }
    }
}

impl fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpUpstream").finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAnswer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}
