//! Faults on purpose: when they run, whom they hit, and what a client sees of each over the wire.

mod bodies;
mod calls;
mod clients;
#[cfg(feature = "drill")]
mod drill;
mod fates;
#[cfg(feature = "tonic-014")]
mod grpc;
mod guards;
mod readiness;
mod runs;
mod servers;
mod stacks;

use std::{io, time::Duration};

use tokio::time::Instant;
use tower::{BoxError, Service, ServiceExt, service_fn};

/// The reason of all layers here.
const REASON: &str = "a test";

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[expect(clippy::disallowed_methods, reason = "tests measure time")]
fn now() -> Instant {
    Instant::now()
}

fn since(start: Instant) -> Duration {
    now() - start
}

/// A service that returns its request.
fn echo()
-> impl Service<u32, Response = u32, Error = io::Error, Future: Send> + Clone + Send + Sync + 'static
{
    service_fn(async |n: u32| Ok(n))
}

async fn ask<S>(service: &S, n: u32) -> Result<u32, BoxError>
where
    S: Service<u32, Response = u32, Error = BoxError> + Clone,
{
    service.clone().oneshot(n).await
}
