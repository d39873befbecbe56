//! What the clients hyper and reqwest see of each fault beneath them, over a real server on
//! loopback.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneSyncService};
use tower_keep::{
    Classify, Outcome,
    fault::{Answers, Delay, Effect, Fault, FaultBody, FaultHandle, FaultLayer, Injected, Respond},
    protocol::{Advice, Protocol, Sent, http::Client},
};

use crate::{REASON, ms, now, secs, since};

type Asked = Request<Full<Bytes>>;
type Body = UnsyncBoxBody<Bytes, BoxError>;
type Sending = BoxCloneSyncService<Asked, Response<Body>, BoxError>;
type BoxEffect<B> = Response<FaultBody<B>>;

/// Serves 26 letters on loopback.
async fn letters() -> SocketAddr {
    let app = axum::Router::new().fallback(async || "abcdefghijklmnopqrstuvwxyz");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

/// Refuses connections.
async fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Reads a request, and closes its connection without an answer.
async fn rude() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut bytes = [0; 1024];
            let _ = socket.read(&mut bytes).await;
            // What is unread, or a linger of nothing, resets it.
            #[expect(deprecated, reason = "the new name needs a newer tokio")]
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown().now_or_never();
        }
    });
    address
}

fn hyper() -> Hyper<HttpConnector, Full<Bytes>> {
    Hyper::builder(TokioExecutor::new()).build_http()
}

/// A client over faults, that run.
fn over<C, B, E, W>(client: &C, fault: Fault<E, W>) -> (Sending, FaultHandle)
where
    C: Service<Asked, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    E: Effect + Answers<Asked, BoxEffect<B>, BoxError> + Send + Sync + 'static,
    W: tower_keep::fault::Condition<Asked> + Send + Sync + 'static,
{
    let layer = FaultLayer::builder(REASON)
        .protocol(Client::new())
        .fault(fault)
        .build()
        .unwrap();
    layer.handle().start_for(secs(60));
    let service = layer.layer(client.clone());
    let service = service.map_response(|response| response.map(BodyExt::boxed_unsync));
    (BoxCloneSyncService::new(service), layer.handle())
}

fn post(address: SocketAddr) -> Asked {
    let request = Request::post(format!("http://{address}/letters"));
    request.body(Full::from("apples")).unwrap()
}

async fn send(service: &Sending, address: SocketAddr) -> Result<Response<Body>, BoxError> {
    service.clone().oneshot(post(address)).await
}

async fn text(response: Response<Body>) -> Result<String, BoxError> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec())?)
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// All faults but those of connections, through one client.
async fn each_fault_is_seen<C, B>(client: C)
where
    C: Service<Asked, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let at = letters().await;

    let (service, _) = over(&client, Fault::status(503).retry_after(ms(1500)));
    let response = send(&service, at).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "2");
    assert!(response.extensions().get::<Injected>().is_some());

    let start = now();
    let (service, _) = over(&client, Fault::delay(Delay::uniform(ms(30)..ms(40))));
    let response = send(&service, at).await.unwrap();
    assert_eq!(text(response).await.unwrap(), LETTERS);
    assert!(since(start) >= ms(30));

    let (service, handle) = over(&client, Fault::hang());
    let mut hung = Box::pin(send(&service, at));
    timeout(ms(20), &mut hung).await.map(drop).unwrap_err();
    handle.stop();
    assert_eq!(text(hung.await.unwrap()).await.unwrap(), LETTERS);

    let (service, _) = over(
        &client,
        Fault::error(|_: &Asked| io::Error::other("injected")),
    );
    let error = send(&service, at).await.unwrap_err();
    assert!(error.is::<io::Error>());

    let made: Fault<Respond<_>> =
        Fault::response(|request: &Asked| Response::new(request.uri().path().to_owned().into()));
    let (service, _) = over(&client, made);
    let response = send(&service, at).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "/letters");

    let (service, handle) = over(&client, Fault::not_ready());
    let mut held = Box::pin(send(&service, at));
    timeout(ms(20), &mut held).await.map(drop).unwrap_err();
    handle.stop();
    assert_eq!(held.await.unwrap().status(), StatusCode::OK);

    let (service, _) = over(&client, Fault::panic());
    let task = tokio::spawn(async move { send(&service, at).await.map(drop) });
    assert!(task.await.unwrap_err().is_panic());

    let (service, _) = over(&client, Fault::cut_body(5));
    let response = send(&service, at).await.unwrap();
    assert_eq!(response.headers()["content-length"], "26");
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "abcde");
    body.frame().await.unwrap().unwrap_err();

    let (service, handle) = over(&client, Fault::stall_body(5));
    let response = send(&service, at).await.unwrap();
    let mut reading = Box::pin(text(response));
    timeout(ms(20), &mut reading).await.map(drop).unwrap_err();
    handle.stop();
    assert_eq!(reading.await.unwrap(), LETTERS);

    let start = now();
    let (service, _) = over(&client, Fault::trickle_body(10, ms(10)));
    let response = send(&service, at).await.unwrap();
    assert_eq!(text(response).await.unwrap(), LETTERS);
    assert!(since(start) >= ms(30));
}

