//! The layers against programs that others wrote: `wrk` and `h2load` load a server, a client calls
//! through nginx while that is stopped, started, slow and rude, and gRPC's own C core calls a tonic
//! server.
//!
//! They need programs that not every machine has, so plain `cargo test` reports them as ignored.
//! `.ci/run` installs the programs and runs them all:
//!
//! ```console
//! apt-get install nginx wrk nghttp2-client python3-grpcio
//! cargo test --all-features --test real_peers -- --ignored --test-threads=1
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "other programs know no paused clock: real time is what is tested"
)]

mod client;
mod goaway;
#[cfg(feature = "tonic-014")]
mod grpc;
mod nginx;
mod programs;
mod server;
