//! What the JSON has, and that reading changes nothing.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use serde_json::{Value, json};
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::{
    bulkhead::BulkheadLayer,
    observe::{self, Registry},
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    stack,
};

use crate::support::{answer, ask, backends, breaker, get, of, open, snapshot, text};

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_with_its_cause_and_threshold() {
    let registry = Registry::new();
    let page = observe::page(&registry).title("shop");
    let layer = breaker(&registry, "search");
    open(&layer).await;
    let model = snapshot(&page).await;
    assert_eq!(
        (&model["version"], &model["title"]),
        (&json!(1), &json!("shop"))
    );
    let circuit = of(&model, "circuit_breaker");
    assert_eq!(circuit["name"], "search");
    assert_eq!(circuit["totals"]["rejected"]["circuit_open"], 1);
    assert_eq!(circuit["config"]["failure_rate"], 0.5);
    let last = &circuit["state"]["circuit_breaker"]["recent"][0];
    let told = ["from", "to", "cause", "threshold"].map(|field| last[field].clone());
    let threshold = "failure_rate 0.5 of at least 2 calls";
    assert_eq!(
        told,
        ["closed", "open", "failure_rate", threshold].map(Value::from)
    );
    assert_eq!(last["reopens"], 30.0);
}

/// An open circuit whose time is over becomes half-open with its next call, and not by a look.
#[tokio::test(start_paused = true)]
async fn reading_changes_nothing() {
    let registry = Registry::new();
    let page = observe::page(&registry);
    let layer = breaker(&registry, "search");
    let handle = open(&layer).await;
    let bulkhead = BulkheadLayer::builder(2)
        .keyed_by(|call: &u32| Some(*call))
        .max_keys(1);
    let bulkhead = registry.with(|| bulkhead.name("calls").build()).unwrap();
    let limit = RateLimitLayer::builder(Rate::per_second(1)).keyed_by(|call: &u32| Some(*call));
    let limit = registry.with(|| limit.name("calls").build()).unwrap();
    for call in [1, 2] {
        let layers = limit.layer(bulkhead.layer(service_fn(answer)));
        layers.oneshot(call).await.unwrap();
    }
    advance(Duration::from_secs(60)).await;
    let before = format!(
        "{:?}",
        (
            handle.snapshot(),
            bulkhead.handle().totals(),
            limit.handle().snapshot()
        )
    );
    for _ in 0..20 {
        for path in ["/", "/snapshot.json", "/events"] {
            let answer = ask(&page, get(path)).await;
            assert_eq!(answer.status(), StatusCode::OK);
            if path == "/events" {
                use http_body_util::BodyExt;
                let mut body = answer.into_body();
                body.frame().await.unwrap().unwrap();
            }
        }
        let mut post = get("/");
        *post.method_mut() = http::Method::POST;
        ask(&page, post).await;
    }
    let after = format!(
        "{:?}",
        (
            handle.snapshot(),
            bulkhead.handle().totals(),
            limit.handle().snapshot()
        )
    );
    assert_eq!(before, after);
    // Nor does a look keep a key's place.
    let keys = |handle: &tower_keep::bulkhead::KeyedBulkheadHandle<u32>| {
        handle
            .keys()
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&bulkhead.handle()), [2]);
}

/// Nothing of a name is markup, in JSON or in the page.
#[tokio::test(start_paused = true)]
async fn a_name_is_text_whatever_it_contains() {
    let registry = Registry::new();
    let name = "</script><script>alert(1)</script>\"'&\u{2028}\n";
    let _layer = breaker(&registry, name);
    let page = observe::page(&registry).title(name);
    let model = snapshot(&page).await;
    assert_eq!(of(&model, "circuit_breaker")["name"], name);
    assert_eq!(model["title"], name);
    let html = text(ask(&page, get("/")).await).await;
    assert!(
        !html.contains("alert(1)"),
        "names come as JSON, never in the page"
    );
}