/// A refused or a reset connection is read as a real one is.
async fn connections_fail_as_real_ones<C, B>(client: C)
where
    C: Service<Asked, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let read = |result: Result<Response<Body>, BoxError>| {
        let error = result.unwrap_err();
        let result = Err::<&Response<Body>, _>(&error);
        let outcome = Classify::<Response<Body>, BoxError>::classify(&Client::new(), result);
        let protocol = Client::new();
        let advice = Protocol::<Response<Body>, BoxError>::advise(&protocol, outcome, result);
        (outcome, advice)
    };
    let real = async |address| {
        let request = post(address);
        let result = client.clone().oneshot(request).await;
        let result = result.map(|response| response.map(|_| Body::default()));
        read(result.map_err(Into::into))
    };
    let retry = |sent| (Outcome::Failure, Advice::Retry { sent, after: None });

    let (service, _) = over(&client, Fault::refused());
    assert_eq!(read(send(&service, letters().await).await), retry(Sent::No));
    assert_eq!(real(closed().await).await, retry(Sent::No));

    let (service, _) = over(&client, Fault::reset());
    assert_eq!(
        read(send(&service, letters().await).await),
        retry(Sent::Maybe)
    );
    assert_eq!(real(rude().await).await, retry(Sent::Maybe));
}

#[tokio::test]
async fn hyper_sees_each_fault() {
    each_fault_is_seen(hyper()).await;
}

#[tokio::test]
async fn connections_fail_as_those_of_hyper() {
    connections_fail_as_real_ones(hyper()).await;
}

#[cfg(feature = "reqwest-012")]
#[tokio::test]
async fn reqwest_012_sees_each_fault() {
    let client = || tower_keep::reqwest::Reqwest::new(reqwest_012::Client::new());
    each_fault_is_seen(client()).await;
    connections_fail_as_real_ones(client()).await;
}

#[cfg(feature = "reqwest-013")]
#[tokio::test]
async fn reqwest_013_sees_each_fault() {
    let client = || tower_keep::reqwest::Reqwest::new(reqwest_013::Client::new());
    each_fault_is_seen(client()).await;
    connections_fail_as_real_ones(client()).await;
}

/// The body tells whether a request was sent, so a refused one must not be looked at, and that of
/// a reset one must.
#[tokio::test]
async fn a_refused_request_keeps_its_body() {
    use std::sync::atomic::{AtomicBool, Ordering};

    static TAKEN: AtomicBool = AtomicBool::new(false);
    let body = || {
        let bytes = futures::stream::once(async {
            TAKEN.store(true, Ordering::SeqCst);
            Ok::<_, Infallible>(http_body::Frame::data(Bytes::from("apples")))
        });
        http_body_util::StreamBody::new(Box::pin(bytes))
    };
    let taken = async |fault: Fault| {
        TAKEN.store(false, Ordering::SeqCst);
        let layer = FaultLayer::builder(REASON)
            .protocol(Client::new())
            .fault(fault)
            .build()
            .unwrap();
        layer.handle().start_for(secs(60));
        let never = tower::service_fn(async |_: Request<_>| {
            Err::<Response<Full<Bytes>>, _>(io::Error::other("called"))
        });
        // Neither a host nor a version that hyper's client for HTTP/1 takes.
        let mut request = Request::put("/letters").body(body()).unwrap();
        *request.version_mut() = http::Version::HTTP_2;
        let error = layer.layer(never).oneshot(request).await.unwrap_err();
        assert!(error.is::<hyper_util::client::legacy::Error>(), "{error}");
        TAKEN.load(Ordering::SeqCst)
    };
    assert!(!taken(Fault::refused()).await);
    assert!(taken(Fault::reset()).await);
}

/// A client of reqwest's own kind, over faults, behind a stack.
#[cfg(feature = "reqwest-013")]
#[tokio::test]
async fn a_kept_reqwest_client_retries_what_was_refused() {
    use tower::ServiceBuilder;
    use tower_keep::{reqwest::Kept, stack};

    let faults = FaultLayer::builder(REASON)
        .protocol(Client::new())
        .fault(
            Fault::refused()
                .by_key(|request: &Request<_>| Some(request.uri().path().to_owned()))
                .share(0.5),
        )
        .seed(1)
        .build()
        .unwrap();
    let stack = stack::client().http().build().unwrap();
    let layers = ServiceBuilder::new().layer(stack).layer(faults.clone());
    let client = reqwest_013::Client::new();
    let kept = Kept::new(client.clone(), &layers.into_inner());
    faults.handle().start_for(secs(60));
    let at = letters().await;
    for n in 0..10 {
        // None of it was sent, so a POST is sent again as well.
        let request = client.post(format!("http://{at}/{n}")).body("apples");
        let response = kept.send(request).await;
        if let Ok(response) = response {
            assert_eq!(response.text().await.unwrap(), LETTERS);
        }
    }
    assert!(faults.handle().snapshot().injected["refused"] > 0);
}
