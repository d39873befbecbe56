//! Deadlines: in the extensions of a request, and in `grpc-timeout`.

use http::Request;

use super::{Client, Server};
use crate::{
    CallSettings, CarryDeadline, Deadline, Timeouts,
    protocol::http::{RequestHead, read_deadline, shorten_grpc},
};

/// A client's deadline is in `grpc-timeout`, as tonic's `Request::set_timeout` sets it. It holds
/// for the call with all its attempts.
impl<B> CarryDeadline<Request<B>> for Client {
    #[inline]
    fn deadline(&self, request: &Request<B>) -> Option<Deadline> {
        carried_or_told(request)
    }

    fn set_deadline(&self, request: &mut Request<B>, deadline: Deadline) {
        request.extensions_mut().insert(deadline);
        self.refresh_deadline(request);
    }

    /// Also shortens a `grpc-timeout` that the caller has set.
    fn refresh_deadline(&self, request: &mut Request<B>) {
        self.http().tell_deadline(request);
        if let Some(deadline) = request.extensions().get::<Deadline>().copied() {
            shorten_grpc(request.headers_mut(), deadline.remaining());
        }
    }

    #[inline]
    fn wants_deadline(&self, total: bool) -> bool {
        CarryDeadline::<Request<B>>::wants_deadline(self.http(), total)
    }

    #[inline]
    fn timeouts(&self, request: &Request<B>) -> Option<Timeouts> {
        self.http().timeouts(request)
    }

    #[inline]
    fn settings(&self, request: &Request<B>) -> CallSettings {
        self.http().settings(request)
    }
}

/// A server always honors the caller's `grpc-timeout`.
impl<B> CarryDeadline<Request<B>> for Server {
    #[inline]
    fn deadline(&self, request: &Request<B>) -> Option<Deadline> {
        carried_or_told(request)
    }

    fn set_deadline(&self, request: &mut Request<B>, deadline: Deadline) {
        request.extensions_mut().insert(deadline);
    }

    /// Returns `true`: the deadline read from the header is kept. Otherwise the next layer would
    /// start its time again.
    #[inline]
    fn wants_deadline(&self, _: bool) -> bool {
        true
    }

    #[inline]
    fn timeouts(&self, request: &Request<B>) -> Option<Timeouts> {
        Some(RequestHead::of(request).settings().timeouts)
    }

    #[inline]
    fn settings(&self, request: &Request<B>) -> CallSettings {
        RequestHead::of(request).settings()
    }
}

/// Returns the deadline of the extension, or else of the header. The header does not tell when its
/// time started.
#[inline]
fn carried_or_told<B>(request: &Request<B>) -> Option<Deadline> {
    let carried = request.extensions().get().copied();
    carried.or_else(|| read_deadline(request.headers()).map(Deadline::after))
}
