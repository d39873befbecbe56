//! What `serde` makes of snapshots: times in seconds, hosts as text, states as in the metrics.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use serde_json::{Value, json, to_value};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::{
    bulkhead::BulkheadLayer,
    fallback::FallbackLayer,
    hedge::HedgeLayer,
    keyed,
    protocol::http::Client,
    rate_limit::{Rate, RateLimitLayer},
    stack,
    throttle::ThrottleLayer,
};

fn to(host: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://{host}/"));
    request.header("x-tenant", host).body(Empty::new()).unwrap()
}

async fn answer<B>(request: Request<B>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::default();
    if request.uri().host() == Some("sick") {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

fn of_host<'a>(pairs: &'a Value, host: &Value) -> &'a Value {
    let pairs = pairs.as_array().unwrap();
    &pairs.iter().find(|pair| pair[0] == *host).unwrap()[1]
}

#[tokio::test(start_paused = true)]
async fn a_clients_snapshot_is_serialized_with_all_parts() {
    let stack = stack::client().http().rate(Rate::per_second(1)).burst(20);
    let stack = stack.max_in_flight(100).build().unwrap();
    let service = stack.layer(service_fn(answer));
    for _ in 0..8 {
        service.clone().oneshot(to("sick")).await.unwrap();
    }
    service.oneshot(to("well")).await.unwrap();

    let snapshot = to_value(stack.handle().snapshot()).unwrap();
    assert_eq!(snapshot["total_timeout"]["duration"], json!(10.0));
    assert_eq!(snapshot["attempt_timeout"]["duration"], json!(3.0));
    assert_eq!(snapshot["retry"]["first_try"], json!(1));
    let rate = json!({"count": 1, "per": 1.0});
    assert_eq!(snapshot["rate_limit"]["rate"], rate);
    assert_eq!(snapshot["rate_limit"]["available"], json!(11));
    let sick = of_host(&snapshot["circuits"], &json!("sick"));
    assert_eq!(sick["state"], json!("open"));
    assert!(sick["until_half_open"].as_f64().unwrap() > 0.2);
    let last = &sick["last_transition"];
    let said = (&last["from"], &last["cause"], &last["open_for"]);
    assert_eq!(
        said,
        (&json!("closed"), &json!("failure_rate"), &Value::Null)
    );
    let well = of_host(&snapshot["circuits"], &json!("well"));
    assert_eq!(
        (&well["state"], &well["counts"]["successes"]),
        (&json!("closed"), &json!(1))
    );
    assert_eq!(
        of_host(&snapshot["circuits"], &Value::Null)["state"],
        json!("closed")
    );
    let places = of_host(&snapshot["bulkheads"], &json!("well"));
    assert_eq!(
        (&places["in_flight"], &places["limit"]),
        (&json!(0), &json!(100))
    );
}

#[tokio::test]
async fn a_servers_snapshot_is_serialized_with_any_keys() {
    let plain = stack::server().http().max_in_flight(4).build().unwrap();
    let snapshot = to_value(plain.handle().snapshot()).unwrap();
    assert_eq!(snapshot["rate_limit"], Value::Null);
    assert_eq!(snapshot["bulkhead"]["limit"], json!(4));
    assert_eq!(snapshot["timeout"]["duration"], json!(10.0));

    let tenants = RateLimitLayer::builder(Rate::per_second(1))
        .keyed_by(|request: &Request<Empty<Bytes>>| keyed::header("x-tenant")(request));
    let hosts = BulkheadLayer::builder(2)
        .keyed_by(|request: &Request<Empty<Bytes>>| request.uri().host().map(str::to_owned));
    let stack = stack::server().http().rate_limit(tenants).bulkhead(hosts);
    let stack = stack.build().unwrap();
    let service = stack.layer(service_fn(answer));
    service.oneshot(to("well")).await.unwrap();
    let snapshot = to_value(stack.handle().snapshot()).unwrap();
    assert_eq!(snapshot["rate_limit"]["active"], json!(1));
    assert_eq!(
        of_host(&snapshot["bulkhead"], &json!("well"))["limit"],
        json!(2)
    );
}

#[test]
fn the_snapshots_of_the_other_layers_are_serialized() {
    let hedge = HedgeLayer::builder().protocol(Client::new());
    let hedge = hedge.delay(Duration::from_millis(250)).build().unwrap();
    let hedge = to_value(hedge.handle().snapshot()).unwrap();
    assert_eq!((&hedge["delay"], &hedge["sent"]), (&json!(0.25), &json!(0)));
    let throttle = ThrottleLayer::builder().protocol(Client::new());
    let throttle = throttle.build().unwrap().handle().snapshot();
    assert_eq!(to_value(throttle).unwrap()["probability"], json!(0.0));
    let fallback = FallbackLayer::value(7)
        .protocol(Client::new())
        .build()
        .unwrap();
    let fallback = to_value(fallback.handle().snapshot()).unwrap();
    assert_eq!(fallback["answered"], json!(0));
    #[cfg(feature = "fault")]
    {
        use tower_keep::fault::{Fault, FaultLayer};

        let faults = FaultLayer::builder("a test").protocol(Client::new());
        let faults = faults.fault(Fault::hang()).build().unwrap();
        let faults = to_value(faults.handle().snapshot()).unwrap();
        assert_eq!(faults["reason"], json!("a test"));
        assert_eq!(faults["remaining"], json!(null));
        assert_eq!(faults["injected"], json!({ "hang": 0 }));
        assert_eq!(faults["policy"]["max_active"], json!(100));
    }
}
