//! Whom the page answers, and what its answers forbid.

use http::{Method, Request, StatusCode};
use tower_keep::observe::{self, Page, Registry};

use crate::support::{ask, get, header, text};

fn page() -> Page {
    observe::page(Registry::new())
}

#[tokio::test]
async fn every_method_but_get_and_head_is_rejected() {
    for path in ["/", "/snapshot.json", "/events", "/nowhere"] {
        for method in [
            "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PURGE",
        ] {
            let mut request = get(path);
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = ask(&page(), request).await;
            assert_eq!(
                answer.status(),
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
            assert_eq!(header(answer.headers(), "allow"), "GET, HEAD");
        }
    }
}

#[tokio::test]
async fn a_head_has_the_headers_and_no_body() {
    let page = page();
    for path in ["/", "/snapshot.json", "/events"] {
        let full = ask(&page, get(path)).await;
        let kind = header(full.headers(), "content-type").to_owned();
        drop(full);
        let mut request = get(path);
        *request.method_mut() = Method::HEAD;
        let answer = ask(&page, request).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(header(answer.headers(), "content-type"), kind);
        assert_eq!(text(answer).await, "");
        assert_eq!(page.listeners(), 0);
    }
}

/// A stranger's site whose name resolves here is the same origin to a browser.
#[tokio::test]
async fn a_host_that_is_not_allowed_is_rejected() {
    let page = page()
        .allow_host("Status.Internal")
        .allow_hosts(["a.example", "b.example"]);
    let status = async |host: &str| {
        let request = Request::get("/snapshot.json").header("host", host);
        let answer = ask(&page, request.body(()).unwrap()).await;
        let status = answer.status();
        assert!(
            !text(answer).await.contains("evil"),
            "what is asked for is not told back"
        );
        status
    };
    for host in [
        "localhost:9000",
        "127.0.0.1",
        "[::1]:9000",
        "status.internal:80",
        "b.example",
    ] {
        assert_eq!(status(host).await, StatusCode::OK, "{host}");
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
    ] {
        assert_eq!(status(host).await, StatusCode::FORBIDDEN, "{host}");
    }
    let nameless = Request::get("/").body(()).unwrap();
    assert_eq!(ask(&page, nameless).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn scripts_of_other_sites_read_nothing() {
    let page = page();
    for path in ["/snapshot.json", "/events"] {
        for site in ["cross-site", "same-site"] {
            let mut request = get(path);
            request
                .headers_mut()
                .insert("sec-fetch-site", site.parse().unwrap());
            request
                .headers_mut()
                .insert("origin", "http://evil.example".parse().unwrap());
            assert_eq!(ask(&page, request).await.status(), StatusCode::FORBIDDEN);
        }
        let mut request = get(path);
        request
            .headers_mut()
            .insert("sec-fetch-site", "same-origin".parse().unwrap());
        request
            .headers_mut()
            .insert("origin", "http://127.0.0.1:9000".parse().unwrap());
        let answer = ask(&page, request).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let cors = answer.headers().keys();
        assert!(
            !cors
                .into_iter()
                .any(|name| name.as_str().starts_with("access-control"))
        );
    }
}

#[tokio::test]
async fn answers_forbid_framing_guessing_and_keeping() {
    for path in ["/", "/snapshot.json", "/events", "/nowhere"] {
        let answer = ask(&page(), get(path)).await;
        let headers = answer.headers();
        let policy = header(headers, "content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(
            policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header(headers, "x-content-type-options"), "nosniff");
        assert!(header(headers, "cache-control").contains("no-transform"));
        assert!(header(headers, "cache-control").contains("no-store"));
    }
    let events = ask(&page(), get("/events")).await;
    assert_eq!(header(events.headers(), "x-accel-buffering"), "no");
    assert_eq!(
        header(events.headers(), "content-type"),
        "text/event-stream"
    );
}

#[tokio::test]
async fn each_page_has_a_nonce_of_its_own() {
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let answer = ask(&page(), get("/")).await;
        let policy = header(answer.headers(), "content-security-policy").to_owned();
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap()
            .to_owned();
        let html = text(answer).await;
        assert_eq!(nonce.len(), 32);
        assert_eq!(html.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert!(!html.contains("NONCE"));
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn the_page_is_one_small_file_that_loads_nothing() {
    let html = text(ask(&page(), get("/")).await).await;
    assert!(html.len() < 40_000, "{} bytes", html.len());
    for foreign in [
        "https://",
        "src=\"",
        "@import",
        "innerHTML",
        "eval(",
        "style=\"",
    ] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn there_are_three_paths_beneath_a_prefix_or_none() {
    for (page, prefix) in [(page(), ""), (page().at("/admin/keep/"), "/admin/keep")] {
        for path in ["/", "/snapshot.json"] {
            let status = ask(&page, get(&format!("{prefix}{path}"))).await.status();
            assert_eq!(status, StatusCode::OK);
        }
        for path in ["/nowhere", "/snapshot.json/", "/events/x", "//"] {
            let status = ask(&page, get(&format!("{prefix}{path}"))).await.status();
            assert_eq!(status, StatusCode::NOT_FOUND, "{prefix}{path}");
        }
    }
    let unprefixed = ask(&page().at("keep"), get("/snapshot.json")).await;
    assert_eq!(unprefixed.status(), StatusCode::NOT_FOUND);
}
