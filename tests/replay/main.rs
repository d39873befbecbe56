//! Replays: logs that are read, calls that are recorded, and what is said of them.

#[cfg(feature = "drill")]
mod drilled;
mod golden;
mod program;
mod reading;
mod recording;
