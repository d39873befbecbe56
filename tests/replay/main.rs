//! Replays: logs that are read, calls that are recorded, and what is said of them.
#![cfg(feature = "replay")]

mod reading;
mod recording;
