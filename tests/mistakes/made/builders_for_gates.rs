//| `is no gate`
//~ is no gate

use tower_keep::{
    bulkhead::BulkheadLayer,
    gate::GateLayer,
    rate_limit::{Rate, RateLimitLayer},
};

fn mistake() {
    let rate = RateLimitLayer::builder(Rate::per_second(1));
    let _ = GateLayer::new((rate, BulkheadLayer::builder(1)));
}
