//| `` `Unset` cannot stand before a service .. ``
//~ `Unset` cannot stand before a service
//~ `Unset` is no protocol: choose one with `.protocol(..)`

use tower::{BoxError, Layer, service_fn};
use tower_keep::{bulkhead::BulkheadLayer, check, gate::GateLayer};

fn mistake() {
    let layer = GateLayer::new(BulkheadLayer::builder(1).gate().unwrap());
    check::<u32, _>(&layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n))));
}
