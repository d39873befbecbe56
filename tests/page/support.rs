//! A registry with what a page is to show.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use serde_json::Value;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerLayer},
    fallback::{Backend, Spill, SpillHandle},
    observe::{Page, PageBody, Registry},
    protocol::Plain,
};

pub(crate) async fn answer(call: u32) -> Result<u32, BoxError> {
    match call {
        0 => Err("as told".into()),
        _ => Ok(call),
    }
}

/// A request as a browser makes it that was given an address.
pub(crate) fn get(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path).header("host", "127.0.0.1:9000");
    request.body(Empty::new()).unwrap()
}

pub(crate) async fn ask<B>(page: &Page, request: Request<B>) -> Response<PageBody> {
    page.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn text(answer: Response<PageBody>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The JSON of a page.
pub(crate) async fn snapshot(page: &Page) -> Value {
    let answer = ask(page, get("/snapshot.json")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    serde_json::from_str(&text(answer).await).unwrap()
}

/// The only instance of a layer.
pub(crate) fn of<'a>(model: &'a Value, layer: &str) -> &'a Value {
    let instances = model["instances"].as_object().unwrap();
    let mut found = instances.values().filter(|one| one["layer"] == layer);
    let found = (found.next(), found.next());
    assert!(found.1.is_none(), "two of {layer}");
    found.0.unwrap()
}

/// A list of backends, of which the first fails, called four times.
pub(crate) async fn backends(registry: &Arc<Registry>, name: &str) -> SpillHandle {
    let list = Spill::builder(Plain::new().idempotent())
        .backend(Backend::new(
            "large",
            service_fn(async |_: u32| answer(0).await),
        ))
        .backend(Backend::new("small", service_fn(answer)))
        .name(name.to_owned());
    let list = registry.with(|| list.build()).unwrap();
    for _ in 0..4 {
        list.clone().oneshot(1).await.unwrap();
    }
    list.handle()
}

/// A named circuit that opens after two failures, in a registry of its own.
pub(crate) fn breaker(registry: &Arc<Registry>, name: &str) -> CircuitBreakerLayer<Plain> {
    let builder = CircuitBreakerLayer::builder().protocol(Plain::new());
    let builder = builder.min_calls(2).jitter(false).name(name.to_owned());
    registry.with(|| builder.build()).unwrap()
}

/// Calls that fail, until the circuit is open.
pub(crate) async fn open(layer: &CircuitBreakerLayer<Plain>) -> CircuitBreakerHandle {
    let service = layer.layer(service_fn(answer));
    for _ in 0..3 {
        service.clone().oneshot(0).await.unwrap_err();
    }
    layer.handle()
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}
