//! The wire protocol: HTTP, or gRPC over it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use tower::BoxError;

use super::{Body, jobs::UpstreamAnswer};

/// The way in which an upstream answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Wire {
    #[default]
    Http,
    Grpc,
}

/// A body without a message, then trailers.
struct Trailers(Option<HeaderMap>);

impl Wire {
    /// Returns the response for an answer.
    ///
    /// # Errors
    /// The connection was refused, or broke.
    pub(super) fn respond(self, answer: UpstreamAnswer) -> Result<Response<Body>, BoxError> {
        match (self, answer) {
            // The errors have the types of std and hyper, so that a layer classifies them alike.
            (_, UpstreamAnswer::Refused) => {
                Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
            }
            (_, UpstreamAnswer::Reset) => {
                Err(io::Error::from(io::ErrorKind::ConnectionReset).into())
            }
            (Self::Http, answer) => Ok(of_status(answer)),
            (Self::Grpc, answer) => Ok(of_code(answer)),
        }
    }
}

fn of_status(answer: UpstreamAnswer) -> Response<Body> {
    let status = match answer {
        UpstreamAnswer::Well => StatusCode::OK,
        UpstreamAnswer::Failed(status) => {
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// Returns trailers after a good answer, and a failure as trailers only.
fn of_code(answer: UpstreamAnswer) -> Response<Body> {
    let mut response = Response::new(Body::default());
    let code = match answer {
        UpstreamAnswer::Well => {
            let mut trailers = HeaderMap::new();
            trailers.insert(STATUS, OK.into());
            *response.body_mut() = Body::new(Trailers(Some(trailers)));
            None
        }
        UpstreamAnswer::Failed(status) => Some(code(status)),
        _ => Some(RESOURCE_EXHAUSTED),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    if let Some(code) = code {
        headers.insert(STATUS, code.into());
    }
    response
}

/// Returns the code of a failure: the status itself up to 16, above that what a client makes of an
/// HTTP status.
fn code(status: u16) -> u16 {
    match status {
        0..=16 => status,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        400 | 500 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        _ => UNKNOWN,
    }
}

/// Returns whether a response is one of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()))
}

/// Returns whether headers or trailers report success. `None` if they do not tell.
pub(super) fn went_well(fields: &HeaderMap) -> Option<bool> {
    fields.get(STATUS).map(|code| code.as_bytes() == b"0")
}

impl http_body::Body for Trailers {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let trailers = self.0.take();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

const GRPC: &str = "application/grpc";
const STATUS: &str = "grpc-status";
const OK: u16 = 0;
const UNKNOWN: u16 = 2;
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;
