//| `is a builder, and no layer yet`, or `CallBuildFirst` is not satisfied
//~ CallBuildFirst

use tower::{Layer, ServiceBuilder};
use tower_keep::bulkhead::BulkheadLayer;

fn mistake() {
    let _ = ServiceBuilder::new()
        .layer(BulkheadLayer::builder(3))
        .service(());
}
