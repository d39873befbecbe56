//| ``required for `RecordBody` to implement `KeepBody` ``
//~ `RecordBody` to implement `KeepBody<u32>`

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Layer, service_fn};
use tower_keep::{check, protocol::http::Client, retry::RetryLayer};

fn mistake() {
    let retry = RetryLayer::builder()
        .protocol(Client::new())
        .build()
        .unwrap();
    check::<Request<u32>, _>(&retry.layer(service_fn(async |_: Request<u32>| {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    })));
}
