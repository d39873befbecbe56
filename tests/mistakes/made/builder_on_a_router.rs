//| `is a builder, and no layer yet`, or `CallBuildFirst` is not satisfied
//~ is a builder, and no layer yet
//~ call `.build()?` on it

use axum::Router;
use tower_keep::stack;

fn mistake() -> Router {
    Router::new().layer(stack::server().http().max_in_flight(3))
}
