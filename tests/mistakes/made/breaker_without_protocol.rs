//| ``the method `build` exists .. doesn't satisfy `Unset: Choice` ``
//~ `.protocol(http::Client::new())`, `http::Server`, `grpc::..`, `Plain`
//~ `Unset: tower_keep::protocol::Choice`

use tower_keep::circuit_breaker::CircuitBreakerLayer;

fn mistake() {
    let _ = CircuitBreakerLayer::builder().build();
}
