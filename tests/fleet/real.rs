//! The same over a real server: `cargo test --all-features --test fleet real -- --ignored`.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinHandle,
    time::sleep,
};
use tower::{Layer, ServiceExt};
use tower_keep::{
    RejectedKind,
    rate_limit::{Overflow, Rate, RateLimitLayer},
    store::{Redis, Store},
};

use crate::{
    server::Server,
    support::{call, echo, kind, ms},
};

type Times = Arc<Mutex<Vec<(Instant, Option<RejectedKind>, Duration)>>>;

fn limit<S: Store + Clone>(store: &S, per_second: u64, burst: u32) -> RateLimitLayer {
    RateLimitLayer::builder(Rate::per_second(per_second))
        .burst(burst)
        .fleet(store, "api")
        .build()
        .unwrap()
}

async fn process(server: &Server) -> RateLimitLayer {
    limit(
        &Redis::new(server.connection().await).prefix("shop:"),
        1000,
        1000,
    )
}

/// Sends 750 calls a second for a while, and notes how calls ended and how long they took.
fn offer(layer: RateLimitLayer, time: Duration, times: &Times) -> JoinHandle<()> {
    offer_each(ms(4), layer, time, times)
}

/// Sends three calls each so often.
fn offer_each(
    gap: Duration,
    layer: RateLimitLayer,
    time: Duration,
    times: &Times,
) -> JoinHandle<()> {
    let (times, started) = (times.clone(), Instant::now());
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(gap);
        while started.elapsed() < time {
            ticks.tick().await;
            for _ in 0..3 {
                let (layer, times) = (layer.clone(), times.clone());
                tokio::spawn(async move {
                    let sent = Instant::now();
                    let ended = kind(&layer).await;
                    times
                        .lock()
                        .unwrap()
                        .push((Instant::now(), ended, sent.elapsed()));
                });
            }
        }
    })
}

