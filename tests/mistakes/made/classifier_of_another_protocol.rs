//| ``expected a `Fn(..)` closure, found ..``
//~ found `DbOutcome`

use tower::{BoxError, Layer, service_fn};
use tower_keep::{Classify, Outcome, check, protocol::Plain, retry::RetryLayer};

#[derive(Clone)]
struct DbOutcome;

impl Classify<u64, BoxError> for DbOutcome {
    fn classify(&self, _: Result<&u64, &BoxError>) -> Outcome {
        Outcome::Success
    }
}

fn mistake() {
    let retry = RetryLayer::builder().protocol(Plain::classify(DbOutcome).idempotent());
    let layer = retry.build().unwrap();
    check::<u32, _>(&layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n))));
}
