//! A server's stack under the load of `wrk` (HTTP/1.1) and `h2load` (HTTP/2 without TLS).

use std::{
    collections::BTreeMap,
    future::IntoFuture,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use tower_keep::{
    rate_limit::Rate,
    stack::{self, ServerHandle, ServerStack},
};

use crate::programs::{Folder, run};

/// What a program got: how many answers of each status.
type Statuses = BTreeMap<u16, u64>;

/// A server that counts for itself what is in flight.
struct Loaded {
    address: SocketAddr,
    handle: ServerHandle,
    gauge: Arc<Gauge>,
}

#[derive(Debug, Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One call in the handler, however it ends.
struct Entered(Arc<Gauge>);

impl Entered {
    fn new(gauge: &Arc<Gauge>) -> Self {
        let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
        gauge.most.fetch_max(now, Ordering::SeqCst);
        Self(gauge.clone())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// axum serves both versions of HTTP on one port.
async fn serve(stack: ServerStack<tower_keep::protocol::http::Server>) -> Loaded {
    let gauge = Arc::<Gauge>::default();
    let entered = gauge.clone();
    let work = get(async move || {
        let _entered = Entered::new(&entered);
        tokio::time::sleep(SERVICE).await;
        "done"
    });
    let handle = stack.handle();
    let router = Router::new().route("/", work).layer(stack);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    Loaded {
        address,
        handle,
        gauge,
    }
}

impl Loaded {
    /// After the load nothing is in flight, neither for the handler nor for the stack.
    async fn drains(&self) {
        let start = Instant::now();
        while self.handle.snapshot().bulkhead.in_flight > 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "calls leaked");
            tokio::time::sleep(SERVICE).await;
        }
        assert_eq!(self.gauge.now.load(Ordering::SeqCst), 0);
    }

    fn most(&self) -> usize {
        self.gauge.most.load(Ordering::SeqCst)
    }
}

/// Reads lines such as `status 503 1200`.
fn statuses(lines: &str) -> Statuses {
    let lines = lines
        .lines()
        .filter_map(|line| line.strip_prefix("status "));
    lines
        .map(|line| {
            let (status, count) = line.split_once(' ').unwrap();
            (status.parse().unwrap(), count.trim().parse().unwrap())
        })
        .collect()
}

/// `wrk` with `connections` callers, each of which sends its next request when it has an answer.
async fn wrk(address: SocketAddr, connections: usize) -> Statuses {
    let folder = Folder::new("wrk");
    let script = folder.write("count.lua", COUNT);
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "2", "--duration", LOAD])
        .arg("--connections")
        .arg(connections.to_string())
        .arg("--script")
        .arg(script)
        .arg(format!("http://{address}/"));
    let report = run(command).await;
    assert!(report.contains("errors 0\n"), "{report}");
    statuses(&report)
}

/// `h2load` with `streams` callers on six connections.
async fn h2load(address: SocketAddr, streams: usize) -> Statuses {
    let folder = Folder::new("h2load");
    let mut command = Command::new("h2load");
    command
        .args(["--threads", "2", "--clients", "6", "--duration", LOAD])
        .arg("--max-concurrent-streams")
        .arg((streams / 6).to_string())
        .arg("--log-file")
        .arg(folder.path().join("calls"))
        .arg(format!("http://{address}/"));
    let report = run(command).await;
    assert!(report.contains("Application protocol: h2c"), "{report}");
    // "Failed" are its 4xx and 5xx.
    assert!(report.contains(" 0 errored, 0 timeout"), "{report}");
    let mut statuses = Statuses::new();
    // Start, status and time; the status of a stream that broke is -1, which is no `u16`.
    for call in folder.read("calls").lines() {
        let status = call.split('\t').nth(1).unwrap();
        *statuses.entry(status.parse().expect(call)).or_default() += 1;
    }
    statuses
}

