//! Every layer, and both stacks, where users put them. Each test makes the protection fire and
//! looks at how its rejection arrives: on an axum `Router`, a hyper-util client, reqwest's client
//! of either version, a tonic server and a tonic channel; above and beneath what tower and
//! tower-http have; with responses that stream, and connections that are upgraded.
#![cfg(feature = "http")]

#[cfg(feature = "http")]
mod balance;
#[cfg(feature = "http")]
mod client;
#[cfg(feature = "tonic-014")]
mod grpc;
#[cfg(feature = "http")]
mod http_server;
#[cfg(feature = "http")]
mod routers;
#[cfg(feature = "http")]
mod server;
#[cfg(feature = "http")]
mod streams;
#[cfg(feature = "tonic-014")]
#[path = "../support/grpc.rs"]
mod support;
#[cfg(feature = "http")]
mod upgrades;
#[cfg(feature = "http")]
mod wire;

use std::time::Duration;

use tower_keep::rate_limit::Rate;

const SECOND: Duration = Duration::from_secs(1);
/// One call, and then none for long.
const ONE: Rate = Rate::per_day(1);

/// What makes a layer reject the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trip {
    /// A call before it.
    UsedUp,
    /// A call that is still in flight.
    InFlight,
    /// Nothing: it was forced.
    Forced,
    /// It takes too long itself.
    Hangs,
}
