//! HTTP: the upstreams as a client.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tower::{BoxError, Service};

use super::{
    Body,
    caller::{CallEnd, Caller, Calling, Kind},
    grpc::{self, Wire},
    jobs::UpstreamAnswer,
    run::MakeStack,
    services::{Handler, Handlers, Handling, Services},
    world::{Sending, World},
};
use crate::{Rejected, drill::DrillError};

/// Drills over HTTP.
#[derive(Debug)]
pub struct Http(());

/// The modelled upstreams, as an HTTP client. A request goes to the upstream whose name is the host
/// of its URI. A single upstream gets all requests. With several, one without a host goes to the
/// first, and one to an unknown host ends the drill with an error.
///
/// A refused or broken connection is an [`io::Error`](std::io::Error) of that kind. After a refused
/// one nothing was sent. After a broken one that is unknown. Cheap to clone. Always ready: calls
/// wait at the upstream.
#[derive(Clone)]
pub struct HttpUpstream {
    world: World,
    services: Arc<Services>,
    /// The name of the tier that calls. Its requests to that name go to the modelled upstream.
    caller: Option<Arc<str>>,
}

/// Traffic over HTTP: a [`Request`], or a builder of one without a body.
pub trait IntoRequest {
    /// Returns the request.
    ///
    /// # Panics
    /// A builder with an invalid part.
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

impl Kind for Http {
    type Request = Request<Body>;
    type Upstream = HttpUpstream;
    type Handlers = Handlers<HttpUpstream>;

    fn upstream(world: World, handlers: &Handlers<HttpUpstream>) -> Result<HttpUpstream, BoxError> {
        if let Some(unknown) = handlers.unknown(&world) {
            let names = world.names();
            let fix = format!("a handler is that of `{unknown}`, but the upstreams are {names}");
            return Err(DrillError::setting("handler", fix).into());
        }
        let upstream = HttpUpstream {
            world,
            services: Arc::new(handlers.of_upstreams()),
            caller: None,
        };
        for (name, make) in handlers.tiers() {
            let tier = make(HttpUpstream {
                caller: Some(name.as_str().into()),
                ..upstream.clone()
            })?;
            upstream.services.add_tier(name.clone(), tier);
        }
        Ok(upstream)
    }

    fn release(upstream: &HttpUpstream) {
        upstream.services.release();
    }

    fn join(handlers: &mut Handlers<HttpUpstream>, other: Handlers<HttpUpstream>) {
        handlers.join(other);
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
        let is_caller = |host: &str| {
            self.caller
                .as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(host))
        };
        let tier = host.filter(|host| !is_caller(host));
        if let Some(tier) = tier.and_then(|host| self.services.tier(host)) {
            return HttpAnswer {
                handling: Some(tier(request.map(Body::unseen))),
                modelled: None,
            };
        }
        let number = self.world.number(host);
        let modelled = Modelled {
            // A single upstream has any host.
            handler: self.services.handler(self.world.name(number)),
            wire: self.services.wire,
            sending: self.world.send(number),
            // A handler receives the request. Without one it is dropped with its body when the call
            // ends, as by a client that sends it.
            request: request.map(Body::unseen),
        };
        HttpAnswer {
            modelled: Some(modelled),
            handling: None,
        }
    }
}

/// The response future of an [`HttpUpstream`].
#[must_use = "futures do nothing unless polled"]
pub struct HttpAnswer {
    /// `None` once the modelled upstream has answered, and for a tier.
    modelled: Option<Modelled>,
    handling: Option<Handling>,
}

/// A call at a modelled upstream.
struct Modelled {
    sending: Sending,
    request: Request<Body>,
    handler: Option<Handler>,
    wire: Wire,
}

impl Future for HttpAnswer {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(mut modelled) = this.modelled.take() {
            let Poll::Ready(answer) = Pin::new(&mut modelled.sending).poll(context) else {
                this.modelled = Some(modelled);
                return Poll::Pending;
            };
            match (answer, modelled.handler) {
                (UpstreamAnswer::Well, Some(handler)) => {
                    this.handling = Some(handler(modelled.request));
                }
                _ => return Poll::Ready(modelled.wire.respond(answer)),
            }
        }
        match &mut this.handling {
            Some(handling) => handling.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

pub(super) fn http_stack<S, B>(
    stack: impl Fn(HttpUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
) -> MakeStack<Http>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + 'static,
{
    Arc::new(move |upstream| Ok(Box::new(HttpCaller(stack(upstream)?))))
}

/// A stack over HTTP, called as a client calls it, which reads the response and its body.
struct HttpCaller<S>(S);

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
                return CallEnd::of_error(error);
            }
            match service.call(request).await {
                Ok(response) => read(response).await,
                Err(error) => CallEnd::of_error(error),
            }
        })
    }
}

/// Reads a response to the end of its body.
async fn read<B: http_body::Body>(response: Response<B>) -> CallEnd {
    let (parts, body) = response.into_parts();
    let is_grpc = grpc::is_grpc(&parts.headers);
    let end = match parts.extensions.get::<Rejected>() {
        Some(rejected) => CallEnd::Rejected(rejected.kind),
        None if parts.status.is_server_error() => CallEnd::Failed,
        None if parts.status == StatusCode::TOO_MANY_REQUESTS => CallEnd::Failed,
        None if is_grpc && grpc::went_well(&parts.headers) == Some(false) => CallEnd::Failed,
        None => CallEnd::Answered,
    };
    if body.is_end_stream() {
        return end;
    }
    let mut body = pin!(body);
    loop {
        match poll_fn(|context| body.as_mut().poll_frame(context)).await {
            Some(Ok(frame)) => {
                let trailers = frame.trailers_ref().filter(|_| is_grpc);
                if trailers.and_then(grpc::went_well) == Some(false) {
                    return CallEnd::Failed;
                }
            }
            Some(Err(_)) => return CallEnd::Failed,
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
