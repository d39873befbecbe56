//! Where the page is mounted: axum's router, tonic's, and hyper.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_keep::observe::{self, Registry};

use crate::support::breaker;

/// Asks for all of a page over a real connection.
async fn browse(base: &str) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    for (path, kind, found) in [
        ("", "text/html; charset=utf-8", "<!doctype html>"),
        ("snapshot.json", "application/json", "\"mounted\""),
        ("events", "text/event-stream", "event: full"),
    ] {
        let request = Request::get(format!("{base}{path}"))
            .body(Empty::new())
            .unwrap();
        let mut answer = client.request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()["content-type"], kind);
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(found) {
            let frame = answer.frame().await.expect(found).unwrap();
            text.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}

async fn bind() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    (listener, base)
}

#[tokio::test]
async fn it_mounts_on_axum() {
    let registry = Registry::new();
    let _layer = breaker(&registry, "mounted");
    let page = observe::page(&registry);
    let app = axum::Router::new()
        .nest_service("/nested", page.clone())
        .route_service("/routed/{*rest}", page.clone().at("/routed"))
        .fallback_service(page);
    let (listener, base) = bind().await;
    let server = tokio::spawn(async { axum::serve(listener, app).await });
    browse(&base).await;
    browse(&format!("{base}nested/")).await;
    server.abort();
}

#[tokio::test]
async fn it_mounts_on_hyper() {
    let registry = Registry::new();
    let _layer = breaker(&registry, "mounted");
    let page = observe::page(&registry);
    let (listener, base) = bind().await;
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(page.clone());
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    browse(&base).await;
    server.abort();
}

#[cfg(feature = "tonic-014")]
#[tokio::test]
async fn it_mounts_on_the_router_of_tonic() {
    let registry = Registry::new();
    let _layer = breaker(&registry, "mounted");
    let routes = tonic::service::Routes::default().into_axum_router();
    let app = routes.nest_service("/keep", observe::page(&registry));
    let request = Request::get("http://127.0.0.1/keep/snapshot.json");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = app.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("\"mounted\""));
}
