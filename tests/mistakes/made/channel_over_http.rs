//| `Channel: Service<Request<ReplayBody<..>>>` is not satisfied
//~ ReplayBody<
//~ Channel

use http::Request;
use tonic::transport::Channel;
use tower::Layer;
use tower_keep::{check, stack};

fn mistake(channel: Channel) {
    let stack = stack::client().http().build().unwrap();
    check::<Request<tonic::body::Body>, _>(&stack.layer(channel));
}
