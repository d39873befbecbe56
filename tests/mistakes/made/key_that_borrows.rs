//! Found once all types are right.
//| `lifetime may not live long enough` at a key's closure
//~ lifetime may not live long enough

use http::Request;
use tower_keep::rate_limit::{Rate, RateLimitLayer};

fn mistake() {
    let _ = RateLimitLayer::builder(Rate::per_second(1))
        .keyed_by(|request: &Request<()>| request.headers().get("x-tenant"))
        .build();
}
