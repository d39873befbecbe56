//! Faults over HTTP.

use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body::Body;
use tower::BoxError;

use crate::{
    fault::{
        FaultBody, Injected,
        broken::Broken,
        connection::{self, Fails},
        inject::{Answering, FaultProtocol, Inject},
        kind::{Answer, Kind},
    },
    protocol::http::{Attempt, Client, Server, retry_after_seconds},
};

impl FaultProtocol for Client {
    fn supports(kind: &Kind) -> Result<(), &'static str> {
        match kind {
            #[cfg(feature = "tonic-014")]
            Kind::Answer(Answer::Grpc { .. }) => Err(NEEDS_GRPC),
            _ => Ok(()),
        }
    }
}

impl<R> FaultProtocol for Server<R> {
    fn supports(kind: &Kind) -> Result<(), &'static str> {
        match kind {
            Kind::Answer(Answer::Refused | Answer::Reset) => Err(NEEDS_CLIENT),
            kind => Client::supports(kind),
        }
    }
}

impl<B, ResBody, Err> Inject<Request<B>, Response<ResBody>, Err> for Client
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    Err: Into<BoxError>,
{
    type Response = Response<FaultBody<ResBody>>;
    type Error = BoxError;

    #[inline]
    fn pass(
        result: Result<Response<ResBody>, Err>,
        broken: Option<(Box<Broken>, Injected)>,
    ) -> Result<Self::Response, BoxError> {
        pass(result, broken).map_err(Into::into)
    }

    fn not_ready(error: Err) -> BoxError {
        error.into()
    }

    fn answer(answer: &Answer, request: Request<B>) -> Answering<Self::Response, BoxError> {
        let fails = match answer {
            Answer::Refused => Fails::Refused,
            Answer::Reset => Fails::Reset,
            answer => return Answering::Made(Ok(response(answer))),
        };
        Answering::Making(Box::pin(async move {
            Err(connection::send(request, fails).await.into())
        }))
    }

    fn mark(response: &mut Self::Response, injected: Injected) {
        response.extensions_mut().insert(injected);
    }

    fn attempt(request: &Request<B>) -> u32 {
        Attempt::of(request.extensions()).0
    }
}

impl<R, B, ResBody, Err> Inject<Request<B>, Response<ResBody>, Err> for Server<R> {
    type Response = Response<FaultBody<ResBody>>;
    type Error = Err;

    #[inline]
    fn pass(
        result: Result<Response<ResBody>, Err>,
        broken: Option<(Box<Broken>, Injected)>,
    ) -> Result<Self::Response, Err> {
        pass(result, broken)
    }

    fn not_ready(error: Err) -> Err {
        error
    }

    fn answer(answer: &Answer, _: Request<B>) -> Answering<Self::Response, Err> {
        Answering::Made(Ok(response(answer)))
    }

    fn mark(response: &mut Self::Response, injected: Injected) {
        response.extensions_mut().insert(injected);
    }

    fn attempt(request: &Request<B>) -> u32 {
        Attempt::of(request.extensions()).0
    }
}

/// Passes a response on, and marks it if its body breaks.
pub(super) fn pass<B, Err>(
    result: Result<Response<B>, Err>,
    broken: Option<(Box<Broken>, Injected)>,
) -> Result<Response<FaultBody<B>>, Err> {
    result.map(|mut response| {
        let broken = broken.map(|(broken, injected)| {
            response.extensions_mut().insert(injected);
            broken
        });
        response.map(|body| FaultBody::of_service(body, broken))
    })
}

/// Returns the response with a status. A failed connection has no response.
pub(super) fn response<B>(answer: &Answer) -> Response<FaultBody<B>> {
    let mut response = Response::new(FaultBody::default());
    match answer {
        Answer::Status { code, retry_after } => {
            *response.status_mut() = *code;
            let wait = retry_after.map(retry_after_seconds);
            let fields = response.headers_mut();
            fields.extend(wait.map(|wait| (RETRY_AFTER, wait.into())));
        }
        _ => *response.status_mut() = StatusCode::BAD_GATEWAY,
    }
    response
}

pub(super) const NEEDS_CLIENT: &str =
    "put it before a client: a server cannot refuse a connection that it has accepted";
#[cfg(feature = "tonic-014")]
const NEEDS_GRPC: &str = "use it with `grpc::Client` or `grpc::Server`";
