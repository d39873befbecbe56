//| ``expected a `Fn(..)` closure, found ..``
//~ `Fn(&u32)`

use tower::{BoxError, Layer, service_fn};
use tower_keep::{
    check, keyed,
    rate_limit::{Rate, RateLimitLayer},
};

fn mistake() {
    let limit = RateLimitLayer::builder(Rate::per_second(1)).keyed_by(keyed::peer());
    let layer = limit.build().unwrap();
    check::<u32, _>(&layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n))));
}
