//| `expected .. ReplayBody<..>, found ..`
//~ ReplayBody<

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{BoxError, Layer, service_fn};
use tower_keep::{check, stack};

fn mistake() {
    let stack = stack::client().http().build().unwrap();
    check::<Request<Full<Bytes>>, _>(&stack.layer(service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    })));
}
