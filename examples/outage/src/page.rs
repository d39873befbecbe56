//! The page that shows the protected client while the drill runs.

#[cfg(feature = "page")]
use std::time::Duration;
use std::{io, net::SocketAddr};

/// Serves the page, and waits until somebody looks, or for a while.
#[cfg(feature = "page")]
pub(crate) async fn serve(address: SocketAddr) -> io::Result<()> {
    use tower_keep::observe::{self, Registry};

    let listener = tokio::net::TcpListener::bind(address).await?;
    let page = observe::page(Registry::global()).title("outage drill");
    println!("page: http://{}/", listener.local_addr()?);
    println!("the drill begins when you open it, or in {PATIENCE} s\n");
    let app = axum::Router::new().fallback_service(page.clone());
    tokio::spawn(async { axum::serve(listener, app).await });
    for _ in 0..10 * PATIENCE {
        if page.listeners() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[cfg(not(feature = "page"))]
pub(crate) async fn serve(_: SocketAddr) -> io::Result<()> {
    let fix = "the page needs a feature: cargo run -p outage --features page -- --page";
    Err(io::Error::other(fix))
}

/// In seconds.
#[cfg(feature = "page")]
const PATIENCE: u64 = 15;
