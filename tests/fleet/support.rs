//! Layers that are processes of a fleet.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    rate_limit::{Outage, Rate, RateLimitBuilder, RateLimitLayer},
    store::Memory,
};

/// A process's limit of so many a second, over its own link.
pub(crate) fn process(store: &Memory, per_second: u64, burst: u32) -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_second(per_second))
        .burst(burst)
        .fleet(&store.link(), "api")
}

pub(crate) fn over(link: &Memory, outage: Outage) -> RateLimitLayer {
    RateLimitLayer::builder(Rate::per_second(100))
        .burst(100)
        .fleet(link, "api")
        .while_down(outage)
        .build()
        .unwrap()
}

pub(crate) fn echo<T: Send + 'static>()
-> impl Service<T, Response = T, Error = BoxError, Future = Ready<Result<T, BoxError>>> + Clone + Send
{
    service_fn(|request| ready(Ok(request)))
}

/// Sends one call.
pub(crate) async fn call(layer: &RateLimitLayer) -> Result<(), Rejected> {
    let service = layer.layer(echo::<()>());
    match service.oneshot(()).await {
        Ok(()) => Ok(()),
        Err(error) => Err(Rejected::find(&*error).unwrap().clone()),
    }
}

pub(crate) async fn kind(layer: &RateLimitLayer) -> Option<RejectedKind> {
    call(layer).await.err().map(|rejected| rejected.kind)
}

/// Sends so many calls one after the other, each without a pause, and counts the admitted.
pub(crate) async fn admitted(layer: &RateLimitLayer, calls: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..calls {
        admitted += usize::from(call(layer).await.is_ok());
    }
    admitted
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
