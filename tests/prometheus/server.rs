//! A Prometheus that scrapes every second, and `promtool`.

use std::{
    collections::BTreeSet,
    fs::File,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::sleep;

use crate::programs::{Folder, Running};

const CONFIGURATION: &str = include_str!("../../examples/observability/prometheus.yml");

pub(crate) struct Prometheus {
    address: String,
    client: Client<HttpConnector, Empty<Bytes>>,
    _running: Running,
    _folder: Folder,
}

impl Prometheus {
    /// With the example's configuration, for another target, and with these rules, of which each
    /// minute becomes a second.
    pub(crate) async fn start(target: &str, rules: &str) -> Self {
        let folder = Folder::new("prometheus");
        folder.write("alerts.yml", &hurried(rules));
        assert!(CONFIGURATION.contains("127.0.0.1:9464") && CONFIGURATION.contains(": 5s"));
        let configuration = CONFIGURATION.replace("127.0.0.1:9464", target);
        let file = folder.write("prometheus.yml", &configuration.replace(": 5s", ": 1s"));
        let log = File::create(folder.path().join("log")).unwrap();
        let running = Running::start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().display()))
                .arg("--web.listen-address=127.0.0.1:0")
                .stderr(log),
        );
        Self {
            address: listening(&folder).await,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _running: running,
            _folder: folder,
        }
    }

    /// The alerts that fire now, each with the name of the layer that it is about.
    pub(crate) async fn firing(&self) -> BTreeSet<(String, String)> {
        let data = self.get("alerts", &[]).await;
        let alerts = data["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        let label =
            |alert: &Value, label: &str| alert["labels"][label].as_str().unwrap().to_owned();
        firing
            .map(|alert| (label(alert, "alertname"), label(alert, "name")))
            .collect()
    }

    /// The last minute, by seconds.
    pub(crate) async fn range(&self, query: &str) -> Value {
        let now = self.get("query", &[("query", "time()")]).await;
        let now: f64 = now["result"][1].as_str().unwrap().parse().unwrap();
        let (start, end) = ((now - 60.0).to_string(), now.to_string());
        let asked = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        self.get("query_range", &asked).await
    }

    /// What its API answers.
    pub(crate) async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let parameters = parameters.iter();
        let parameters: Vec<_> = parameters
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let uri = format!(
            "http://{}/api/v1/{path}?{}",
            self.address,
            parameters.join("&")
        );
        let response = self.client.get(uri.parse().unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["status"], "success", "{uri}: {answer}");
        answer["data"].clone()
    }
}

/// Checks with `promtool`, which reads `input` from standard input.
pub(crate) async fn promtool(arguments: &[&str], input: &str) {
    let folder = Folder::new("promtool");
    let file = File::open(folder.write("input", input)).unwrap();
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::from(file));
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "promtool {arguments:?}: {output:?}"
    );
}

/// A minute becomes a second.
fn hurried(rules: &str) -> String {
    let lines = rules
        .lines()
        .map(|line| match line.trim_start().starts_with("for: ") {
            true => line.replace('m', "s"),
            false => line.replace("m])", "s])"),
        });
    let hurried = lines.collect::<Vec<_>>().join("\n");
    assert!(hurried.contains("for: 1s") && hurried.contains("[5s])"));
    hurried
}

/// Where it listens, as its log says.
async fn listening(folder: &Folder) -> String {
    for _ in 0..300 {
        let log = folder.read("log");
        let line = log.lines().find(|line| line.contains("\"Listening on\""));
        if let Some((_, address)) = line.and_then(|line| line.split_once("address=")) {
            return address.to_owned();
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not listen: {}", folder.read("log"));
}

fn encoded(value: &str) -> String {
    let encode = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    value.bytes().map(encode).collect()
}
