//| `BoxService: Clone`, or of any other service, is not satisfied
//~ BoxService<
//~ Clone

use tower::{BoxError, Layer, util::BoxService};
use tower_keep::{protocol::Plain, stack};

fn mistake(service: BoxService<u32, u32, BoxError>) {
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .build()
        .unwrap();
    let _ = stack.layer(service);
}
