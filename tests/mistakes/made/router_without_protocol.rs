//| ``the trait `From<Box<dyn Error + Send + Sync>>` is not implemented for `Infallible` ``
//~ Infallible

use axum::Router;
use tower_keep::rate_limit::{Rate, RateLimitLayer};

fn mistake() -> Router {
    Router::new().layer(
        RateLimitLayer::builder(Rate::per_second(1))
            .build()
            .unwrap(),
    )
}
