//| `NotKeyed: KeyIsSet`
//~ NotKeyed: KeyIsSet

use tower_keep::bulkhead::BulkheadLayer;

fn mistake() {
    let _ = BulkheadLayer::builder(1).max_keys(100);
}
