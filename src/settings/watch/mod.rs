//! Follows a file of settings.

mod error;
mod file;
mod follower;
mod settling;
mod status;
mod watching;

pub use error::ReloadError;
pub use status::{LastError, WatchHandle, WatchSnapshot};
pub use watching::{Watch, watch};
