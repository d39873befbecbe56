//! The head of a request, as closures see it.

use http::{Extensions, HeaderMap, Method, Request, Uri, request::Parts};

use crate::{CallSettings, Timeouts};

/// The head of a request, for closures that read it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The URI, with the host over a client.
    pub uri: &'a Uri,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// The extensions.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    pub(in crate::protocol) fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    pub(in crate::protocol) fn of_parts(head: &'a Parts) -> Self {
        Self {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            extensions: &head.extensions,
        }
    }

    /// Returns the settings in the request's extensions.
    pub(in crate::protocol) fn settings(&self) -> CallSettings {
        let own = self.extensions.get::<CallSettings>().copied();
        let own = own.unwrap_or_default();
        match self.extensions.get::<Timeouts>() {
            Some(timeouts) => own.timeouts(timeouts.or(own.timeouts)),
            None => own,
        }
    }
}
