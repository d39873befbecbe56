//! Protocols, as faults see them.

use std::{fmt, future::Future, pin::Pin};

use crate::fault::{
    Injected,
    broken::Broken,
    kind::{Answer, Kind},
};

/// A protocol that has faults.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot inject faults",
    note = "choose a protocol: `.protocol(http::Client::new())`, `http::Server`, `grpc::Client`, `grpc::Server` or `Plain`"
)]
pub trait FaultProtocol {
    /// Returns whether the protocol has such a fault.
    ///
    /// # Errors
    /// The protocol that has.
    fn supports(kind: &Kind) -> Result<(), &'static str>;
}

/// The way of faults in a protocol, before a service that answers a `Req` with `Result<Res, Err>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot inject faults before a service that answers `{Req}` with `Result<{Res}, {Err}>`",
    note = "`http::Client` and `grpc::Client` need an `http::Request` with a `Send` body, an `http::Response`, and an error that is `Into<BoxError>`",
    note = "`http::Server` and `grpc::Server` need an `http::Response`; `Plain` needs an error that is `Into<BoxError>`"
)]
pub trait Inject<Req, Res, Err>: FaultProtocol {
    /// The response of the service with faults.
    type Response;
    /// Its error.
    type Error;

    /// Passes a result on, with a body that breaks if there is one.
    ///
    /// # Errors
    /// The service's own.
    fn pass(
        result: Result<Res, Err>,
        broken: Option<(Box<Broken>, Injected)>,
    ) -> Result<Self::Response, Self::Error>;

    /// Passes on what the service's `poll_ready` failed with.
    fn not_ready(error: Err) -> Self::Error;

    /// Answers in place of the service. Only answers that the protocol
    /// [supports](FaultProtocol::supports) are asked for.
    fn answer(answer: &Answer, request: Req) -> Answering<Self::Response, Self::Error>;

    /// Marks a response that was injected.
    fn mark(response: &mut Self::Response, injected: Injected);

    /// The number of the attempt that a request is, from 1. By default requests do not know.
    fn attempt(request: &Req) -> u32 {
        let _ = request;
        1
    }
}

/// An answer that was made, or is being made.
pub enum Answering<Res, Err> {
    /// At once.
    Made(Result<Res, Err>),
    /// Later, by a client of its own.
    Making(Pin<Box<dyn Future<Output = Result<Res, Err>> + Send>>),
}

impl<Res, Err> fmt::Debug for Answering<Res, Err> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made(_) => "Made",
            Self::Making(_) => "Making",
        })
    }
}
