//! Every layer, and both stacks, where users put them. Each test makes the protection fire and
//! looks at how its rejection arrives: on an axum `Router`, a hyper-util client, reqwest's client
//! of either version, a tonic server and a tonic channel; above and beneath what tower and
//! tower-http have; with responses that stream, and connections that are upgraded.

mod balance;
mod client;
mod http_server;
mod routers;
mod server;
mod streams;
mod upgrades;
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
