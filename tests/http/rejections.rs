//! What a rejection looks like to the client of a server.

use axum::{Router, body::Body, routing::get};
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::BodyExt;
use tower::ServiceExt;

use tower_keep::{
    Rejected, RejectedKind,
    protocol::http::{RejectionBody, Server, UntilBodyEnd},
    rate_limit::{Missing, Rate, RateLimitLayer},
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

/// What a router with a keyed limit of one call says to a request of the tenant.
async fn answer<R>(server: Server<R>, tenants: &[&str]) -> (StatusCode, HeaderMap, String)
where
    R: RejectionBody<Body> + Send + Sync + 'static,
{
    let tenant = |request: &Request<Body>| request.headers().get("x-tenant").cloned();
    let limit = RateLimitLayer::builder(Rate::per_minute(2))
        .burst(1)
        .protocol(server)
        .keyed_by(tenant)
        .missing(Missing::Reject)
        .build()
        .unwrap();
    let router = Router::new().route("/", get(async || "hello")).layer(limit);
    let mut answer = None;
    for tenant in tenants {
        let mut request = Request::get("/").body(Body::empty()).unwrap();
        if !tenant.is_empty() {
            let tenant = tenant.parse().unwrap();
            request.headers_mut().insert("x-tenant", tenant);
        }
        answer = Some(router.clone().oneshot(request).await.unwrap());
    }
    let (head, body) = answer.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (head.status, head.headers, body)
}

#[tokio::test(start_paused = true)]
async fn a_closure_changes_status_and_fields() {
    let region = String::from("north");
    let server = Server::new().problem_json().head(move |head, rejected| {
        head.status = match rejected.kind {
            RejectedKind::MissingKey => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        };
        head.headers.insert("x-region", region.parse().unwrap());
        head.headers.remove(RETRY_AFTER);
    });
    let (status, headers, body) = answer(server, &["a", "a"]).await;
    assert_eq!(
        (status, &headers["x-region"]),
        (StatusCode::FORBIDDEN, &"north".parse().unwrap())
    );
    assert_eq!(headers.get(RETRY_AFTER), None);
    assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
    assert!(body.contains(r#""status":403"#), "{body}");

    let (status, _, body) = answer(server, &[""]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        body.contains(r#""title":"Unauthorized","status":401"#),
        "{body}"
    );
    // What was admitted is not asked about.
    let (status, headers, _) = answer(server, &["a"]).await;
    assert_eq!((status, headers.get("x-region")), (StatusCode::OK, None));
}

#[tokio::test(start_paused = true)]
async fn a_closures_content_type_goes_before_the_bodys() {
    let server = Server::new().body(page).head(|head, _| {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        head.headers.insert(CONTENT_TYPE, html);
    });
    let (_, headers, body) = answer(server, &["a", "a"]).await;
    assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(headers[RETRY_AFTER], "30");
    assert!(body.starts_with("<h1>429</h1>"), "{body}");
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
