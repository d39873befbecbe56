//! The live page: what it shows, whom it answers, and that it changes nothing.
#![cfg(feature = "page")]

mod browser;
mod events;
mod mounts;
mod reading;
mod refusals;
mod support;
