//| `no function runs through ..`
//~ no function runs through

use tower_keep::{CallError, Run, bulkhead::BulkheadLayer, protocol::Plain, retry::RetryLayer};

async fn mistake() {
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    let layers = (retry, BulkheadLayer::builder(3));
    let _ = layers.run(|| async { Ok::<_, std::io::Error>(3) }).await;
}
