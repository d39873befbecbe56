#![doc = include_str!("guide/overview.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod algorithm;
#[cfg(feature = "layers")]
pub mod budget;
#[cfg(feature = "layers")]
pub mod bulkhead;
#[cfg(feature = "layers")]
pub mod circuit_breaker;
#[cfg(feature = "drill")]
pub mod drill;
#[cfg(feature = "layers")]
pub mod fallback;
#[cfg(feature = "fault")]
pub mod fault;
#[cfg(feature = "layers")]
pub mod gate;
#[cfg(feature = "layers")]
pub mod hedge;
#[cfg(feature = "layers")]
pub mod keyed;
#[cfg(feature = "layers")]
pub mod observe;
#[cfg(feature = "layers")]
pub mod protocol;
#[cfg(feature = "layers")]
pub mod rate_limit;
#[cfg(feature = "replay")]
pub mod replay;
#[cfg(feature = "layers")]
pub mod retry;
#[cfg(feature = "layers")]
pub mod run;
#[cfg(all(feature = "serde", feature = "layers"))]
pub mod settings;
#[cfg(feature = "http")]
pub mod stack;
#[cfg(feature = "layers")]
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "layers")]
pub mod throttle;
#[cfg(feature = "layers")]
pub mod timeout;

#[cfg(all(feature = "http", any(doc, doctest)))]
pub mod guide;
#[cfg(all(feature = "http", doctest))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(feature = "layers")]
mod ambient;
mod call;
mod config;
#[cfg(feature = "http")]
mod drain;
#[cfg(any(feature = "layers", all(test, keep_loom)))]
mod queue;
#[cfg(feature = "layers")]
mod resend;
mod sync;
#[cfg(feature = "layers")]
mod unbuilt;

#[cfg(feature = "layers")]
pub use call::{CallSettings, CarryDeadline, Deadline, Timeouts};
pub use call::{Classify, Left, Outcome, Rejected, RejectedKind};
#[cfg(feature = "layers")]
pub use call::{Criticality, UnknownCriticality};
pub use config::ConfigError;
#[cfg(feature = "layers")]
pub use config::{Change, Changed, Name};
#[cfg(feature = "http")]
pub use gate::check::check;
#[cfg(any(feature = "reqwest-012", feature = "reqwest-013"))]
pub use protocol::http::reqwest;
#[cfg(feature = "layers")]
pub use run::{CallError, Run};
