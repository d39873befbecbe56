//| `makes no future of a Result`
//~ makes no future of a `Result`
//~ pass a closure `|| async { .. }`

use tower_keep::{protocol::Plain, stack};

async fn mistake() {
    let db = stack::client()
        .plain(Plain::new().idempotent())
        .build()
        .unwrap();
    let _ = db.run(|| Ok::<_, std::io::Error>(3)).await;
}
