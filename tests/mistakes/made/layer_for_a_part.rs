//| `is no builder of ..`
//~ is no builder of a rate limit

use tower_keep::{
    rate_limit::{Rate, RateLimitLayer},
    stack,
};

fn mistake() {
    let limit = RateLimitLayer::builder(Rate::per_second(1))
        .build()
        .unwrap();
    let _ = stack::server()
        .http()
        .max_in_flight(3)
        .rate_limit(limit)
        .build();
}
