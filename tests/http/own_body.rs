//! A retry, and a whole stack, over services that take requests of one type.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, buffer::BufferLayer, service_fn,
    util::BoxService,
};
use tower_keep::{
    Rejected, RejectedKind,
    hedge::HedgeLayer,
    protocol::{
        Advice, Sent,
        http::{Client, KeepBody},
    },
    retry::{Backoff, RetryLayer},
    stack::{self, ClientStack},
};

type Known = Full<Bytes>;
type Answer = Response<Empty<Bytes>>;

/// A body as clients of an API bring one: it can be copied unless it is a stream.
#[derive(Debug)]
enum OwnBody {
    Known(Bytes),
    Stream,
}

impl OwnBody {
    fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Known(bytes) => Some(Self::Known(bytes.clone())),
            Self::Stream => None,
        }
    }
}

/// What an upstream got, and the statuses with which it answers before it answers well; 0 is a
/// connection that was refused.
struct Upstream<B> {
    got: Arc<Mutex<Vec<Request<B>>>>,
    statuses: &'static [u16],
}

impl<B> Clone for Upstream<B> {
    fn clone(&self) -> Self {
        Self {
            got: self.got.clone(),
            ..*self
        }
    }
}

impl<B: Send + 'static> Upstream<B> {
    fn new(statuses: &'static [u16]) -> Self {
        let got = Arc::default();
        Self { got, statuses }
    }

    async fn answer(self, request: Request<B>) -> Result<Answer, BoxError> {
        let mut got = self.got.lock().unwrap();
        let status = self.statuses.get(got.len()).copied().unwrap_or(200);
        got.push(request);
        if status == 0 {
            return Err(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        }
        Ok(Response::builder().status(status).body(Empty::new())?)
    }

    /// A service that takes no other requests, and can be cloned.
    fn service(
        &self,
    ) -> impl Service<Request<B>, Response = Answer, Error = BoxError, Future: Send> + Clone + use<B>
    {
        let upstream = self.clone();
        service_fn(move |request| upstream.clone().answer(request))
    }

    fn sent(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

fn request<B>(method: Method, body: B) -> Request<B> {
    let request = Request::builder()
        .method(method)
        .uri("http://a.example/orders");
    request.header("x-tenant", "7").body(body).unwrap()
}

fn retry<K: Clone>(client: Client<K>) -> RetryLayer<Client<K>> {
    let retry = RetryLayer::builder().protocol(client);
    let retry = retry.backoff(Backoff::constant(Duration::from_millis(70)));
    retry.build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_the_body_and_its_type() {
    let upstream = Upstream::<Known>::new(&[503, 502]);
    let service = retry(Client::new().clone_body()).layer(upstream.service());
    let put = request(Method::PUT, Known::from("one"));
    let answer = service.oneshot(put).await.unwrap();
    assert_eq!((answer.status().as_u16(), upstream.sent()), (200, 3));
    let all = std::mem::take(&mut *upstream.got.lock().unwrap());
    for got in all {
        assert_eq!(got.headers()["x-tenant"], "7");
        assert_eq!(got.into_body().collect().await.unwrap().to_bytes(), "one");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_copied_is_sent_once() {
    let client = Client::new().copy_body(OwnBody::try_clone);
    for (body, status, sent) in [
        (OwnBody::Known("one".into()), 200, 2),
        (OwnBody::Stream, 503, 1),
    ] {
        let (upstream, retry) = (Upstream::new(&[503]), retry(client));
        let service = retry.layer(upstream.service());
        let answer = service.oneshot(request(Method::PUT, body)).await.unwrap();
        assert_eq!((answer.status().as_u16(), upstream.sent()), (status, sent));
        let not_replayable = retry.handle().snapshot().not_replayable;
        assert_eq!(not_replayable, u64::from(status == 503));
    }
}

#[tokio::test(start_paused = true)]
async fn a_copying_closure_may_capture_and_refuse() {
    let longest = 3;
    let client = Client::new().copy_body(move |body: &Bytes| {
        let fits = body.len() <= longest;
        fits.then(|| body.clone())
    });
    for (body, sent) in [("one", 2), ("four", 1)] {
        let upstream = Upstream::new(&[503]);
        let service = retry(client).layer(upstream.service());
        let put = request(Method::PUT, Bytes::from(body));
        service.oneshot(put).await.unwrap();
        assert_eq!(upstream.sent(), sent, "{body}");
    }
}

/// A body that keeps its type cannot show whether it was taken, so "refused" may have been said of
/// another request, to follow a redirect for example.
#[tokio::test(start_paused = true)]
async fn a_refused_post_is_sent_again_if_nothing_redirects() {
    for (composite, sent) in [(None, 1), (Some(true), 1), (Some(false), 2)] {
        let client = Client::new().clone_body();
        let client = match composite {
            Some(composite) => client.composite(composite),
            None => client,
        };
        let upstream = Upstream::<Known>::new(&[0]);
        let service = retry(client).layer(upstream.service());
        let post = request(Method::POST, Known::from("one"));
        let _ = service.oneshot(post).await;
        assert_eq!(upstream.sent(), sent, "{composite:?}");
    }
    // An idempotent one always is.
    let upstream = Upstream::<Known>::new(&[0]);
    let service = retry(Client::new().clone_body()).layer(upstream.service());
    let put = request(Method::PUT, Known::default());
    assert_eq!(service.oneshot(put).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_did_not_process_is_sent_again() {
    let client = Client::new().advise(|status, _| {
        let unprocessed = Advice::Retry {
            sent: Sent::No,
            after: None,
        };
        (status == 429).then_some(unprocessed)
    });
    let upstream = Upstream::<Known>::new(&[429]);
    let service = retry(client.clone_body()).layer(upstream.service());
    let answer = service.oneshot(request(Method::POST, Known::from("one")));
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_keeps_the_type_too() {
    let hedge = HedgeLayer::builder().delay(Duration::from_millis(20));
    let hedge = hedge.protocol(Client::new().clone_body()).build().unwrap();
    let slow = service_fn(async |_: Request<Known>| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, BoxError>(Answer::default())
    });
    let get = request(Method::GET, Known::default());
    hedge.layer(slow).oneshot(get).await.unwrap();
    assert_eq!(hedge.handle().snapshot().sent, 1);
}

/// A client's builder as some SDKs have one: its service is boxed, takes requests of its own type,
/// and is not `Clone`.
struct Sdk {
    service: BoxService<Request<OwnBody>, Answer, BoxError>,
}

impl Sdk {
    fn new(upstream: &Upstream<OwnBody>) -> Self {
        let service = BoxService::new(upstream.service());
        Self { service }
    }

    fn with_layer<L>(self, layer: &L) -> Self
    where
        L: Layer<BoxService<Request<OwnBody>, Answer, BoxError>>,
        L::Service: Service<Request<OwnBody>, Response = Answer, Error = BoxError>,
        L::Service: Send + 'static,
        <L::Service as Service<Request<OwnBody>>>::Future: Send,
    {
        let service = BoxService::new(layer.layer(self.service));
        Self { service }
    }

    async fn send(&mut self, method: Method) -> Result<Answer, BoxError> {
        let request = request(method, OwnBody::Known("one".into()));
        self.service.ready().await?.call(request).await
    }
}

fn stack<K>(change: impl FnOnce(Client) -> Client<K>) -> ClientStack<Client<K>>
where
    K: Clone + KeepBody<OwnBody>,
{
    let backoff = Backoff::constant(Duration::from_millis(70));
    stack::client()
        .http()
        .protocol(change)
        .retry(|retry| retry.backoff(backoff))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stack_goes_onto_a_boxed_client() {
    let upstream = Upstream::new(&[503, 503]);
    let stack = stack(|http| http.copy_body(OwnBody::try_clone));
    // The stack clones its service, which a `Buffer` makes possible.
    let layers = ServiceBuilder::new()
        .layer(stack.clone())
        .layer(BufferLayer::new(16));
    let mut sdk = Sdk::new(&upstream).with_layer(&layers);
    assert_eq!(sdk.send(Method::PUT).await.unwrap().status(), 200);
    assert_eq!(
        (upstream.sent(), stack.handle().retry.snapshot().retries),
        (3, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_boxed_clients_circuit_opens() {
    let upstream = Upstream::new(&[500; 100]);
    let stack = stack(|http| http.copy_body(OwnBody::try_clone));
    let layers = (stack, BufferLayer::new(16));
    let mut sdk = Sdk::new(&upstream).with_layer(&layers);
    let error = loop {
        if let Err(error) = sdk.send(Method::POST).await {
            break error;
        }
    };
    let kind = Rejected::find(&*error).map(|rejected| rejected.kind);
    assert_eq!(
        (kind, upstream.sent()),
        (Some(RejectedKind::CircuitOpen), 8)
    );
}

#[cfg(feature = "reqwest-013")]
#[tokio::test(start_paused = true)]
async fn reqwests_own_body_is_copied() {
    let upstream = Upstream::<reqwest_013::Body>::new(&[503]);
    let client = Client::new().copy_body(|body: &reqwest_013::Body| {
        let bytes = body.as_bytes()?;
        Some(bytes.to_vec().into())
    });
    let service = retry(client).layer(upstream.service());
    let put = request(Method::PUT, reqwest_013::Body::from("one"));
    assert_eq!(service.oneshot(put).await.unwrap().status(), 200);
    let got = upstream.got.lock().unwrap();
    let bodies = got.iter().map(|request| request.body().as_bytes());
    assert!(bodies.eq([Some(b"one".as_slice()); 2]));
}

/// The head of what a retry is about is known as it is over recorded bodies.
#[tokio::test(start_paused = true)]
async fn a_retry_of_a_copied_body_tells_its_head() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let retry = RetryLayer::builder()
        .protocol(Client::new().clone_body())
        .on_retry(move |event| {
            let head = event.request().map(|head: &http::request::Parts| {
                let fields: &HeaderMap = &head.headers;
                (head.uri.path().to_owned(), fields["x-tenant"].clone())
            });
            tell.lock().unwrap().extend(head);
        });
    let upstream = Upstream::<Known>::new(&[503]);
    let service = retry.build().unwrap().layer(upstream.service());
    let put = request(Method::PUT, Known::default());
    service.oneshot(put).await.unwrap();
    let told = told.lock().unwrap();
    assert_eq!(*told, [("/orders".to_owned(), "7".parse().unwrap())]);
}
