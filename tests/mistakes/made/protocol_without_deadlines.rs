//| `does not say whether .. carries a deadline`
//~ does not say whether `u32` carries a deadline

use std::time::Duration;
use tower::{BoxError, Layer, service_fn};
use tower_keep::{Classify, Outcome, check, protocol::http::Client, timeout::TimeoutLayer};

fn mistake() {
    let layer = TimeoutLayer::builder(Duration::from_secs(1))
        .protocol(Client::new())
        .build()
        .unwrap();
    check::<u32, _>(&layer.layer(service_fn(async |n: u32| {
        Ok::<_, BoxError>(http::Response::new(n))
    })));
}
