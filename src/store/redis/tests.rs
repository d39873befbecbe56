use redis::{Cmd, Pipeline, RedisFuture, ServerErrorKind, Value};

use super::*;
use crate::{
    algorithm::{Prepaid, Rate},
    store::{Ask, Store, Terms},
};
use redis::aio::ConnectionLike;
use std::sync::{Arc, Mutex};

type Answer = Result<Vec<Value>, redis::RedisError>;

/// A connection whose server gives scripted answers.
#[derive(Clone, Default)]
struct Scripted {
    /// The answers to the next pipelines.
    answers: Arc<Mutex<Vec<Answer>>>,
    /// The pipelines that were sent.
    sent: Arc<Mutex<Vec<String>>>,
}

impl ConnectionLike for Scripted {
    fn req_packed_command<'a>(&'a mut self, _: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async { Ok(Value::Nil) })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let text = String::from_utf8_lossy(&pipeline.get_packed_pipeline()).into_owned();
        self.sent.lock().unwrap().push(text);
        let answer = self.answers.lock().unwrap().remove(0);
        Box::pin(async move { answer })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

fn error(kind: ServerErrorKind) -> redis::RedisError {
    redis::RedisError::from((kind.into(), "said the server", "key secret:7".into()))
}

fn value(text: &str) -> Value {
    redis::parse_redis_value(text.as_bytes()).unwrap()
}

fn granted(units: u32) -> Value {
    value(&format!("*5\r\n:{units}\r\n:1000\r\n:0\r\n:7\r\n:1\r\n"))
}

fn asks<const N: usize>(keys: [&str; N]) -> [Ask; N] {
    let terms = Terms::new(Rate::per_second(100), 100).unwrap();
    keys.map(|key| Ask::new(key, terms))
}

fn scripted(answers: Vec<Answer>) -> Scripted {
    Scripted {
        answers: Arc::new(Mutex::new(answers)),
        ..Scripted::default()
    }
}

#[tokio::test]
async fn a_key_of_a_wrong_type_costs_the_others_nothing() {
    let wrong = value("-WRONGTYPE Operation against key secret:7\r\n");
    let connection = scripted(vec![Ok(vec![granted(3), wrong, granted(4)])]);
    let store = Redis::new(connection).prefix("shop:");
    let replies = store.exchange(&asks(["a", "b", "c"])).await;
    assert_eq!(replies[0].as_ref().unwrap().units, 3);
    assert_eq!(replies[2].as_ref().unwrap().units, 4);
    let error = replies[1].as_ref().unwrap_err();
    assert!(
        error.is_permanent() && !error.to_string().contains("secret"),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_script_is_sent_with_its_text_once() {
    let unknown = || value("-NOSCRIPT No matching script.\r\n");
    let connection = scripted(vec![
        Ok(vec![unknown(), granted(1), unknown()]),
        Ok(vec![granted(2), granted(3)]),
    ]);
    let sent = connection.sent.clone();
    let replies = Redis::new(connection)
        .exchange(&asks(["a", "b", "c"]))
        .await;
    let units: Vec<_> = replies
        .into_iter()
        .map(|reply| reply.unwrap().units)
        .collect();
    assert_eq!(units, [2, 1, 3]);
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 2);
    assert!(!sent[0].contains("redis.call") && sent[1].matches("local count").count() == 1);
}

#[tokio::test]
async fn a_cluster_gets_a_pipeline_for_each_slot() {
    let connection = scripted(vec![
        Err(error(ServerErrorKind::CrossSlot)),
        // The slots in order: that of `y` is first.
        Ok(vec![granted(1)]),
        Ok(vec![granted(2), granted(3)]),
        Ok(vec![granted(4)]),
    ]);
    let sent = connection.sent.clone();
    let store = Redis::new(connection);
    let replies = store.exchange(&asks(["{x}1", "y", "{x}2"])).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    assert_eq!(sent.lock().unwrap().len(), 3);
    assert!(
        store.exchange(&asks(["y"])).await[0].is_ok(),
        "it is learned once"
    );
    assert_eq!(sent.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_demoted_primary_is_left_for_a_fresh_connection() {
    let readonly = value("-READONLY You can't write against a read only replica.\r\n");
    let old = scripted(vec![Ok(vec![readonly])]);
    let fresh = scripted(vec![Ok(vec![granted(9)])]);
    let store = Redis::new(old).reconnect(move || {
        let fresh = fresh.clone();
        async move { Ok(fresh) }
    });
    let error = store.exchange(&asks(["a"])).await.remove(0).unwrap_err();
    assert!(error.to_string().contains("replica"), "{error}");
    assert_eq!(
        store.exchange(&asks(["a"])).await.remove(0).unwrap().units,
        9
    );
}

#[tokio::test]
async fn no_text_of_the_server_is_in_an_error() {
    for kind in [
        ServerErrorKind::ResponseError,
        ServerErrorKind::NoPerm,
        ServerErrorKind::ClusterDown,
        ServerErrorKind::BusyLoading,
    ] {
        let store = Redis::new(scripted(vec![Err(error(kind))])).prefix("shop:");
        let error = store.exchange(&asks(["a"])).await.remove(0).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(!format!("{store:?}").contains("Scripted"));
    }
}

/// `cargo test --all-features --lib store::redis -- --ignored`
#[tokio::test]
#[ignore = "needs a real server"]
async fn the_script_and_prepaid_agree_on_random_histories() {
    let server = Server::start();
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", server.port)).unwrap();
    let store = Redis::new(client.get_multiplexed_async_connection().await.unwrap());
    let mut seed = 23_u64;
    let mut draw = move |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut compared = 0;
    for history in 0..150 {
        let rate = [
            Rate::per_second(1 + draw(2000)),
            Rate::per_minute(1 + draw(9000)),
            Rate::per_day(1 + draw(1_000_000)),
            Rate::new(
                1 + draw(97),
                std::time::Duration::from_millis(1 + draw(977)),
            ),
        ][usize::try_from(draw(4)).unwrap()];
        let burst = u32::try_from(1 + draw(3000)).unwrap();
        let Ok(terms) = Terms::new(rate, burst) else {
            continue;
        };
        let mut model = Prepaid::new();
        for _ in 0..60 {
            let mut ask = Ask::new(format!("history:{history}"), terms);
            let mut some = |most: u32| u32::try_from(draw(u64::from(most) + 1)).unwrap();
            ask.want = some(burst + 5);
            ask.least = if some(2) == 0 {
                some(burst + 5)
            } else {
                some(1)
            };
            ask.reset = some(30) == 0;
            if some(3) == 0 {
                let (process, number) = (u64::from(some(50)) << 40, u64::from(some(9)));
                let units = some(burst);
                ask.debt = Some(crate::store::Debt {
                    process,
                    number,
                    units,
                });
            }
            let reply = store
                .replies(std::slice::from_ref(&ask))
                .await
                .remove(0)
                .unwrap();
            assert_eq!(reply.grant, ask.put_to(&mut model, reply.now), "{ask:?}");
            compared += 1;
        }
    }
    assert!(compared > 3000, "{compared}");
}

/// A real server, killed with its guard.
struct Server {
    child: std::process::Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = std::process::Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("install redis-server: this test needs a real one");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
