//! Configuration: errors, names, and reports of updates.

#[cfg(feature = "layers")]
mod edition;
mod error;
#[cfg(feature = "layers")]
mod name;
#[cfg(feature = "serde")]
pub(crate) mod seconds;
#[cfg(feature = "layers")]
mod update_report;

#[cfg(feature = "layers")]
pub(crate) use edition::{Edition, Editions};
pub use error::ConfigError;
#[cfg(feature = "layers")]
pub(crate) use error::plain;
pub(crate) use error::{nanos_within, number_within, parts_per_million};
#[cfg(feature = "layers")]
pub use name::Name;
#[cfg(feature = "layers")]
pub use update_report::{Change, Changed};
