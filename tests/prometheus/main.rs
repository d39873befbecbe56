//! `examples/observability` under a real Prometheus, through an incident: the alerts fire and
//! clear, and each query of the dashboard has an answer.
//!
//! It needs programs that not every machine has, so plain `cargo test` reports it as ignored.
//! `.ci/run` installs them and runs it, in about a minute:
//!
//! ```console
//! apt-get install prometheus
//! cargo test --all-features --test prometheus -- --ignored
//! ```
//!
//! Of the rules a copy is used in which each minute has become a second. With `DASHBOARD_DATA` set
//! to a file, what the dashboard's queries answered is written there, for
//! `scripts/draw-dashboard`.

use std::{
    collections::BTreeSet,
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::{Method, Request, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::time::{interval, sleep};

use server::{Prometheus, promtool};

#[path = "../../examples/observability/app.rs"]
mod app;
#[path = "../real_peers/programs.rs"]
#[allow(dead_code, reason = "only some of it is used here")]
mod programs;
mod server;

const DASHBOARD: &str = include_str!("../../examples/observability/dashboard.json");
const RULES: &str = include_str!("../../examples/observability/alerts.yml");
const TUNING: &str = include_str!("../../examples/observability/tuning.yml");

/// An alert, and the name of the layer that it is about.
type Alert = (&'static str, &'static str);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs prometheus"]
async fn alerts_fire_and_clear_and_panels_have_data() {
    let service = Service::start().await;
    let page = service.send(Method::GET, "/metrics").await;
    promtool(&["check", "metrics"], &page).await;
    let prometheus = Prometheus::start(&service.address, RULES).await;
    let mut seen = BTreeSet::new();

    // All is well.
    service.load.store(40, Ordering::Relaxed);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(prometheus.firing().await, BTreeSet::new());

    // The upstream fails nearly as often as opens the circuit.
    service.trouble(45, 0).await;
    let flaky = [
        ("CircuitNearThreshold", "search"),
        ("RetryBudgetEmpty", "search"),
        ("RetryStorm", "search"),
    ];
    until_firing(&prometheus, &flaky, &mut seen).await;
    assert_eq!(seen, all(&flaky));

    // It answers slowly, and the service is asked for more than it lets in.
    service.trouble(0, 300).await;
    service.load.store(100, Ordering::Relaxed);
    let slow = [
        ("BulkheadNearlyFull", "search"),
        ("RateLimitRejects", "api"),
    ];
    until_firing(&prometheus, &slow, &mut seen).await;
    assert_eq!(seen, all(&[&flaky[..], &slow].concat()));

    // It hangs, until each attempt has timed out.
    service.trouble(0, 2000).await;
    service.load.store(40, Ordering::Relaxed);
    until_firing(&prometheus, &[("CircuitOpen", "search")], &mut seen).await;

    // It recovers.
    service.trouble(0, 0).await;
    until_quiet(&prometheus).await;

    assert_all_metrics_exist(&prometheus).await;
    assert_all_panels_have_data(&prometheus).await;
    if let Ok(file) = std::env::var("DASHBOARD_DATA") {
        sleep(Duration::from_secs(10)).await;
        std::fs::write(file, answers(&prometheus).await.to_string()).unwrap();
    }
}

#[tokio::test]
#[ignore = "needs prometheus"]
async fn promtool_accepts_rules_and_configuration() {
    for (command, file) in [
        (["check", "rules"], "alerts.yml"),
        (["check", "config"], "prometheus.yml"),
        (["test", "rules"], "alerts.test.yml"),
        (["check", "rules"], "tuning.yml"),
        (["test", "rules"], "tuning.test.yml"),
    ] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/observability/");
        promtool(&[command[0], command[1], &format!("{folder}{file}")], "").await;
    }
}

/// What OpenTelemetry's collector passes to its `prometheus` receiver is a configuration of
/// Prometheus.
#[tokio::test]
#[ignore = "needs prometheus"]
async fn promtool_accepts_what_the_collector_scrapes() {
    let collector = include_str!("../../examples/observability/otel-collector.yml");
    let indent = "      ";
    let receiver = collector.lines().skip_while(|line| *line != "    config:");
    let lines = receiver.skip(1).map_while(|line| line.strip_prefix(indent));
    let configuration: Vec<_> = lines.collect();
    assert!(configuration.contains(&"scrape_configs:"));
    promtool(
        &["check", "config", "/dev/stdin"],
        &configuration.join("\n"),
    )
    .await;
}

/// Every rule is named in the test of the rules, as one that fires and as one that is quiet.
#[test]
fn each_alert_is_tested_as_firing_and_as_quiet() {
    let of_incidents = include_str!("../../examples/observability/alerts.test.yml");
    let of_tuning = include_str!("../../examples/observability/tuning.test.yml");
    for (rules, count, tests) in [(RULES, 6, of_incidents), (TUNING, 12, of_tuning)] {
        let alerts = alerts(rules);
        assert_eq!(alerts.len(), count);
        for alert in alerts {
            let named = format!("alertname: {alert}\n");
            let expected: Vec<_> = tests.split(&named).skip(1).map(str::trim_start).collect();
            let quiet = expected
                .iter()
                .filter(|rest| rest.starts_with("exp_alerts: []"))
                .count();
            assert_eq!(
                (expected.len(), quiet),
                (3, 2),
                "{alert}: quiet, firing, quiet"
            );
        }
    }
}

/// Each recipe of the guide has its alert, and each alert its recipe. Only what no metric knows has
/// none.
#[test]
fn each_recipe_names_its_alert() {
    let page = include_str!("../../src/guide/tuning.md");
    let (recipes, _) = page.split_once("# The alert that tells first").unwrap();
    let rows = recipes.lines().filter(|line| line.starts_with("| "));
    let mut recipes = 0;
    let mut named = BTreeSet::new();
    for row in rows.filter(|row| !row.starts_with("| symptom")) {
        recipes += 1;
        let cells: Vec<_> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let alert = cells[4].trim_matches('`');
        assert!(alert == cells[4].replace('`', "") && cells.len() <= 6);
        named.insert(alert);
    }
    assert!(recipes >= 20, "{recipes}");
    named.remove("none: no metric knows what the upstream meant");
    let mut alerts: BTreeSet<_> = [alerts(RULES), alerts(TUNING)]
        .concat()
        .into_iter()
        .collect();
    // An incident is no recipe.
    alerts.remove("CircuitOpen");
    assert_eq!(named, alerts);
}

fn alerts(rules: &str) -> Vec<&str> {
    let lines = rules.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("- alert: "))
        .collect()
}

