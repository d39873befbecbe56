//| ``the trait `Clone` is not implemented .. required for `Plain` to implement `Replay` ``
//~ `Upload`
//~ Replay<Upload>

use tower::{BoxError, Layer, service_fn};
use tower_keep::{check, protocol::Plain, retry::RetryLayer};

struct Upload;

fn mistake() {
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    check::<Upload, _>(&retry.layer(service_fn(async |_: Upload| Ok::<_, BoxError>(()))));
}
