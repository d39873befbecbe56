//! The effects of faults, as types, so that only a status has a `Retry-After`.

use std::{fmt, time::Duration};

use http::StatusCode;

use crate::{
    ConfigError,
    fault::kind::{Answer, Kind},
};

/// The effect of a fault.
pub trait Effect {
    /// Returns the effect as data.
    ///
    /// # Errors
    /// An invalid status.
    fn kind(&self) -> Result<Kind, ConfigError>;
}

/// An effect on single calls, which can be limited to certain requests.
pub trait OnCalls: Effect {}

/// The answer of an effect that a closure makes.
pub trait Answers<Req, Res, Err>: Effect {
    /// Answers a request. `None` for effects without a closure.
    fn answer(&self, request: &Req) -> Option<Result<Res, Err>> {
        let _ = request;
        None
    }
}

/// An effect without more settings.
#[derive(Debug, Clone)]
pub struct BuiltIn(pub(super) Kind);

/// The effect of a service that does not become ready.
#[derive(Debug, Clone, Copy)]
pub struct NotReady;

/// An HTTP status.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    pub(super) code: u16,
    pub(super) retry_after: Option<Duration>,
}

/// A gRPC status.
#[cfg(feature = "tonic-014")]
#[derive(Debug, Clone, Copy)]
pub struct GrpcStatus {
    pub(super) code: tonic::Code,
    pub(super) pushback: super::kind::Pushback,
}

/// A closure's response.
#[derive(Clone, Copy)]
pub struct Respond<F>(pub(super) F);

/// A closure's error.
#[derive(Clone, Copy)]
pub struct Fail<F>(pub(super) F);

impl Effect for BuiltIn {
    fn kind(&self) -> Result<Kind, ConfigError> {
        self.0.clone().checked()
    }
}

impl Effect for NotReady {
    fn kind(&self) -> Result<Kind, ConfigError> {
        Ok(Kind::NotReady)
    }
}

impl Effect for Status {
    fn kind(&self) -> Result<Kind, ConfigError> {
        let code = StatusCode::from_u16(self.code).ok();
        // A 1xx is no final answer.
        let code = code.filter(|code| !code.is_informational());
        let fix = "answer with a status from 200 to 999";
        let code = code.ok_or_else(|| ConfigError::new("status", self.code, fix))?;
        let retry_after = self.retry_after;
        Ok(Kind::Answer(Answer::Status { code, retry_after }))
    }
}

#[cfg(feature = "tonic-014")]
impl Effect for GrpcStatus {
    fn kind(&self) -> Result<Kind, ConfigError> {
        let Self { code, pushback } = *self;
        Ok(Kind::Answer(Answer::Grpc { code, pushback }))
    }
}

impl<F> Effect for Respond<F> {
    fn kind(&self) -> Result<Kind, ConfigError> {
        Ok(Kind::Closure("response"))
    }
}

impl<F> Effect for Fail<F> {
    fn kind(&self) -> Result<Kind, ConfigError> {
        Ok(Kind::Closure("error"))
    }
}

impl OnCalls for BuiltIn {}
impl OnCalls for Status {}
#[cfg(feature = "tonic-014")]
impl OnCalls for GrpcStatus {}
impl<F> OnCalls for Respond<F> {}
impl<F> OnCalls for Fail<F> {}

impl<Req, Res, Err> Answers<Req, Res, Err> for BuiltIn {}
impl<Req, Res, Err> Answers<Req, Res, Err> for NotReady {}
impl<Req, Res, Err> Answers<Req, Res, Err> for Status {}
#[cfg(feature = "tonic-014")]
impl<Req, Res, Err> Answers<Req, Res, Err> for GrpcStatus {}

impl<Req, Res, Err, F> Answers<Req, Res, Err> for Respond<F>
where
    F: Fn(&Req) -> Res,
{
    fn answer(&self, request: &Req) -> Option<Result<Res, Err>> {
        Some(Ok((self.0)(request)))
    }
}

impl<Req, Res, Err, F, E> Answers<Req, Res, Err> for Fail<F>
where
    F: Fn(&Req) -> E,
    E: Into<Err>,
{
    fn answer(&self, request: &Req) -> Option<Result<Res, Err>> {
        Some(Err((self.0)(request).into()))
    }
}

impl<F> fmt::Debug for Respond<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Respond")
    }
}

impl<F> fmt::Debug for Fail<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fail")
    }
}
