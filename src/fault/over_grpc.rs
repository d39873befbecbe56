//! Faults over gRPC.

use http::{Request, Response};
use http_body::Body;
use tonic::{ConnectError, Status};
use tower::BoxError;

use crate::{
    fault::{
        FaultBody, Injected,
        broken::Broken,
        connection::{self, Fails},
        inject::{Answering, FaultProtocol, Inject},
        kind::{self, Answer, Kind},
        over_http::{self, NEEDS_CLIENT},
    },
    protocol::{
        grpc::{Client, Pushback, Server},
        http::Attempt,
    },
};

impl FaultProtocol for Client {
    fn supports(_: &Kind) -> Result<(), &'static str> {
        Ok(())
    }
}

impl FaultProtocol for Server {
    fn supports(kind: &Kind) -> Result<(), &'static str> {
        match kind {
            Kind::Answer(Answer::Refused | Answer::Reset) => Err(NEEDS_CLIENT),
            _ => Ok(()),
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
        over_http::pass(result, broken).map_err(Into::into)
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
            let error = connection::send(request, fails).await;
            Err(match fails {
                // The error of a channel.
                Fails::Refused => ConnectError(error.into()).into(),
                Fails::Reset => error.into(),
            })
        }))
    }

    fn mark(response: &mut Self::Response, injected: Injected) {
        response.extensions_mut().insert(injected);
    }

    fn attempt(request: &Request<B>) -> u32 {
        Attempt::of(request.extensions()).0
    }
}

impl<B, ResBody, Err> Inject<Request<B>, Response<ResBody>, Err> for Server {
    type Response = Response<FaultBody<ResBody>>;
    type Error = Err;

    #[inline]
    fn pass(
        result: Result<Response<ResBody>, Err>,
        broken: Option<(Box<Broken>, Injected)>,
    ) -> Result<Self::Response, Err> {
        over_http::pass(result, broken)
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

/// Returns the response with a gRPC status, or with the HTTP status of a proxy.
fn response<B>(answer: &Answer) -> Response<FaultBody<B>> {
    let Answer::Grpc { code, pushback } = answer else {
        return over_http::response(answer);
    };
    let mut response = Status::new(*code, "injected fault").into_http();
    let pushback = match *pushback {
        kind::Pushback::Unsaid => Pushback::None,
        kind::Pushback::After(wait) => Pushback::After(wait),
        kind::Pushback::Never => Pushback::Never,
    };
    pushback.write(response.headers_mut());
    response
}
