//! What a rejection looks like to the client of a server.

use axum::{Router, body::Body, routing::get};
use http::{
    HeaderValue, Request, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::BodyExt;
use tower::ServiceExt;

use tower_keep::{
    Rejected, RejectedKind,
    protocol::http::{Server, UntilBodyEnd},
    rate_limit::{Rate, RateLimitLayer},
};

fn page(status: StatusCode, rejected: &Rejected) -> (Body, Option<HeaderValue>) {
    let name = rejected.name.unwrap_or("?");
    let page = format!("<h1>{}</h1>{name}: {rejected}", status.as_u16());
    (page.into(), Some(HeaderValue::from_static("text/html")))
}

#[tokio::test(start_paused = true)]
async fn a_closure_makes_the_body_of_a_rejection() {
    let limit = RateLimitLayer::builder(Rate::per_minute(2))
        .burst(1)
        .name("api")
        .protocol(Server::new().body(page))
        .build()
        .unwrap();
    let router = Router::new().route("/", get(async || "hello")).layer(limit);
    let request = || Request::get("/").body(Body::empty()).unwrap();
    let admitted = router.clone().oneshot(request()).await.unwrap();
    assert_eq!(admitted.status(), StatusCode::OK);
    let rejected = router.oneshot(request()).await.unwrap();
    assert_eq!(rejected.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(rejected.headers()[CONTENT_TYPE], "text/html");
    assert_eq!(rejected.headers()[RETRY_AFTER], "30");
    let kind = rejected.extensions().get::<Rejected>().unwrap().kind;
    assert_eq!(kind, RejectedKind::RateLimited);
    let body = rejected.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        body,
        "<h1>429</h1>api: rate limit exceeded (api), try again in 30s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_of_ones_own_may_have_no_content_type() {
    let plain = |_: StatusCode, _: &Rejected| (Body::from("busy"), None);
    let limit = RateLimitLayer::builder(Rate::per_minute(1))
        .burst(1)
        .protocol(UntilBodyEnd::new(Server::new().body(plain)))
        .build()
        .unwrap();
    let handler = tower::service_fn(async |()| {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty()))
    });
    let service = tower::Layer::layer(&limit, handler);
    service.clone().oneshot(()).await.unwrap();
    let rejected = service.oneshot(()).await.unwrap();
    assert_eq!(rejected.headers().get(CONTENT_TYPE), None);
    let body = rejected.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "busy");
}
