//! Other answers for calls that have failed.

use axum::{Router, body::Body, response::IntoResponse, routing::get};
use http::{Request, Response, StatusCode};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    Rejected,
    circuit_breaker::CircuitBreakerLayer,
    fallback::{FallbackLayer, PrimaryError},
    protocol::http::{Client, Server},
};

/// What the primary answered, for those who ask.
#[derive(Clone, Debug, PartialEq)]
struct Primary(StatusCode);

async fn answer(status: u16) -> Result<Response<&'static str>, BoxError> {
    match status {
        0 => Err("refused".into()),
        status => Ok(Response::builder().status(status).body("primary")?),
    }
}

async fn through(status: u16) -> Result<(u16, &'static str), BoxError> {
    let layer = FallbackLayer::builder(
        |status: &u16| *status,
        async |_, _| Ok(Response::new("cached")),
    )
    .protocol(Client::new())
    .build()
    .unwrap();
    let response = layer.layer(service_fn(answer)).oneshot(status).await?;
    Ok((response.status().as_u16(), *response.body()))
}

#[tokio::test]
async fn failures_and_overload_are_answered_otherwise() {
    for status in [0, 429, 500, 502, 503, 504] {
        assert_eq!(through(status).await.unwrap(), (200, "cached"), "{status}");
    }
}

#[tokio::test]
async fn answers_stand() {
    for status in [200, 204, 301, 404, 409] {
        assert_eq!(through(status).await.unwrap(), (status, "primary"));
    }
}

#[tokio::test]
async fn the_closure_gets_the_failure_and_may_keep_it() {
    let layer = FallbackLayer::builder(
        |_: &u16| (),
        async |(), failure: Result<Response<&'static str>, BoxError>| {
            let status = failure?.status();
            let mut response = Response::new("cached");
            response.extensions_mut().insert(Primary(status));
            Ok(response)
        },
    )
    .protocol(Client::new())
    .build()
    .unwrap();
    let service = layer.layer(service_fn(answer));
    let response = service.clone().oneshot(503).await.unwrap();
    assert_eq!(
        response.extensions().get(),
        Some(&Primary(StatusCode::SERVICE_UNAVAILABLE))
    );
    let primary: &PrimaryError = response.extensions().get().unwrap();
    assert_eq!(primary.to_string(), "503 Service Unavailable");
    assert_eq!(service.oneshot(0).await.unwrap_err().to_string(), "refused");
    let now = layer.handle().snapshot();
    assert_eq!((now.answered, now.failed), (1, 1));
    assert_eq!((now.failures, now.overloads, now.rejections), (2, 0, 0));
}

#[tokio::test]
async fn a_rejection_beneath_is_answered_by_a_backup() {
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Client::new())
        .build()
        .unwrap();
    breaker.handle().force_open();
    let backup = service_fn(async |key: String| Ok::<_, BoxError>(Response::new(key)));
    let build = |on_rejection| {
        let answer = move |key: String, _| backup.oneshot(key);
        FallbackLayer::builder(|request: &Request<String>| request.body().clone(), answer)
            .protocol(Client::new())
            .on_rejection(on_rejection)
            .build()
            .unwrap()
    };
    let inner = breaker.layer(service_fn(async |_: Request<String>| {
        Ok::<_, BoxError>(Response::new(String::from("primary")))
    }));
    let request = || Request::new(String::from("key"));
    let response = build(true)
        .layer(inner.clone())
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(response.body(), "key");
    let error = build(false)
        .layer(inner)
        .oneshot(request())
        .await
        .unwrap_err();
    assert!(Rejected::find(&*error).is_some());
}

#[tokio::test]
async fn each_cause_can_be_left_out_and_all_at_once() {
    let build = || {
        FallbackLayer::builder(|_: &u16| (), async |(), _| Ok(Response::new("cached")))
            .protocol(Client::new())
    };
    let calls = [
        (build().on_failure(false).build().unwrap(), 503, 503),
        (build().on_failure(false).build().unwrap(), 429, 200),
        (build().on_overload(false).build().unwrap(), 429, 429),
        (build().enabled(false).build().unwrap(), 503, 503),
    ];
    for (layer, status, answered) in calls {
        let response = layer
            .layer(service_fn(answer))
            .oneshot(status)
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), answered);
    }
}

#[tokio::test]
async fn it_stands_on_an_axum_router() {
    let layer = FallbackLayer::builder(
        |request: &Request<Body>| request.uri().path().to_owned(),
        async |path: String, _| Ok(format!("stale {path}").into_response()),
    )
    .protocol(Server::new())
    .build()
    .unwrap();
    let app = Router::new()
        .route("/price", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .layer(layer.clone());
    let request = Request::get("/price").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = axum::body::to_bytes(response.into_body(), 100)
        .await
        .unwrap();
    assert_eq!(body, "stale /price");
    assert_eq!(layer.handle().snapshot().answered, 1);
}
