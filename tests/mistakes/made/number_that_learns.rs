//| `learns no limit`
//~ learns no limit

use tower_keep::bulkhead::BulkheadLayer;

fn mistake() {
    let _ = BulkheadLayer::builder(3).adaptive(20);
}
