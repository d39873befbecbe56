//! A request kept for a retry.

use std::{any::Any, fmt};

use http::{Method, Request, header::UPGRADE, request::Parts};

#[cfg(feature = "tonic-014")]
use super::replay::Tape;
use super::{Client, Idempotent, KeepBody, NotIdempotent, RequestHead};
use crate::{
    Deadline,
    protocol::{Changing, Kept, Replay},
};

impl<K: KeepBody<B>, B> Replay<Request<B>> for Client<K> {
    type Request = Request<K::Body>;
    type Snapshot = RequestSnapshot<K::Kept>;

    fn once(&self, request: Request<B>) -> Self::Request {
        request.map(|body| self.bodies().once(body))
    }

    fn prepare(&self, request: Request<B>) -> (Self::Request, Option<Kept<Self::Snapshot>>) {
        let (parts, body) = request.into_parts();
        let idempotent = is_idempotent(self, &parts);
        let attempts = self.settings_of(&RequestHead::of_parts(&parts)).attempts;
        let (body, kept) = self.bodies().keep(body, idempotent, self.longest_kept());
        let kept = kept.map(|body| Kept {
            idempotent,
            attempts,
            snapshot: RequestSnapshot {
                head: parts.clone(),
                body,
            },
        });
        (Request::from_parts(parts, body), kept)
    }

    fn replay(&self, snapshot: &Self::Snapshot) -> Option<Self::Request> {
        let body = self.bodies().again(&snapshot.body)?;
        Some(Request::from_parts(snapshot.head.clone(), body))
    }

    fn head<'a>(&self, snapshot: &'a Self::Snapshot) -> Option<&'a dyn Any> {
        Some(&snapshot.head)
    }

    #[inline]
    fn number(&self, request: &mut Self::Request, attempt: u32) {
        self.number_request(request, attempt);
    }

    #[inline]
    fn changing(&self, request: &mut Self::Request, attempt: u32) -> Option<Changing> {
        self.changing_head(request, attempt)
    }

    fn change(&self, request: &mut Self::Request, to: Box<dyn Any + Send>) {
        self.changed_head(request, to);
    }

    #[inline]
    fn may_change(&self) -> bool {
        self.changes_heads()
    }

    #[inline]
    fn tell_remaining(&self, request: &mut Self::Request) {
        self.tell_deadline(request);
    }

    #[inline]
    fn deadline(&self, snapshot: &Self::Snapshot) -> Option<Deadline> {
        snapshot.head.extensions.get().copied()
    }

    #[inline]
    fn was_taken(&self, snapshot: &Self::Snapshot) -> bool {
        self.may_have_sent(self.bodies().was_taken(&snapshot.body))
    }

    #[inline]
    fn can_prove_unsent(&self) -> bool {
        !self.is_composite()
    }
}

/// A request kept for a retry: its head, and `T` of its body.
pub struct RequestSnapshot<T> {
    head: Parts,
    body: T,
}

/// Leaves out the URI, which may contain a password, and the fields.
impl<T> fmt::Debug for RequestSnapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSnapshot")
            .field("method", &self.head.method)
            .field("version", &self.head.version)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "tonic-014")]
impl<B> RequestSnapshot<Tape<B>> {
    /// Forgets that this crate has polled the body, which was not to send it.
    pub(in crate::protocol) fn forget_taken(&self) {
        self.body.forget();
    }
}

fn is_idempotent<K>(client: &Client<K>, head: &Parts) -> bool {
    if head.extensions.get::<NotIdempotent>().is_some() {
        return false;
    }
    let by_method = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    // The method says nothing about the use of an upgraded connection.
    by_method && !head.headers.contains_key(UPGRADE)
        || head.headers.contains_key("idempotency-key")
        || head.extensions.get::<Idempotent>().is_some()
        || client.accepts_as_idempotent(head)
}
