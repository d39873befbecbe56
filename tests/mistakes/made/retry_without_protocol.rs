//| ``the method `build` exists .. doesn't satisfy `Unset: Choice` ``
//~ `.protocol(http::Client::new())`, `http::Server`, `grpc::..`, `Plain`

use tower_keep::retry::RetryLayer;

fn mistake() {
    let _ = RetryLayer::builder().build();
}
