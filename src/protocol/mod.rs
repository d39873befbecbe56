//! The protocol that a layer is used with.
//!
//! Each layer is generic over one protocol: how results are classified, and how a rejection
//! travels.
//!
//! | protocol | a failure is | a rejection is | `Error` of the service |
//! |---|---|---|---|
//! | [`Plain`] | an `Err` | an error | [`BoxError`](tower::BoxError) |
//! | [`http::Client`] | a 5xx, or an `Err` | an error | [`BoxError`](tower::BoxError) |
//! | [`http::Server`] | a 5xx, or an `Err` | a 429 or 503 response | the inner error |
//! | `grpc::Client` | five of the statuses, or an `Err` | an error with a status | [`BoxError`](tower::BoxError) |
//! | `grpc::Server` | the same | a response with a status | the inner error |
//!
//! A 429 is an overload, which a circuit breaker counts as a failure. Set the protocol with
//! `.protocol(..)` on any builder. Layers that act on results (circuit breaker, throttle, retry,
//! hedge, fallback) do not build without one ([`Choice`]). For the other layers, [`Plain`] is the
//! default. Other protocols implement [`Protocol`] and, for retries, [`Replay`].

mod advertise;
#[cfg(feature = "http")]
mod as_error;
mod changing;
mod choice;
#[cfg(feature = "tonic-014")]
pub mod grpc;
#[cfg(feature = "http")]
mod guarded;
mod hint;
#[cfg(feature = "http")]
pub mod http;
mod plain;
mod primary;
mod quota;
mod settle;
mod spill_report;
mod traits;
#[cfg(feature = "http")]
mod would_reject;

pub use advertise::Advertise;
#[cfg(feature = "http")]
use as_error::as_error;
pub use changing::Changing;
pub use choice::{Choice, Chosen, Unset};
#[cfg(feature = "http")]
pub(crate) use guarded::guarded;
pub use hint::{Hint, QuotaHint};
pub use plain::{Always, ErrIsFailure, Plain, Undeclared, When};
pub use primary::PrimaryError;
pub(crate) use primary::in_words;
pub use quota::Quota;
pub use settle::Settle;
pub(crate) use settle::settle;
pub(crate) use spill_report::RESULTS as SPILL_RESULTS;
pub use spill_report::{SpillReason, SpillReport};
pub use traits::{Advice, Kept, Proof, Protocol, Replay, Sent};
#[cfg(feature = "http")]
pub(crate) use would_reject::WOULD_REJECT;
#[cfg(feature = "http")]
pub use would_reject::WouldReject;
