//! Faults for some requests over HTTP: by predicate, peer, attempt and header.

use std::convert::Infallible;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    fault::{Fault, FaultBody, FaultLayer, Injected},
    keyed,
    protocol::http::{Attempt, Client, Server},
};

use crate::{REASON, secs};

type Sent = Request<Empty<Bytes>>;
type Got = Response<FaultBody<Full<Bytes>>>;

/// A client without a network.
fn well()
-> impl Service<Sent, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone + Send
{
    service_fn(async |_: Sent| Ok(Response::new(Full::from("well"))))
}

fn get(uri: &str) -> Sent {
    Request::get(uri).body(Empty::new()).unwrap()
}

fn send<S>(service: &S, request: Sent) -> Got
where
    S: Service<Sent, Response = Got, Error: std::fmt::Debug> + Clone,
{
    service
        .clone()
        .oneshot(request)
        .now_or_never()
        .unwrap()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_injected_answer_bears_a_mark() {
    let layer = FaultLayer::builder("game day, 12 March")
        .protocol(Client::new())
        .fault(
            Fault::status(503)
                .retry_after(secs(2))
                .when(|request: &Request<_>| request.uri().path() == "/orders"),
        )
        .fault(
            Fault::response(|request: &Request<_>| {
                Response::new(format!("no {}", request.uri().path()).into())
            })
            .name("empty shelf")
            .when(|request: &Request<_>| request.uri().path() == "/stock"),
        )
        .name("shop")
        .build()
        .unwrap();
    let service = layer.layer(well());
    layer.handle().start_for(secs(60));

    let answer = send(&service, get("http://shop/orders"));
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "2");
    let mark = answer.extensions().get::<Injected>().unwrap();
    assert_eq!((mark.fault, mark.name), ("status", Some("shop")));
    assert_eq!(mark.reason, "game day, 12 March");
    let body = answer.into_body().collect().await.unwrap();
    assert!(body.to_bytes().is_empty());

    let answer = send(&service, get("http://shop/stock"));
    let mark = answer.extensions().get::<Injected>().unwrap();
    assert_eq!(mark.fault, "empty shelf");
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "no /stock");

    let answer = send(&service, get("http://shop/"));
    assert!(answer.extensions().get::<Injected>().is_none());
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "well");
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_peers_is_sick_for_all_calls() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Client::new())
        .fault(Fault::status(503).peers(0.25, keyed::host()))
        .seed(1)
        .build()
        .unwrap();
    let service = layer.layer(well());
    layer.handle().start_for(secs(60));
    let mut sick = 0;
    for peer in 0..200 {
        let calls: Vec<_> = (0..5)
            .map(|call| send(&service, get(&format!("http://10.0.0.{peer}.test/{call}"))).status())
            .collect();
        assert!(calls.iter().all(|status| *status == calls[0]), "{calls:?}");
        sick += u32::from(calls[0] != StatusCode::OK);
    }
    assert!((30..70).contains(&sick), "{sick}");
    // Nobody knows its peer.
    assert_eq!(send(&service, get("/")).status(), StatusCode::OK);
}

/// Drawn by the key alone, all attempts of an unlucky request would fail alike.
#[tokio::test(start_paused = true)]
async fn attempts_of_one_request_have_fates_of_their_own() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Client::new())
        .fault(
            Fault::status(503)
                .share(0.3)
                .by_key(|request: &Request<_>| Some(request.uri().path().to_owned())),
        )
        .seed(1)
        .build()
        .unwrap();
    let service = layer.layer(well());
    layer.handle().start_for(secs(60));
    let fails = |path: u32, attempt| {
        let mut request = get(&format!("http://shop/{path}"));
        if attempt > 1 {
            request.extensions_mut().insert(Attempt(attempt));
        }
        send(&service, request).status() != StatusCode::OK
    };
    let mut failed = [0; 4];
    for path in 0..2000 {
        let fates = [1, 2, 3].map(|attempt| fails(path, attempt));
        assert_eq!(fates, [1, 2, 3].map(|attempt| fails(path, attempt)));
        failed[fates.iter().filter(|fails| **fails).count()] += 1;
    }
    // Binomial: 34.3, 44.1, 18.9 and 2.7 %.
    let expected = [686, 882, 378, 54];
    for (found, expected) in failed.into_iter().zip(expected) {
        assert!(i32::abs(found - expected) < 100, "{failed:?}");
    }
    assert!(failed[3] < 100, "{failed:?}");
}

/// What the service behind the guard has checked.
#[derive(Clone)]
struct Staff;

#[tokio::test(start_paused = true)]
async fn a_header_asks_only_with_the_guards_leave() {
    let layer = FaultLayer::builder(REASON)
        .protocol(Server::new())
        .fault(
            Fault::status(418)
                .name("teapot")
                .by_header("X-Fault", |request: &Request<_>| {
                    request.extensions().get::<Staff>().is_some()
                }),
        )
        .build()
        .unwrap();
    let service = layer.layer(well());
    let status = |field: Option<&str>, staff: bool| {
        let mut request = get("/");
        if let Some(field) = field {
            let field = HeaderValue::from_bytes(field.as_bytes()).unwrap();
            request.headers_mut().insert("x-fault", field);
        }
        if staff {
            request.extensions_mut().insert(Staff);
        }
        send(&service, request).status().as_u16()
    };
    assert_eq!(status(Some("teapot"), true), 200); // off
    layer.handle().start_for(secs(60));
    assert_eq!(status(Some("teapot"), true), 418);
    assert_eq!(status(Some("hang, teapot"), true), 418);
    assert_eq!(status(Some("teapot"), false), 200);
    assert_eq!(status(Some("teapots"), true), 200);
    assert_eq!(status(Some("ü"), true), 200);
    assert_eq!(status(None, true), 200);
}