fn all(alerts: &[Alert]) -> BTreeSet<(String, String)> {
    let alerts = alerts.iter();
    alerts
        .map(|(alert, name)| (String::from(*alert), String::from(*name)))
        .collect()
}

/// Waits for all of them to fire; `seen` remembers what fires meanwhile.
async fn until_firing(
    prometheus: &Prometheus,
    alerts: &[Alert],
    seen: &mut BTreeSet<(String, String)>,
) {
    let mut missing = all(alerts);
    for _ in 0..300 {
        let firing = prometheus.firing().await;
        missing.retain(|alert| !firing.contains(alert));
        seen.extend(firing);
        if missing.is_empty() {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
    panic!("after 60 s not firing: {missing:?}");
}

async fn until_quiet(prometheus: &Prometheus) {
    let mut firing = BTreeSet::new();
    for _ in 0..300 {
        firing = prometheus.firing().await;
        if firing.is_empty() {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
    panic!("after 60 s firing still: {firing:?}");
}

async fn assert_all_metrics_exist(prometheus: &Prometheus) {
    let known = prometheus.get("label/__name__/values", &[]).await;
    let known = known.as_array().unwrap();
    let mut asked = BTreeSet::new();
    for word in [DASHBOARD, RULES].iter().flat_map(|file| {
        file.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
    }) {
        if word.starts_with("tower_keep_") {
            asked.insert(word);
            assert!(known.contains(&json!(word)), "nobody has published {word}");
        }
    }
    assert!(asked.len() > 10, "{asked:?}");
}

async fn assert_all_panels_have_data(prometheus: &Prometheus) {
    let panels = panels();
    assert!(panels.len() >= 12);
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let query = query(target);
            let now = prometheus.get("query", &[("query", &query)]).await;
            let series = now["result"].as_array().unwrap();
            let has_value = |one: &Value| one["value"][1] != "NaN";
            let title = &panel["title"];
            assert!(series.iter().any(has_value), "{title}: no {query}");
        }
    }
}

/// What the dashboard's queries answer of the last minute. Rates are over 10 s, because a minute is
/// all there is.
async fn answers(prometheus: &Prometheus) -> Value {
    let mut panels = panels();
    for panel in &mut panels {
        for target in panel["targets"].as_array_mut().unwrap() {
            let query = query(target).replace("[1m]", "[10s]");
            target["result"] = prometheus.range(&query).await["result"].clone();
        }
    }
    Value::Array(panels)
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    dashboard["panels"].as_array().unwrap().clone()
}

/// For all names.
fn query(target: &Value) -> String {
    target["expr"].as_str().unwrap().replace("$name", ".*")
}

/// The example's service, its load, and who asks it.
struct Service {
    address: String,
    client: Client<HttpConnector, Empty<Bytes>>,
    /// Calls for each second; of no more than 1000.
    load: Arc<AtomicU64>,
}

impl Service {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = app::app().await.unwrap();
        tokio::spawn(axum::serve(listener, app).into_future());
        let client = Client::builder(TokioExecutor::new()).build_http();
        let load = Arc::new(AtomicU64::new(0));
        let uri: Uri = format!("http://{address}/search").parse().unwrap();
        tokio::spawn(send_load(client.clone(), uri, load.clone()));
        Self {
            address,
            client,
            load,
        }
    }

    /// From now on the upstream fails so many of 100 calls, and takes so long for each.
    async fn trouble(&self, percent: u32, millis: u32) {
        self.send(Method::POST, &format!("/upstream/{percent}/{millis}"))
            .await;
    }

    async fn send(&self, method: Method, path: &str) -> String {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Empty::new()).unwrap();
        let response = self.client.request(request).await.unwrap();
        assert!(response.status().is_success(), "{path}: {response:?}");
        let body = response.into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }
}

async fn send_load(client: Client<HttpConnector, Empty<Bytes>>, uri: Uri, load: Arc<AtomicU64>) {
    let mut ticks = interval(Duration::from_millis(10));
    let mut owed = 0;
    loop {
        ticks.tick().await;
        owed += load.load(Ordering::Relaxed);
        while owed >= 100 {
            owed -= 100;
            let call = client.get(uri.clone());
            tokio::spawn(async move {
                if let Ok(response) = call.await {
                    let _ = response.into_body().collect().await;
                }
            });
        }
    }
}
