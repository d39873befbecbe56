//| ``required for `CloneBody` to implement `KeepBody` ``
//~ `CloneBody` to implement `KeepBody<

use axum::body::Body;
use http::{Request, Response};
use tower::{BoxError, Layer, service_fn};
use tower_keep::{check, protocol::http::Client, retry::RetryLayer};

fn mistake() {
    let retry = RetryLayer::builder()
        .protocol(Client::new().clone_body())
        .build()
        .unwrap();
    check::<Request<Body>, _>(&retry.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, BoxError>(Response::new(Body::empty()))
    })));
}