fn admitted(times: &Times, from: Instant, to: Instant) -> usize {
    let times = times.lock().unwrap();
    let inside = |time: &Instant| *time >= from && *time < to;
    times
        .iter()
        .filter(|(time, ended, _)| ended.is_none() && inside(time))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server"]
async fn a_real_server_through_all_its_troubles() {
    let mut server = Server::start();
    let (times, started) = (Times::default(), Instant::now());
    let mut offering = Vec::new();
    for _ in 0..2 {
        offering.push(offer(process(&server).await, ms(22_000), &times));
    }
    let at = |millis| started + ms(millis);
    let until = |millis| sleep(at(millis).saturating_duration_since(Instant::now()));
    // Flushed scripts are sent again.
    until(5000).await;
    assert!(server.say("SCRIPT FLUSH").contains("OK"));
    // Stopped for two seconds: rejected as such after leases have ended, and then as before.
    until(8000).await;
    server.signal("-STOP");
    until(10_000).await;
    server.signal("-CONT");
    // Killed, and started empty.
    until(14_000).await;
    tokio::task::block_in_place(|| server.restart_after(ms(1500)));
    for offering in offering {
        offering.await.unwrap();
    }
    sleep(ms(500)).await;
    // then
    let steady = admitted(&times, at(2000), at(7900));
    assert!(
        (5600..=6000).contains(&steady),
        "{steady} of 5900, with a flush"
    );
    let stopped = admitted(&times, at(9300), at(10_000));
    assert!(
        stopped < 50,
        "{stopped} while it was stopped, after leases had ended"
    );
    let down =
        |(_, ended, _): &&(_, Option<RejectedKind>, _)| *ended == Some(RejectedKind::StoreDown);
    assert!(times.lock().unwrap().iter().filter(down).count() > 500);
    let again = admitted(&times, at(12_500), at(14_000));
    assert!(again > 1200, "{again} of 1500 after it was resumed");
    let anew = admitted(&times, at(20_000), at(22_000));
    assert!(
        (1900..=2600).contains(&anew),
        "{anew} of 2000 after it had started empty"
    );
    let longest = times
        .lock()
        .unwrap()
        .iter()
        .map(|(.., took)| *took)
        .max()
        .unwrap();
    assert!(longest < ms(600), "no call waits for long: {longest:?}");
    let (all, most) = (admitted(&times, started, at(30_000)), 22_000 + 2 * 1000);
    assert!(all <= most, "at most one burst more: {all}");
}

/// Three processes of one limit of 1000/s, which offer 1.5 times as much.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server, and takes 71 s"]
async fn three_processes_get_the_limit_for_a_minute() {
    let server = Server::start();
    let (times, started) = (Times::default(), Instant::now());
    let mut offering = Vec::new();
    for _ in 0..3 {
        let layer = process(&server).await;
        offering.push(offer_each(ms(6), layer, ms(70_500), &times));
    }
    for offering in offering {
        offering.await.unwrap();
    }
    sleep(ms(500)).await;
    let [from, to] = [10_000, 70_000].map(|millis| started + ms(millis));
    let minute = admitted(&times, from, to);
    println!("{minute} of 60000");
    assert!((58_200..=60_030).contains(&minute), "{minute} of 60000");
}

#[tokio::test]
#[ignore = "needs a real server"]
async fn a_key_of_a_wrong_type_and_a_lost_login_are_told() {
    let server = Server::start();
    server.say("SET shop:api secret");
    let layer = process(&server).await;
    assert!(call(&layer).await.is_err());
    let error = layer.handle().fleet().unwrap().last_error().unwrap();
    assert!(
        error.is_permanent() && error.to_string().contains("prefix"),
        "{error}"
    );
    // when: the login is another now.
    let other = limit(&Redis::new(server.connection().await), 1000, 1000);
    assert!(call(&other).await.is_ok());
    server.say("CONFIG SET requirepass hunter2");
    server.say("AUTH hunter2\r\nCLIENT KILL TYPE normal");
    sleep(ms(1500)).await;
    for _ in 0..40 {
        let _ = call(&other).await;
        sleep(ms(25)).await;
    }
    let text = format!("{:?}", other.handle().fleet());
    assert!(!text.contains("hunter2"));
    let error = other.handle().fleet().unwrap().last_error().unwrap();
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
#[ignore = "needs a real server"]
async fn keys_are_hashed_and_expire() {
    let server = Server::start();
    let store = Redis::new(server.connection().await).prefix("shop:");
    let layer = RateLimitLayer::builder(Rate::per_second(100))
        .keyed_by(|tenant: &String| Some(tenant.clone()))
        .overflow(Overflow::Reject)
        .fleet(&store, "tenants")
        .build()
        .unwrap();
    for tenant in ["ann", "bob"] {
        let service = layer.layer(echo::<String>());
        assert!(service.oneshot(tenant.to_owned()).await.is_ok());
    }
    let keys = server.say("KEYS *");
    assert!(
        keys.starts_with("*2") && keys.contains("shop:tenants:"),
        "{keys}"
    );
    assert!(!keys.contains("ann"));
    let key = keys
        .lines()
        .find(|line| line.starts_with("shop:"))
        .unwrap()
        .to_owned();
    assert!(
        server
            .say(&format!("TTL {key}"))
            .trim_start_matches(':')
            .trim()
            .parse::<i64>()
            .unwrap()
            > 50
    );
}

/// Bytes from one side to the other, each a little late, until it is cut.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let mut bytes = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        sleep(delay).await;
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server"]
async fn a_proxy_that_delays_and_cuts_costs_no_bound() {
    // given: 15 ms each way, and each connection is cut after a second and a half.
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), server.port);
    let proxy = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                let ((client, to_client), (server, to_server)) =
                    (client.into_split(), server.into_split());
                let both = async {
                    tokio::join!(
                        pump(client, to_server, ms(15)),
                        pump(server, to_client, ms(15))
                    )
                };
                let _ = tokio::time::timeout(ms(1500), both).await;
            });
        }
    });
    let times = Times::default();
    let mut offering = Vec::new();
    let started = Instant::now();
    for _ in 0..2 {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        let manager = client.get_connection_manager().await.unwrap();
        offering.push(offer(
            limit(&Redis::new(manager), 1000, 1000),
            ms(10_000),
            &times,
        ));
    }
    for offering in offering {
        offering.await.unwrap();
    }
    sleep(ms(500)).await;
    let all = admitted(&times, started, started + ms(20_000));
    let most = 1000 + usize::try_from(started.elapsed().as_millis()).unwrap();
    assert!(all <= most && all > 5000, "{all} of {most}");
    proxy.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server"]
async fn a_cluster_of_three_shares_keys_of_all_slots() {
    let cluster = [(); 3].map(|()| {
        Server::with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "nodes.conf",
        ])
    });
    let nodes = cluster
        .each_ref()
        .map(|node| format!("127.0.0.1:{}", node.port));
    let status = std::process::Command::new("redis-cli")
        .args(["--cluster", "create", "--cluster-yes"])
        .args(&nodes)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    for node in &cluster {
        while !node.say("CLUSTER INFO").contains("cluster_state:ok") {
            sleep(ms(50)).await;
        }
    }
    let client = redis::cluster::ClusterClient::new(cluster.each_ref().map(Server::url)).unwrap();
    let mut layers = Vec::new();
    for _ in 0..2 {
        let store = Redis::new(client.get_async_connection().await.unwrap());
        let layer = RateLimitLayer::builder(Rate::per_minute(10))
            .burst(10)
            .keyed_by(|tenant: &u32| Some(*tenant))
            .max_wait(ms(1000))
            .fleet(&store, "tenants")
            .build()
            .unwrap();
        layers.push(layer);
    }
    let mut calls = tokio::task::JoinSet::new();
    for tenant in 0..60_u32 {
        for number in 0..24 {
            let service = layers[number % 2].layer(echo::<u32>());
            calls.spawn(async move { service.oneshot(tenant).await.is_ok() });
        }
    }
    let admitted = calls
        .join_all()
        .await
        .into_iter()
        .filter(|admitted| *admitted)
        .count();
    let fleet = layers[0].handle().fleet().unwrap();
    let told = (fleet.snapshot(), fleet.last_error());
    assert!(
        (400..=60 * 10).contains(&admitted),
        "{admitted} of 600: {told:?}"
    );
}
