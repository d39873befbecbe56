//| `expected an array with a size of .., found one with a size of ..`
//~ expected an array with a size of 2, found one with a size of 1

use tower_keep::rate_limit::{Dimension, Rate, RateLimitLayer};

fn mistake() {
    let quotas = ["requests", "tokens"].map(|name| Dimension::new(name, Rate::per_second(1)));
    let _ = RateLimitLayer::dimensions(quotas).cost(|tokens: &u64| [*tokens]);
}
