//| `cannot tell which .. may be sent again`
//~ may be sent again
//~ there is no retry on a server

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Layer, service_fn};
use tower_keep::{check, protocol::http::Server, retry::RetryLayer};

fn mistake() {
    let retry = RetryLayer::builder()
        .protocol(Server::new())
        .build()
        .unwrap();
    check::<Request<Full<Bytes>>, _>(&retry.layer(service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    })));
}
