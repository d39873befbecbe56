//! HTTP/2 before an nginx that closes its connections, as it does after so many requests and when
//! its configuration is loaded again.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};
use tower_keep::stack;

use crate::nginx::Nginx;

const CALLERS: usize = 8;
const CALLS: usize = 100;

/// Lets eight callers send a hundred requests each, and returns how many were answered.
async fn answered(nginx: &Nginx, method: Method) -> usize {
    let stack = stack::client().http().build().unwrap();
    let mut http2 = Client::builder(TokioExecutor::new());
    let client = stack.layer(http2.http2_only(true).build_http());
    let callers = (0..CALLERS).map(|caller| {
        let (client, method) = (client.clone(), method.clone());
        let url = nginx.url(&format!("/{caller}"));
        tokio::spawn(async move {
            let mut answered = 0;
            for call in 0..CALLS {
                let request = Request::builder().method(&method);
                let request = request.uri(format!("{url}-{call}"));
                let request = request.body(Full::<Bytes>::default()).unwrap();
                let response = client.clone().oneshot(request).await;
                answered += usize::from(response.is_ok_and(|response| response.status() == 204));
            }
            answered
        })
    });
    let all = futures::future::try_join_all(callers.collect::<Vec<_>>());
    let all = tokio::time::timeout(Duration::from_secs(10), all).await;
    all.unwrap().unwrap().into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn gets_survive_connections_that_nginx_closes() {
    let server = "keepalive_requests 50; location / { return 204; }";
    let nginx = Nginx::start("http2", server).await;
    assert_eq!(answered(&nginx, Method::GET).await, CALLERS * CALLS);
}

/// hyper says the same of a request that was processed as of one that was not, when the GOAWAY
/// comes as it is sent. Of a hundred connections about four end so.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn nginx_closing_connections_processes_no_post_twice() {
    let server = "keepalive_requests 10; location / { return 204; }";
    let nginx = Nginx::start("http2", server).await;
    let answered = answered(&nginx, Method::POST).await;
    assert!(answered > CALLERS * CALLS / 2, "{answered} answered");
    let mut processed = nginx.requests().await;
    let all = processed.len();
    processed.sort();
    processed.dedup();
    assert_eq!(processed.len(), all);
    assert!(all >= answered);
}
