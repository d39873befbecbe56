//! Load shedding: a server at three times its capacity, without and with a stack.
//!
//! ```console
//! cargo run --release --example load_shedding -- load_shedding.svg
//! ```
//!
//! Two axum servers on loopback ports can each do 250 calls a second. Both get the same requests.
//! Their callers send them at their own times and leave after 400 ms. The load is first the
//! capacity, then two and three times the capacity, then half of it. The unprotected server spends
//! its time on calls whose callers have left, also long after the overload. The other one rejects
//! the calls that it cannot do in time, and answers the rest.

use std::{future::IntoFuture, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use tokio::net::TcpListener;
use tower::BoxError;
use tower_keep::{ConfigError, bulkhead::BulkheadLayer, stack};

#[path = "../drills/arrivals.rs"]
mod arrivals;
#[path = "../drills/clock.rs"]
mod clock;
#[path = "../../src/drill/drawing.rs"]
mod drawing;
mod measure;
mod picture;
mod pool;
mod report;
mod traffic;

use clock::Clock;
use measure::{PHASES, Phase, Side};
use pool::Pool;

const WORKERS: usize = 10;
const SERVICE_TIME: Duration = Duration::from_millis(40);
/// What ten workers do of calls that take 40 ms each, in a second.
const CAPACITY: f64 = 250.0;
/// How long a caller waits for its answer.
const PATIENCE: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let clock = Clock::start();
    let (naive_pool, kept_pool) = (Pool::new(clock), Pool::new(clock));
    let naive = serve(router(&naive_pool)).await?;
    let kept = serve(protected(router(&kept_pool))?).await?;

    let arrivals = measure::arrivals();
    let (naive, kept) = tokio::join!(
        traffic::send(naive, arrivals.clone(), clock),
        traffic::send(kept, arrivals, clock),
    );
    let naive = Side::new("naive", naive, naive_pool.jobs());
    let kept = Side::new("kept", kept, kept_pool.jobs());

    println!("{}", report::table(&naive, &kept));
    let path = picture_path();
    std::fs::write(&path, picture::draw(&naive, &kept))?;
    println!("timeline: {}", path.display());
    report::check(&naive, &kept)?;
    println!(
        "checked: kept, the server answers at 90 % of its capacity whatever the load; naive, it collapses and stays down"
    );
    Ok(())
}

/// The application: each call needs one of the pool's workers.
fn router(pool: &Arc<Pool>) -> Router {
    let answer = async |State(pool): State<Arc<Pool>>| pool.work().await;
    Router::new()
        .route("/", get(answer))
        .with_state(pool.clone())
}

/// The same behind a stack. Twice as many calls as there are workers are let in, so that no worker
/// waits for work, and 30 more may wait at the door. All these are done in 200 ms, which is half of
/// the callers' patience.
fn protected(router: Router) -> Result<Router, ConfigError> {
    let bulkhead = BulkheadLayer::builder(2 * WORKERS)
        .max_wait(Duration::from_millis(120))
        .max_waiting(30);
    let stack = stack::server()
        .http()
        .name("api")
        .bulkhead(bulkhead)
        .timeout(PATIENCE)
        .build()?;
    Ok(router.layer(stack))
}

async fn serve(router: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(address)
}

/// What the command line says, or beside the examples in cargo's target directory.
fn picture_path() -> PathBuf {
    let in_target = || {
        let program = std::env::current_exe().ok()?;
        program.ancestors().nth(3).map(PathBuf::from)
    };
    let named = std::env::args_os().nth(1).map(PathBuf::from);
    named.unwrap_or_else(|| {
        in_target()
            .unwrap_or_else(std::env::temp_dir)
            .join("load_shedding.svg")
    })
}
