//| `gives no answer of type ..`
//~ gives no answer of type

use tower::{BoxError, Layer, service_fn};
use tower_keep::{check, fallback::FallbackLayer, protocol::Plain};

fn mistake() {
    let fallback = FallbackLayer::value("last known")
        .protocol(Plain::new())
        .build()
        .unwrap();
    check::<u32, _>(&fallback.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n))));
}
