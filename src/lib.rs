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
#[cfg(feature = "layers")]
pub mod fallback;
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
#[cfg(any(feature = "reqwest-012", feature = "reqwest-013"))]
pub mod reqwest;
#[cfg(feature = "layers")]
pub mod retry;
#[cfg(all(feature = "serde", feature = "layers"))]
pub mod settings;
#[cfg(feature = "http")]
pub mod stack;
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
mod attempt;
#[cfg(feature = "layers")]
mod changed;
#[cfg(feature = "http")]
mod check;
mod config;
#[cfg(feature = "layers")]
mod criticality;
#[cfg(feature = "layers")]
mod deadline;
#[cfg(feature = "layers")]
mod name;
mod outcome;
#[cfg(any(feature = "layers", all(test, keep_loom)))]
mod queue;
mod rejected;
#[cfg(feature = "serde")]
mod seconds;
#[cfg(feature = "layers")]
mod striped;
mod sync;
#[cfg(feature = "layers")]
mod time;

#[cfg(feature = "layers")]
pub use changed::{Change, Changed};
#[cfg(feature = "http")]
pub use check::check;
pub use config::ConfigError;
#[cfg(feature = "layers")]
pub use criticality::{Criticality, UnknownCriticality};
#[cfg(feature = "layers")]
pub use deadline::{CarryDeadline, Deadline, Timeouts};
#[cfg(feature = "layers")]
pub use name::Name;
pub use outcome::{Classify, Outcome};
pub use rejected::{Rejected, RejectedKind};
