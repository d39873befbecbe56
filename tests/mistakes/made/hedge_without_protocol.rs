//| ``the method `build` exists .. doesn't satisfy `Unset: Choice` ``
//~ `.protocol(http::Client::new())`, `http::Server`, `grpc::..`, `Plain`

use tower_keep::hedge::HedgeLayer;

fn mistake() {
    let _ = HedgeLayer::builder().build();
}
