//| `cannot make a rejection's body of type ..`
//~ `NoBody` cannot make a rejection's body of type `Sheet`
//~ with `.body(..)`, the one that the closure makes

use http::{Request, Response};
use tower::{BoxError, Layer, service_fn};
use tower_keep::{bulkhead::BulkheadLayer, check, protocol::http::Server};

struct Sheet;

fn mistake() {
    let layer = BulkheadLayer::builder(1)
        .protocol(Server::new())
        .build()
        .unwrap();
    check::<Request<()>, _>(&layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, BoxError>(Response::new(Sheet))
    })));
}
