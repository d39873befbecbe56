//! What a limit costs that processes share, over a real Redis:
//! `cargo bench --all-features --bench fleet`.
//!
//! A call that spends a lease is beside one of a local limit, on 1, 2, 4 and 8 threads. Then 1, 4
//! and 16 processes call through one shared limit: with leases, and with a script for each call, as
//! other crates do it. Last, processes offer 100 000 calls a second, and the server tells what
//! that costs it. Compare the ratios: the server shares the machine with the load.
//!
//! Needs `redis-server` on the path. Ignores criterion's options, but for a `--measurement-time`
//! below a second, which shortens all runs to try the bench.
#![allow(clippy::disallowed_methods, reason = "a bench reads the time")]

use std::{
    env,
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use redis::Script;
use tokio::{runtime, time::sleep};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_keep::{
    rate_limit::{Rate, RateLimitBuilder, RateLimitLayer},
    store::{Memory, Redis},
};

use echo::{Echo, call};
use server::Server;
use support::THREADS;

#[path = "support/echo.rs"]
mod echo;
#[path = "../tests/fleet/server.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod server;
#[allow(dead_code, reason = "its threads count calls, and these count time")]
mod support;

/// The same limit of one process's caller: the generic cell rate algorithm, once for each call.
const SCRIPT: &str = "
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local period, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
if tat + period - now > burst then return 0 end
redis.call('SET', KEYS[1], tat + period, 'PX', math.ceil(burst / 1000))
return 1";

/// Returns the number of a process's tasks, each of which has one call at a time. A script waits
/// for the server, so many are sent at once, in one pipeline. A leased call waits for nothing,
/// unless there is a rate to keep.
fn tasks(how: &str, rate: u32) -> u32 {
    if how == "leases" && rate == 0 { 2 } else { 64 }
}

fn main() -> Result<(), BoxError> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let ["process", url, how, millis, rate] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        let time = Duration::from_millis(millis.parse()?);
        println!("{}", process(url, how, time, rate.parse()?)?);
        return Ok(());
    }
    let short = arguments.windows(2).any(|pair| {
        pair[0] == "--measurement-time" && pair[1].parse().is_ok_and(|time: f64| time < 1.0)
    });
    let time = Duration::from_millis(if short { 300 } else { 3000 });
    spending(time / 3);
    if Command::new("redis-server")
        .arg("--version")
        .output()
        .is_err()
    {
        assert!(env::var_os("CI").is_none(), "install redis-server");
        println!("install redis-server for the rest");
        return Ok(());
    }
    throughput(time)?;
    server_load(time)
}

/// A limit that rejects nobody here, however fast the machine is.
fn wide() -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_second(100_000_000)).burst(100_000_000)
}

/// Compares calls that spend a lease with calls of a local limit.
fn spending(time: Duration) {
    println!(
        "calls of one limit, in millions a second (ratio: time of a leased call to a local one)"
    );
    let runtime = runtime::Runtime::new().expect("a runtime");
    for threads in THREADS {
        let local = wide().build().expect("a limit");
        let shared = wide()
            .fleet(&Memory::new(), "bench")
            .build()
            .expect("a limit");
        // The asking task sees the rate of the calls.
        calls(&runtime, threads, time, &shared);
        // Interleaved, because shared machines differ from moment to moment.
        let rounds = (0..3).map(|_| {
            let of = |layer| calls(&runtime, threads, time, layer);
            (of(&local), of(&shared))
        });
        let sum = rounds.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let (local, shared) = (sum.0 / 3e6, sum.1 / 3e6);
        let ratio = local / shared;
        println!("{threads} threads: local {local:.1}, leased {shared:.1}, ratio {ratio:.2}");
    }
}

/// Returns how many calls the threads make a second.
fn calls(
    runtime: &runtime::Runtime,
    threads: usize,
    time: Duration,
    layer: &RateLimitLayer,
) -> f64 {
    let start = Instant::now();
    let counts = thread::scope(|scope| {
        let counting: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let _entered = runtime.enter();
                    let mut service = layer.layer(Echo);
                    let mut count = 0_u32;
                    while start.elapsed() < time {
                        (0..1000).for_each(|_| call(&mut service));
                        count += 1000;
                    }
                    count
                })
            })
            .collect();
        let counts = counting.into_iter().map(|thread| thread.join());
        counts
            .map(|count| f64::from(count.expect("a thread")))
            .sum::<f64>()
    });
    counts / start.elapsed().as_secs_f64()
}

