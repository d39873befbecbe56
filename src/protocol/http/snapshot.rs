//! What is kept of a request to make it again.

use std::{any::Any, fmt};

use bytes::Bytes;
use http::{Method, Request, header::UPGRADE, request::Parts};
use http_body::Body;

use super::{
    Client, Idempotent, NotIdempotent,
    replay::{ReplayBody, Tape},
};
use crate::{
    Deadline,
    protocol::{Kept, Replay},
};

impl<B> Replay<Request<B>> for Client
where
    B: Body<Data = Bytes> + Unpin,
{
    type Request = Request<ReplayBody<B>>;
    type Snapshot = RequestSnapshot<B>;

    fn once(&self, request: Request<B>) -> Self::Request {
        request.map(ReplayBody::unrecorded)
    }

    fn prepare(&self, request: Request<B>) -> (Self::Request, Option<Kept<RequestSnapshot<B>>>) {
        let (parts, body) = request.into_parts();
        let idempotent = is_idempotent(self, &parts);
        let (body, tape) = match idempotent {
            true => ReplayBody::record(body, self.longest_kept()),
            // Whether it was taken decides whether it may be sent again.
            false => ReplayBody::watch(body, self.longest_kept()),
        };
        let kept = tape.map(|tape| Kept {
            idempotent,
            snapshot: RequestSnapshot {
                head: parts.clone(),
                tape,
            },
        });
        (Request::from_parts(parts, body), kept)
    }

    fn replay(&self, snapshot: &RequestSnapshot<B>) -> Option<Self::Request> {
        let body = snapshot.tape.play()?;
        Some(Request::from_parts(snapshot.head.clone(), body))
    }

    fn head<'a>(&self, snapshot: &'a RequestSnapshot<B>) -> Option<&'a dyn Any> {
        Some(&snapshot.head)
    }

    #[inline]
    fn number(&self, request: &mut Self::Request, attempt: u32) {
        self.number_request(request, attempt);
    }

    #[inline]
    fn tell_remaining(&self, request: &mut Self::Request) {
        self.tell_deadline(request);
    }

    #[inline]
    fn deadline(&self, snapshot: &RequestSnapshot<B>) -> Option<Deadline> {
        snapshot.head.extensions.get().copied()
    }

    #[inline]
    fn was_taken(&self, snapshot: &RequestSnapshot<B>) -> bool {
        self.is_composite() || snapshot.tape.was_taken()
    }

    #[inline]
    fn can_prove_unsent(&self) -> bool {
        !self.is_composite()
    }
}

/// What is kept of a request to make it again: its head, and a recording of its body.
pub struct RequestSnapshot<B> {
    head: Parts,
    tape: Tape<B>,
}

/// Not the URI, which may name a password, nor the fields.
impl<B> fmt::Debug for RequestSnapshot<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSnapshot")
            .field("method", &self.head.method)
            .field("version", &self.head.version)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "tonic-014")]
impl<B> RequestSnapshot<B> {
    /// The body was looked into by our own side, and not to send it.
    pub(in crate::protocol) fn forget_taken(&self) {
        self.tape.forget();
    }
}

fn is_idempotent(client: &Client, head: &Parts) -> bool {
    if head.extensions.get::<NotIdempotent>().is_some() {
        return false;
    }
    let by_method = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    // What an upgraded connection is used for, no method tells.
    by_method && !head.headers.contains_key(UPGRADE)
        || head.headers.contains_key("idempotency-key")
        || head.extensions.get::<Idempotent>().is_some()
        || client.accepts_as_idempotent(head)
}
