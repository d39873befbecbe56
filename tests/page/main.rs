//! The live page: what it shows, whom it answers, and that it changes nothing.

mod browser;
mod events;
mod mounts;
mod reading;
mod refusals;
mod support;
