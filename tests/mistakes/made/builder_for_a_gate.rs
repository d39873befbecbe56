//| `is no gate`
//~ is no gate

use tower_keep::{bulkhead::BulkheadLayer, gate::GateLayer};

fn mistake() {
    let _ = GateLayer::new(BulkheadLayer::builder(1));
}
