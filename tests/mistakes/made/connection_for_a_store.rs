//| `is no store`
//~ is no store

use tower_keep::rate_limit::{Rate, RateLimitLayer};

fn mistake(connection: &String) {
    let _ = RateLimitLayer::builder(Rate::per_second(1)).fleet(connection, "api");
}
