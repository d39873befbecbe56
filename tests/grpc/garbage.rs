//! Whatever an upstream sends is read without a panic, passed on unchanged, and settled once.

use std::{cell::Cell, convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use proptest::prelude::*;
use tower::BoxError;
use tower_keep::{
    Outcome,
    protocol::{
        Protocol, Settle,
        grpc::{Client, Server},
    },
};

/// A permit that counts how often it is settled.
struct Counted<'a>(&'a Cell<usize>);

impl Settle for Counted<'_> {
    fn settle(self, _: Outcome, _: Option<Duration>) {
        self.0.set(self.0.get() + 1);
    }
}

/// A piece of a body.
#[derive(Debug, Clone)]
enum Piece {
    Data(Vec<u8>),
    Trailers(HeaderMap),
    Failed,
}

type Garbled = UnsyncBoxBody<Bytes, BoxError>;

fn response(status: u16, head: &HeaderMap, pieces: &[Piece]) -> Response<Garbled> {
    let frames: Vec<_> = pieces.iter().map(Piece::frame).collect();
    let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = head.clone();
    response
}

impl Piece {
    fn frame(&self) -> Result<Frame<Bytes>, BoxError> {
        match self {
            Self::Data(data) => Ok(Frame::data(data.clone().into())),
            Self::Trailers(trailers) => Ok(Frame::trailers(trailers.clone())),
            Self::Failed => Err("reset".into()),
        }
    }
}

/// What a body hands out, to its end.
fn read(mut body: impl Body<Data = Bytes, Error = BoxError> + Unpin) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().now_or_never().unwrap() {
        seen.push(format!("{frame:?}"));
    }
    seen
}

/// Fields with names that gRPC reads, and values that are plausible or anything.
fn fields() -> impl Strategy<Value = HeaderMap> {
    const NAMES: [&str; 6] = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "grpc-retry-pushback-ms",
        "content-type",
        "retry-after",
    ];
    let value = prop_oneof![
        "-?[0-9]{1,22}".prop_map(String::into_bytes),
        Just(b"application/grpc".to_vec()),
        prop::collection::vec(any::<u8>(), 0..16),
    ];
    prop::collection::vec((prop::sample::select(&NAMES[..]), value), 0..5).prop_map(|fields| {
        let field = |(name, value): (&'static str, Vec<u8>)| {
            let value = HeaderValue::from_bytes(&value).ok()?;
            Some((HeaderName::from_static(name), value))
        };
        fields.into_iter().filter_map(field).collect()
    })
}

/// Mostly that of gRPC: others say all by themselves.
fn statuses() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(200), 1 => 100..1000_u16]
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Piece::Data),
        fields().prop_map(Piece::Trailers),
        Just(Piece::Failed),
    ];
    prop::collection::vec(piece, 0..5)
}

proptest! {
    #[test]
    fn any_response_is_settled_once_and_passed_on(
        status in statuses(),
        head in fields(),
        pieces in pieces(),
    ) {
        let response = || response(status, &head, &pieces);
        let whole = read(response().into_body());

        let settled = Cell::new(0);
        let result: Result<_, Infallible> = Ok(response());
        let seen = Client::new().settle(result, Counted(&settled)).unwrap();
        prop_assert_eq!(read(seen.into_body()), &whole[..]);
        prop_assert_eq!(settled.get(), 1);

        let result: Result<_, Infallible> = Ok(response());
        let seen = Server::new().settle(result, Counted(&settled)).unwrap();
        prop_assert_eq!(read(seen.into_body()), &whole[..]);
        prop_assert_eq!(settled.get(), 2);
    }

    #[test]
    fn a_retry_reads_any_response(status in statuses(), head in fields(), pieces in pieces()) {
        let whole = read(response(status, &head, &pieces).into_body());
        let client = Client::new();
        let result: Result<_, Infallible> = Ok(response(status, &head, &pieces));
        let seen = client.settle(result, ());
        let _ = Protocol::<Response<Garbled>, Infallible>::advise(
            &client,
            Outcome::Failure,
            seen.as_ref(),
        );
        prop_assert_eq!(read(seen.unwrap().into_body()), whole);
    }
}
