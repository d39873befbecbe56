//! Found once all types are right. A later compiler may accept it.
//| ``implementation of `From` is not general enough`` at a `tokio::spawn`
//~ is not general enough

use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{bulkhead::BulkheadLayer, protocol::Plain};

fn mistake() {
    tokio::spawn(async {
        let layer = BulkheadLayer::builder(1).build().unwrap();
        let service = layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n)));
        service.oneshot(7).await
    });
}
