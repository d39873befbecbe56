//| `type annotations needed` at `build_http`
//~ type annotations needed
//~ build_http

use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::Layer;
use tower_keep::stack;

fn mistake() {
    let stack = stack::client().http().build().unwrap();
    let _ = stack.layer(Client::builder(TokioExecutor::new()).build_http());
}
