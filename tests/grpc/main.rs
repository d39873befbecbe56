//! The gRPC protocols, over tonic.

mod drop_in;
mod garbage;
mod hedge;
mod retry;
mod status;
mod support;
mod transport;
