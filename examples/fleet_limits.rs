//! Three processes that share one limit of 1000 calls a second over a real Redis. This program
//! starts the server, and itself three times. Each process sends half of the limit, so 1.5 times
//! the limit in all.
//!
//! Together they admit between 97 and 100 percent of the limit, and no process knows of the others.
//! A call that finds a lease does not wait for the server.
//!
//! ```console
//! cargo run --release --all-features --example fleet_limits
//! ```
//!
//! It measures for ten seconds, or for `FLEET_SECONDS`, after three to warm up. Without a
//! `redis-server` on the path it reports that and ends. With `CI` set that is an error.
#![allow(clippy::disallowed_methods, reason = "an example measures")]

use std::{
    convert::Infallible,
    env,
    future::ready,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    rate_limit::{Rate, RateLimitLayer},
    store::Redis,
};

const PER_SECOND: u32 = 1000;
const PROCESSES: usize = 3;
const WARM_UP: Duration = Duration::from_secs(3);

fn main() -> Result<(), BoxError> {
    match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [url, start] => process(url, Duration::from_millis(start.parse()?)),
        _ => fleet(),
    }
}

fn seconds() -> Result<u64, BoxError> {
    Ok(env::var("FLEET_SECONDS").map_or(Ok(10), |seconds| seconds.parse())?)
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Starts the server and the processes, and adds up what they have admitted.
fn fleet() -> Result<(), BoxError> {
    let Ok(server) = Server::start() else {
        assert!(env::var_os("CI").is_none(), "install redis-server");
        println!("install redis-server to see it");
        return Ok(());
    };
    // All count the same seconds.
    let start = since_epoch() + WARM_UP + Duration::from_secs(1);
    let url = format!("redis://127.0.0.1:{}/", server.port);
    let processes = (0..PROCESSES).map(|_| {
        Command::new(env::current_exe()?)
            .args([&url, &start.as_millis().to_string()])
            .stdout(Stdio::piped())
            .spawn()
    });
    let processes = processes.collect::<Result<Vec<_>, _>>()?;
    let mut total = 0.0;
    for process in processes {
        let output = process.wait_with_output()?;
        assert!(output.status.success(), "a process has failed");
        let admitted: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        println!("a process admitted {admitted}");
        total += admitted;
    }
    let limit = f64::from(PER_SECOND) * Duration::from_secs(seconds()?).as_secs_f64();
    let share = total / limit;
    println!("together {total} of {limit}: {share:.3}");
    // The processes agree on the second by the wall clock, to a few milliseconds.
    assert!(
        (0.97..=1.002).contains(&share),
        "the fleet keeps its limit: {share}"
    );
    Ok(())
}

/// Offers half of the limit, and prints how many calls were admitted from `start` on.
#[tokio::main]
async fn process(url: &str, start: Duration) -> Result<(), BoxError> {
    let connection = redis::Client::open(url)?.get_connection_manager().await?;
    let store = Redis::new(connection).prefix("example:");
    let limit = RateLimitLayer::builder(Rate::per_second(PER_SECOND.into()))
        .fleet(&store, "api")
        .build()?;
    let answer = |()| ready(Ok::<_, Infallible>(since_epoch()));
    let service = limit.layer(service_fn(answer));
    let end = start + Duration::from_secs(seconds()?);
    let mut calls = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let mut admitted = 0_u32;
    let counts = |moment: Duration| u32::from(moment >= start && moment < end);
    let mut longest = Duration::ZERO;
    while since_epoch() < end {
        ticks.tick().await;
        let (service, sent) = (service.clone(), Instant::now());
        calls.spawn(async move { (service.oneshot(()).await.ok(), sent.elapsed()) });
        while let Some(ended) = calls.try_join_next() {
            let (moment, took) = ended?;
            admitted += moment.map_or(0, counts);
            longest = longest.max(took);
        }
    }
    while let Some(ended) = calls.join_next().await {
        admitted += ended?.0.map_or(0, counts);
    }
    assert!(
        longest < Duration::from_secs(1),
        "no call waits for long: {longest:?}"
    );
    println!("{admitted}");
    Ok(())
}

/// A server on a free port, which persists nothing and is killed with this guard.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Self, BoxError> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .stdout(Stdio::null())
            .spawn()?;
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "it does not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { child, port })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