#[tokio::test(start_paused = true)]
async fn hosts_are_redacted_unless_they_are_shown() {
    async fn fails(_: Request<Empty<Bytes>>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        Ok(response)
    }
    for show in [false, true] {
        let registry = Registry::new();
        let builder = stack::client().http().name("search").without_retry();
        let builder = if show {
            builder.show_keys(ToString::to_string)
        } else {
            builder
        };
        let stack = registry.with(|| builder.build()).unwrap();
        for _ in 0..9 {
            let request = Request::get("http://secret.example/")
                .body(Empty::new())
                .unwrap();
            let _ = stack.layer(service_fn(fails)).oneshot(request).await;
        }
        let page = observe::page(&registry);
        let model = snapshot(&page).await;
        let keys = &of(&model, "circuit_breaker")["keys"];
        assert_eq!(keys[0]["state"]["circuit"]["state"], "open");
        assert_eq!(keys[0]["key"] == "secret.example", show);
        assert_eq!(model.to_string().contains("secret.example"), show);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_by_hand_is_told() {
    let registry = Registry::new();
    let layer = BulkheadLayer::builder(10).name("changed by hand");
    let layer = registry.with(|| layer.build()).unwrap();
    let page = observe::page(&registry);
    assert_eq!(
        of(&snapshot(&page).await, "bulkhead")["changed"],
        Value::Null
    );
    layer.handle().set_limit(20).unwrap();
    let model = snapshot(&page).await;
    let changed = &of(&model, "bulkhead")["changed"];
    assert_eq!(changed["what"], "bulkhead: `limit` from 10 to 20");
    assert_eq!(changed["by_file"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn the_backends_of_a_list_are_told() {
    let registry = Registry::new();
    let _list = backends(&registry, "models").await;
    let model = snapshot(&observe::page(&registry)).await;
    let told = &of(&model, "spill")["state"]["spill"]["backends"];
    let told = told.as_array().unwrap();
    assert!(told.contains(&json!(["large", "failed", 4])), "{told:?}");
    assert!(told.contains(&json!(["small", "answered", 4])), "{told:?}");
}

/// The verdict of a gate on trial stands beside what the real one rejected.
#[tokio::test(start_paused = true)]
async fn a_trial_is_beside_the_real_gate() {
    let registry = Registry::new();
    let service = registry.with(|| {
        let real = RateLimitLayer::builder(Rate::per_day(1))
            .burst(5)
            .name("limit")
            .build()
            .unwrap();
        let trial = RateLimitLayer::builder(Rate::per_day(1))
            .burst(2)
            .build()
            .unwrap();
        real.layer(trial.shadow("limit").layer(service_fn(answer)))
    });
    for _ in 0..10 {
        let _ = service.clone().oneshot(1).await;
    }
    let model = snapshot(&observe::page(&registry)).await;
    let trial = of(&model, "shadow");
    assert_eq!(trial["name"], "limit");
    assert_eq!(trial["state"]["shadow"]["calls"], 5);
    assert_eq!(trial["state"]["shadow"]["would_reject"]["rate_limited"], 3);
    assert_eq!(
        of(&model, "rate_limit")["totals"]["rejected"]["rate_limited"],
        5
    );
}

#[cfg(feature = "fault")]
#[tokio::test(start_paused = true)]
async fn faults_on_purpose_are_told_with_their_reason() {
    use tower_keep::fault::{Fault, FaultLayer};

    let registry = Registry::new();
    let faults = FaultLayer::builder("game day")
        .protocol(Plain::new())
        .name("payments");
    let faults = faults.fault(Fault::error(|_: &u32| "injected"));
    let faults = registry.with(|| faults.build()).unwrap();
    let page = observe::page(&registry);
    let told = async || of(&snapshot(&page).await, "fault")["state"]["faults"].clone();
    assert_eq!(told().await["running"], false);
    faults.handle().start_for(Duration::from_secs(9));
    faults
        .layer(service_fn(answer))
        .oneshot(1)
        .await
        .unwrap_err();
    let faults = told().await;
    assert_eq!(
        (&faults["running"], &faults["reason"]),
        (&json!(true), &json!("game day"))
    );
    assert_eq!(faults["injected"][0][1], 1);
}

#[tokio::test(start_paused = true)]
async fn the_global_registry_has_a_page_too() {
    let page = observe::page(Registry::global());
    let kept = BulkheadLayer::builder(1)
        .name("on the global page")
        .build()
        .unwrap();
    let model = snapshot(&page).await;
    assert!(model.to_string().contains("on the global page"));
    drop(kept);
}
