//! The watch of a settings file.

mod error;
mod file;
mod follower;
mod sections;
mod settling;
mod status;
mod watching;

pub use error::ReloadError;
pub use sections::Sections;
pub use status::{LastError, WatchHandle, WatchSnapshot};
pub use watching::{Watch, watch};
