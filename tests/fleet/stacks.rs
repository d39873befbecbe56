//! Fleets within stacks, on trial, in headers and in metrics.

use http::{Request, Response, StatusCode};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    observe::{Registry, State},
    protocol::{Plain, http::Server},
    rate_limit::{Outage, Rate, RateLimitBuilder, RateLimitLayer},
    stack,
    store::Memory,
};

use crate::support::{echo, ms};

fn shared(link: &Memory) -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_second(10))
        .burst(10)
        .max_wait(ms(20))
        .fleet(link, "api")
}

async fn answer(_: Request<String>) -> Result<Response<String>, BoxError> {
    Ok(Response::new(String::new()))
}

#[tokio::test(start_paused = true)]
async fn both_stacks_take_a_fleet() {
    let store = Memory::new();
    let server = stack::server()
        .http()
        .max_in_flight(100)
        .rate_limit(shared(&store))
        .build()
        .unwrap();
    let client = stack::client().http().rate_limit(shared(&store.link()));
    assert!(client.build().is_ok());
    let server = server.layer(service_fn(answer));
    let mut statuses = Vec::new();
    for _ in 0..12 {
        let request = || Request::get("http://host/").body(String::new()).unwrap();
        statuses.push(server.clone().oneshot(request()).await.unwrap().status());
    }
    assert_eq!(statuses[0], StatusCode::OK);
    assert_eq!(statuses[11], StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_a_503_with_a_hint() {
    let store = Memory::new();
    store.fail(true);
    let layer = shared(&store)
        .advertise(true)
        .protocol(Server::new())
        .build()
        .unwrap();
    let service = layer.layer(service_fn(answer));
    let send = || service.clone().oneshot(Request::new(String::new()));
    let _ = send().await;
    let response = send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    store.fail(false);
    tokio::time::sleep(ms(6000)).await;
    let _ = send().await;
    tokio::time::sleep(ms(6000)).await;
    let response = send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let told = response.headers()["ratelimit"].to_str().unwrap();
    assert!(told.contains("r=") && !told.contains("r=0"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_on_trial_rejects_nothing() {
    let store = Memory::new();
    let trial = shared(&store)
        .max_wait(ms(0))
        .protocol(Plain::new())
        .build()
        .unwrap();
    let trial = trial.shadow("candidate");
    let service = trial.layer(echo::<()>());
    for _ in 0..50 {
        assert!(service.clone().oneshot(()).await.is_ok());
    }
    let tried = trial.handle().snapshot();
    assert_eq!(tried.calls, 50);
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_of_the_store() {
    let registry = Registry::global();
    let store = Memory::new();
    let layer = shared(&store)
        .name("metered")
        .while_down(Outage::Closed)
        .build()
        .unwrap();
    assert!(layer.layer(echo::<()>()).oneshot(()).await.is_ok());
    let instances = registry.snapshot();
    let metered = instances
        .iter()
        .find(|instance| instance.name == "metered")
        .unwrap();
    let State::RateLimit {
        fleet: Some(fleet), ..
    } = &metered.state
    else {
        panic!("{metered:?}")
    };
    assert!(fleet.leased >= 1 && fleet.answered >= 1 && !fleet.is_down);
}
