//! Ways to keep a request's body for a retry.

use std::fmt;

use bytes::Bytes;
use http_body::Body;

use super::replay::{ReplayBody, Tape};

/// A way in which a [`Client`](super::Client) keeps the bodies `B` of requests.
///
/// | made by | requests are sent with | for bodies that are |
/// |---|---|---|
/// | [`Client::new`](super::Client::new): [`RecordBody`] | a [`ReplayBody<B>`] | any `Body<Data = Bytes> + Unpin`, streams too |
/// | [`clone_body`](super::Client::clone_body): [`CloneBody`] | the caller's `B` | `Clone` |
/// | [`copy_body`](super::Client::copy_body): [`CopyBody`] | the caller's `B` | what the closure can copy |
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot keep a request's body of type `{B}` to send it again",
    note = "`http::Client::new()` records a body that is `Body<Data = Bytes> + Unpin`, `.clone_body()` one that is `Clone`, and `.copy_body(..)` takes a `Fn(&B) -> Option<B>` of just that type"
)]
pub trait KeepBody<B>: Clone {
    /// The body that is sent.
    type Body;
    /// The part of the body that is kept.
    type Kept;

    /// Prepares a body to be sent once. Nothing is kept.
    fn once(&self, body: B) -> Self::Body;

    /// Splits a body into what is sent first, and what is kept, if possible. `limit` is the most
    /// bytes that the caller allows to record.
    fn keep(&self, body: B, idempotent: bool, limit: usize) -> (Self::Body, Option<Self::Kept>);

    /// Makes the body again, if that is possible by now.
    fn again(&self, kept: &Self::Kept) -> Option<Self::Body>;

    /// Returns whether anything has taken the last attempt's body in order to send it, if that can
    /// be seen.
    fn was_taken(&self, kept: &Self::Kept) -> Option<bool>;
}

/// Records bodies while they are sent, up to a [limit](super::Client::body_limit).
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordBody;

/// Clones bodies, and keeps their type.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneBody;

/// Copies bodies with a closure, and keeps their type.
#[derive(Clone, Copy)]
pub struct CopyBody<F>(pub(super) F);

impl<B: Body<Data = Bytes> + Unpin> KeepBody<B> for RecordBody {
    type Body = ReplayBody<B>;
    type Kept = Tape<B>;

    fn once(&self, body: B) -> ReplayBody<B> {
        ReplayBody::unrecorded(body)
    }

    fn keep(&self, body: B, idempotent: bool, limit: usize) -> (ReplayBody<B>, Option<Tape<B>>) {
        match idempotent {
            true => ReplayBody::record(body, limit),
            // The request may be replayed only if its body was not taken, so watch that.
            false => ReplayBody::watch(body, limit),
        }
    }

    fn again(&self, tape: &Tape<B>) -> Option<ReplayBody<B>> {
        tape.play()
    }

    fn was_taken(&self, tape: &Tape<B>) -> Option<bool> {
        Some(tape.was_taken())
    }
}

impl<B: Clone> KeepBody<B> for CloneBody {
    type Body = B;
    type Kept = B;

    fn once(&self, body: B) -> B {
        body
    }

    fn keep(&self, body: B, _: bool, _: usize) -> (B, Option<B>) {
        let kept = body.clone();
        (body, Some(kept))
    }

    fn again(&self, kept: &B) -> Option<B> {
        Some(kept.clone())
    }

    fn was_taken(&self, _: &B) -> Option<bool> {
        None
    }
}

impl<F, B> KeepBody<B> for CopyBody<F>
where
    F: Fn(&B) -> Option<B> + Clone,
{
    type Body = B;
    type Kept = B;

    fn once(&self, body: B) -> B {
        body
    }

    fn keep(&self, body: B, _: bool, _: usize) -> (B, Option<B>) {
        let kept = (self.0)(&body);
        (body, kept)
    }

    fn again(&self, kept: &B) -> Option<B> {
        (self.0)(kept)
    }

    fn was_taken(&self, _: &B) -> Option<bool> {
        None
    }
}

impl<F> fmt::Debug for CopyBody<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CopyBody")
    }
}
