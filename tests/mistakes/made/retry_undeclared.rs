//| `cannot tell which .. may be sent again`
//~ cannot tell which `u32` may be sent again
//~ `.protocol(Plain::new().idempotent())`

use tower::{BoxError, Layer, service_fn};
use tower_keep::{check, protocol::Plain, retry::RetryLayer};

fn mistake() {
    let retry = RetryLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    check::<u32, _>(&retry.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n))));
}
