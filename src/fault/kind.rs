//! The kinds of faults, as data.

use std::time::Duration;

use http::StatusCode;

use crate::{ConfigError, fault::Delay};

/// A fault of any protocol.
#[derive(Debug, Clone)]
pub enum Kind {
    /// The call waits, and continues.
    Delay(Delay),
    /// The call waits until the run ends.
    Hang,
    /// The call is answered in place of the service.
    Answer(Answer),
    /// A closure answers, with a `response` or an `error`.
    Closure(&'static str),
    /// The response future panics.
    Panic,
    /// The service does not become ready.
    NotReady,
    /// The body of the service's response breaks.
    Body(BodyKind),
}

/// An answer that the protocol makes.
#[derive(Debug, Clone)]
pub enum Answer {
    /// An HTTP response without a body.
    Status {
        /// Its status.
        code: StatusCode,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A gRPC response, trailers only.
    #[cfg(feature = "tonic-014")]
    Grpc {
        /// Its `grpc-status`.
        code: tonic::Code,
        /// Its `grpc-retry-pushback-ms`.
        pushback: Pushback,
    },
    /// No connection can be made.
    Refused,
    /// The connection breaks while the request is sent.
    Reset,
}

/// The hint of a gRPC fault on retries.
#[cfg(feature = "tonic-014")]
#[derive(Debug, Clone, Copy)]
pub enum Pushback {
    /// None.
    Unsaid,
    /// A retry after exactly this long.
    After(Duration),
    /// No retry.
    Never,
}

/// A fault of a response's body.
#[derive(Debug, Clone, Copy)]
pub enum BodyKind {
    /// A failure after this many bytes.
    Cut(u64),
    /// A stop after this many bytes, until the run ends.
    Stall(u64),
    /// Pieces of this many bytes, each after a wait.
    Trickle(usize, Duration),
}

impl Kind {
    /// Returns the default name of a fault, in metrics and marks.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Hang => "hang",
            Self::Answer(Answer::Status { .. }) => "status",
            #[cfg(feature = "tonic-014")]
            Self::Answer(Answer::Grpc { .. }) => "grpc_status",
            Self::Answer(Answer::Refused) => "refused",
            Self::Answer(Answer::Reset) => "reset",
            Self::Closure(name) => name,
            Self::Panic => "panic",
            Self::NotReady => "not_ready",
            Self::Body(BodyKind::Cut(_)) => "cut_body",
            Self::Body(BodyKind::Stall(_)) => "stall_body",
            Self::Body(BodyKind::Trickle(..)) => "trickle_body",
        }
    }

    pub(super) fn checked(self) -> Result<Self, ConfigError> {
        match self {
            Self::Delay(delay) => delay.checked().map(Self::Delay),
            Self::Body(BodyKind::Trickle(0, _)) => Err(ConfigError::new(
                "trickle_body",
                0,
                "let at least 1 byte come at a time",
            )),
            kind => Ok(kind),
        }
    }
}
