//! The gRPC protocols, over tonic.
#![cfg(feature = "tonic-014")]

mod drop_in;
mod garbage;
mod retry;
mod status;
mod support;
mod transport;
