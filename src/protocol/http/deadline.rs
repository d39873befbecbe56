//! Deadlines, in the extensions of a request and in its header.

use http::Request;

use super::{Client, RequestHead, Server, UntilBodyEnd, deadline_fields::read};
use crate::{CallSettings, CarryDeadline, Deadline, Timeouts};

impl<K, B> CarryDeadline<Request<B>> for Client<K> {
    #[inline]
    fn deadline(&self, request: &Request<B>) -> Option<Deadline> {
        request.extensions().get().copied()
    }

    fn set_deadline(&self, request: &mut Request<B>, deadline: Deadline) {
        request.extensions_mut().insert(deadline);
        self.refresh_deadline(request);
    }

    fn refresh_deadline(&self, request: &mut Request<B>) {
        self.tell_deadline(request);
    }

    #[inline]
    fn wants_deadline(&self, total: bool) -> bool {
        total || self.sends_deadline()
    }

    #[inline]
    fn timeouts(&self, request: &Request<B>) -> Option<Timeouts> {
        Some(self.settings_of(&RequestHead::of(request)).timeouts)
    }

    #[inline]
    fn settings(&self, request: &Request<B>) -> CallSettings {
        self.settings_of(&RequestHead::of(request))
    }
}

impl<B, R> CarryDeadline<Request<B>> for Server<R> {
    #[inline]
    fn deadline(&self, request: &Request<B>) -> Option<Deadline> {
        let carried = request.extensions().get().copied();
        if carried.is_none() && self.reads_deadline() {
            return read(request.headers()).map(Deadline::after);
        }
        carried
    }

    fn set_deadline(&self, request: &mut Request<B>, deadline: Deadline) {
        request.extensions_mut().insert(deadline);
    }

    /// Returns whether a deadline is kept. One that was read from the header is: otherwise the next
    /// layer would start its time again.
    #[inline]
    fn wants_deadline(&self, total: bool) -> bool {
        total || self.reads_deadline()
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

impl<P, Req> CarryDeadline<Req> for UntilBodyEnd<P>
where
    P: CarryDeadline<Req>,
{
    #[inline]
    fn deadline(&self, request: &Req) -> Option<Deadline> {
        self.inner().deadline(request)
    }

    fn set_deadline(&self, request: &mut Req, deadline: Deadline) {
        self.inner().set_deadline(request, deadline);
    }

    fn refresh_deadline(&self, request: &mut Req) {
        self.inner().refresh_deadline(request);
    }

    #[inline]
    fn wants_deadline(&self, total: bool) -> bool {
        self.inner().wants_deadline(total)
    }

    #[inline]
    fn timeouts(&self, request: &Req) -> Option<Timeouts> {
        self.inner().timeouts(request)
    }

    #[inline]
    fn settings(&self, request: &Req) -> CallSettings {
        self.inner().settings(request)
    }
}
