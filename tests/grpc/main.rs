//! The gRPC protocols, over tonic.
#![cfg(feature = "tonic-014")]

mod drop_in;
mod garbage;
mod hedge;
mod retry;
mod status;
mod support;
mod transport;
