//| `is no rate limit`
//~ is no rate limit

use tower_keep::rate_limit::{Rate, RateLimitLayer};

fn mistake() {
    let _ = RateLimitLayer::with(Rate::per_second(1));
}