/// Compares leases with a script for each call, from several processes.
fn throughput(time: Duration) -> Result<(), BoxError> {
    println!("calls through one shared limit, in thousands a second");
    for processes in [1, 4, 16] {
        let leased = run(processes, "leases", time, 0)?.calls;
        let scripts = run(processes, "scripts", time, 0)?.calls;
        let ratio = leased / scripts;
        println!(
            "{processes} processes: leases {:.0}, a script each {:.0}, ratio {ratio:.0}",
            leased / 1e3,
            scripts / 1e3
        );
    }
    Ok(())
}

/// Tells what 100 000 calls a second cost the server.
fn server_load(time: Duration) -> Result<(), BoxError> {
    println!("the server at 100 000 calls a second of 4 processes");
    for how in ["leases", "scripts"] {
        let ran = run(4, how, time, 25_000)?;
        println!(
            "{how}: {:.0} calls/s arrived, {:.0} scripts/s, {:.1} % of a core, {} bytes a key",
            ran.calls,
            ran.scripts,
            100.0 * ran.cores,
            ran.key_bytes
        );
    }
    Ok(())
}

/// Sums of a run.
struct Ran {
    /// Admitted calls a second.
    calls: f64,
    /// Scripts a second.
    scripts: f64,
    /// The part of one core that the server used.
    cores: f64,
    key_bytes: u64,
}

/// Starts a server and processes that call through one limit. `rate` is how many calls each offers
/// a second, or 0 for as many as it can.
fn run(processes: usize, how: &str, time: Duration, rate: u32) -> Result<Ran, BoxError> {
    let server = Server::start();
    let before = (cpu(&server), Instant::now());
    let children: Vec<Child> = (0..processes)
        .map(|_| {
            Command::new(env::current_exe()?)
                .args(["process", &server.url(), how])
                .args([time.as_millis().to_string(), rate.to_string()])
                .stdout(Stdio::piped())
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    let mut calls = 0.0;
    for mut child in children {
        let mut text = String::new();
        child
            .stdout
            .take()
            .ok_or("no output")?
            .read_to_string(&mut text)?;
        assert!(child.wait()?.success(), "a process has failed");
        calls += text.trim().parse::<f64>()?;
    }
    let taken = before.1.elapsed().as_secs_f64();
    let scripts = number(&server.say("INFO commandstats"), "cmdstat_evalsha:calls=");
    let key = server.say("RANDOMKEY");
    let key = key.lines().nth(1).unwrap_or_default().to_owned();
    let bytes = server.say(&format!("MEMORY USAGE {key}"));
    Ok(Ran {
        calls,
        scripts: scripts / taken,
        cores: (cpu(&server) - before.0) / taken,
        key_bytes: bytes.trim().trim_start_matches(':').parse().unwrap_or(0),
    })
}

/// Returns the seconds of a core that the server has used.
fn cpu(server: &Server) -> f64 {
    let text = server.say("INFO cpu");
    number(&text, "used_cpu_sys:") + number(&text, "used_cpu_user:")
}

/// Returns the number that follows `name`, or 0.
fn number(text: &str, name: &str) -> f64 {
    let after = text.split_once(name).map_or("", |(_, after)| after);
    let digits = after
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0.0)
}

/// Calls through the shared limit, and returns the admitted calls a second.
#[tokio::main]
async fn process(url: &str, how: &str, time: Duration, rate: u32) -> Result<f64, BoxError> {
    let connection = redis::Client::open(url)?.get_connection_manager().await?;
    let script = Script::new(SCRIPT);
    let store = Redis::new(connection.clone()).prefix("bench:");
    let limit = wide()
        .max_wait(Duration::from_secs(1))
        .fleet(&store, "api")
        .build()?;
    // The lease follows the rate of the calls.
    let warm_up = time / 3;
    let start = Instant::now();
    let (count, how) = (tasks(how, rate), how.to_owned());
    let gap = (rate > 0).then(|| Duration::from_secs(1) * count / rate);
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let mut service = limit.layer(Echo);
            let (script, mut connection) = (script.clone(), connection.clone());
            let how = how.clone();
            tokio::spawn(async move {
                let mut count = 0_u32;
                let mut due = start;
                while start.elapsed() < warm_up + time {
                    if how == "leases" {
                        service.ready().await?.call(7).await?;
                        // A task that never waits would keep the others from running.
                        tokio::task::consume_budget().await;
                    } else {
                        let mut call = script.key("bench:each");
                        let call = call.arg(0.01).arg(1_000_000);
                        let _: u32 = call.invoke_async(&mut connection).await?;
                    }
                    count += u32::from(start.elapsed() >= warm_up);
                    if let Some(gap) = gap {
                        due += gap;
                        sleep(due.saturating_duration_since(Instant::now())).await;
                    }
                }
                Ok::<_, BoxError>(count)
            })
        })
        .collect();
    let mut calls = 0.0;
    for task in tasks {
        calls += f64::from(task.await??);
    }
    Ok(calls / time.as_secs_f64())
}
