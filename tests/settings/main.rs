//! Settings from files.

#[cfg(feature = "watch")]
mod changes;
mod files;
#[cfg(feature = "watch")]
mod sections;
#[cfg(feature = "watch")]
mod watch;