/// Only answers and rejections, and answers at least a third as fast as the handlers could.
fn answers_and_rejects(statuses: &Statuses, rejection: u16) {
    let only: Vec<_> = statuses.keys().copied().collect();
    assert_eq!(only, [200, rejection], "{statuses:?}");
    assert!(
        statuses[&200] > u64::try_from(LIMIT).unwrap() * 50,
        "{statuses:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs wrk"]
async fn wrk_at_three_times_the_limit_gets_only_200_and_503() {
    let server = serve(stack::server().http().max_in_flight(LIMIT).build().unwrap()).await;
    let statuses = wrk(server.address, 3 * LIMIT).await;
    server.drains().await;
    answers_and_rejects(&statuses, 503);
    assert_eq!(server.most(), LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs h2load"]
async fn h2load_at_three_times_the_limit_gets_200_or_503() {
    let server = serve(stack::server().http().max_in_flight(LIMIT).build().unwrap()).await;
    let statuses = h2load(server.address, 3 * LIMIT).await;
    server.drains().await;
    answers_and_rejects(&statuses, 503);
    assert_eq!(server.most(), LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs wrk and h2load"]
async fn programs_over_the_rate_get_429_and_no_more_answers() {
    let limited = || {
        let stack = stack::server().http().rate(RATE).burst(BURST);
        stack.max_in_flight(100).build().unwrap()
    };
    for name in ["wrk", "h2load"] {
        let server = serve(limited()).await;
        let start = Instant::now();
        let statuses = match name {
            "wrk" => wrk(server.address, 18).await,
            _ => h2load(server.address, 18).await,
        };
        let time = start.elapsed();
        server.drains().await;
        let only: Vec<_> = statuses.keys().copied().collect();
        assert_eq!(only, [200, 429], "{name}: {statuses:?}");
        let most = f64::from(BURST) + RATE.count() as f64 * time.as_secs_f64();
        let answered = statuses[&200] as f64;
        assert!(answered <= most, "{name}: {statuses:?} in {time:?}");
        assert!(answered >= most * 0.5, "{name}: {statuses:?} in {time:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs wrk"]
async fn callers_that_hang_up_leave_nothing_in_flight() {
    // No timeout of the stack ends the calls: only `wrk` does, by leaving.
    let stack = stack::server().http().max_in_flight(LIMIT);
    let stack = stack.without_timeout().build().unwrap();
    let handle = stack.handle();
    let router = Router::new().route("/", get(std::future::pending::<()>));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router.layer(stack)).into_future());

    let mut command = Command::new("wrk");
    command
        .args(["--threads", "1", "--connections", "8", "--duration", "3s"])
        .arg(format!("http://{address}/"));
    let load = tokio::spawn(run(command));
    let start = Instant::now();
    while handle.snapshot().bulkhead.in_flight < 8 {
        assert!(start.elapsed() < Duration::from_secs(30), "no load came");
        tokio::time::sleep(SERVICE).await;
    }
    load.await.unwrap();
    while handle.snapshot().bulkhead.in_flight > 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "calls leaked");
        tokio::time::sleep(SERVICE).await;
    }
    assert_eq!(handle.snapshot().bulkhead.totals.cancelled, 8);
}

const LIMIT: usize = 16;
const SERVICE: Duration = Duration::from_millis(10);
const RATE: Rate = Rate::per_second(200);
const BURST: u32 = 50;
/// How long a program loads the server.
const LOAD: &str = "2s";
/// Counts statuses by thread, which are Lua states of their own, and prints the sums.
const COUNT: &str = r#"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) counts = {} end
function response(status, headers, body) counts[status] = (counts[status] or 0) + 1 end
function done(summary, latency, requests)
  local sums = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("counts")) do sums[status] = (sums[status] or 0) + count end
  end
  for status, count in pairs(sums) do io.write(string.format("status %d %d\n", status, count)) end
  local errors = summary.errors
  io.write(string.format("errors %d\n", errors.connect + errors.read + errors.write + errors.timeout))
end
"#;
