//! The protocols' support for faults.

use std::{fmt, future::Future, pin::Pin};

use crate::fault::{
    Injected,
    broken::Broken,
    kind::{Answer, Kind},
};

/// A protocol that supports faults.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot inject faults",
    note = "choose a protocol: `.protocol(http::Client::new())`, `http::Server`, `grpc::Client`, `grpc::Server` or `Plain`"
)]
pub trait FaultProtocol {
    /// Checks whether the protocol supports this fault.
    ///
    /// # Errors
    /// The protocol that supports it.
    fn supports(kind: &Kind) -> Result<(), &'static str>;
}

/// The faults of a protocol, for a service that answers a `Req` with `Result<Res, Err>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot inject faults before a service that answers `{Req}` with `Result<{Res}, {Err}>`",
    note = "`http::Client` and `grpc::Client` need an `http::Request` with a `Send` body, an `http::Response`, and an error that is `Into<BoxError>`",
    note = "`http::Server` and `grpc::Server` need an `http::Response`; `Plain` needs an error that is `Into<BoxError>`"
)]
pub trait Inject<Req, Res, Err>: FaultProtocol {
    /// The response of the service with faults.
    type Response;
    /// The error of the service with faults.
    type Error;

    /// Passes a result on, with a body that breaks if there is one.
    ///
    /// # Errors
    /// The service's own error.
    fn pass(
        result: Result<Res, Err>,
        broken: Option<(Box<Broken>, Injected)>,
    ) -> Result<Self::Response, Self::Error>;

    /// Passes on the error of the service's `poll_ready`.
    fn not_ready(error: Err) -> Self::Error;

    /// Answers in place of the service. Called only with answers that the protocol
    /// [supports](FaultProtocol::supports).
    fn answer(answer: &Answer, request: Req) -> Answering<Self::Response, Self::Error>;

    /// Marks a response that was injected.
    fn mark(response: &mut Self::Response, injected: Injected);

    /// Returns the number of the request's attempt, from 1. Requests do not know it by default.
    fn attempt(request: &Req) -> u32 {
        let _ = request;
        1
    }
}

/// An answer that was made, or is being made.
pub enum Answering<Res, Err> {
    /// Ready now.
    Made(Result<Res, Err>),
    /// Being made, by a client of its own.
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
