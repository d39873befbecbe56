//| `cannot stand before a service that answers ..`
//~ cannot stand before a service that answers `Result<u32,
//~ `http::Client` and `http::Server` need an `http::Response`

use tower::{BoxError, Layer, service_fn};
use tower_keep::{bulkhead::BulkheadLayer, check, protocol::http::Server};

fn mistake() {
    let layer = BulkheadLayer::builder(1)
        .protocol(Server::new())
        .build()
        .unwrap();
    check::<u32, _>(&layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n))));
}
