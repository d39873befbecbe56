//! What the tests share: an inner service that sees whether it is treated as Tower demands, and one
//! shape for all layers and protocols.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneSyncService};

use tower_keep::Rejected;

/// What the probe is asked to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Succeed,
    Fail,
    /// Wait this many polls, then succeed.
    Yield(u32),
    Hang,
    PanicInCall,
    PanicInFuture,
}

/// What became of a call, whatever the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Succeeded,
    /// The probe's own error, or its 500.
    Failed,
    Rejected(Rejected),
}

/// Any layer over any protocol, applied to a probe.
pub(crate) type Wrapped = BoxCloneSyncService<Ask, Answer, BoxError>;

/// An inner service that insists on `poll_ready` before each `call`, and counts.
#[derive(Debug)]
pub(crate) struct Probe {
    readied: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: AtomicUsize,
    running: AtomicUsize,
    unready_calls: AtomicUsize,
    broken: AtomicBool,
    hung: AtomicBool,
    script: Mutex<Vec<Ask>>,
}

/// The error of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeError;

impl Probe {
    pub(crate) fn new() -> Self {
        Self {
            readied: false,
            shared: Arc::default(),
        }
    }

    /// How many calls arrived.
    pub(crate) fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// How many futures are alive.
    pub(crate) fn running(&self) -> usize {
        self.shared.running.load(Ordering::SeqCst)
    }

    /// How many calls came without their own `poll_ready`.
    pub(crate) fn unready_calls(&self) -> usize {
        self.shared.unready_calls.load(Ordering::SeqCst)
    }

    /// From now on `poll_ready` fails.
    pub(crate) fn break_down(&self) {
        self.shared.broken.store(true, Ordering::SeqCst);
    }

    /// From now on, or until told otherwise, `poll_ready` is pending for ever.
    pub(crate) fn hang_readiness(&self, hung: bool) {
        self.shared.hung.store(hung, Ordering::SeqCst);
    }

    /// The next calls do this, in order, whatever they are asked.
    pub(crate) fn script(&self, asks: impl IntoIterator<Item = Ask>) {
        let mut asks: Vec<_> = asks.into_iter().collect();
        asks.reverse();
        *self.shared.script.lock().unwrap() = asks;
    }

    fn ready(&mut self) -> Poll<Result<(), ProbeError>> {
        if self.shared.broken.load(Ordering::SeqCst) {
            return Poll::Ready(Err(ProbeError));
        }
        if self.shared.hung.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.readied = true;
        Poll::Ready(Ok(()))
    }

    fn answer(&mut self, ask: Ask) -> ProbeFuture {
        let Shared {
            calls,
            unready_calls,
            running,
            script,
            ..
        } = &*self.shared;
        calls.fetch_add(1, Ordering::SeqCst);
        unready_calls.fetch_add(usize::from(!self.readied), Ordering::SeqCst);
        self.readied = false;
        let ask = script.lock().unwrap().pop().unwrap_or(ask);
        assert!(ask != Ask::PanicInCall, "asked to panic");
        running.fetch_add(1, Ordering::SeqCst);
        ProbeFuture {
            ask,
            shared: self.shared.clone(),
        }
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self {
            readied: false,
            shared: self.shared.clone(),
        }
    }
}

impl Service<Ask> for Probe {
    type Response = ();
    type Error = ProbeError;
    type Future = ProbeFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        self.ready()
    }

    fn call(&mut self, ask: Ask) -> ProbeFuture {
        self.answer(ask)
    }
}

/// A call that the probe answers.
#[derive(Debug)]
pub(crate) struct ProbeFuture {
    ask: Ask,
    shared: Arc<Shared>,
}

impl Future for ProbeFuture {
    type Output = Result<(), ProbeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.ask {
            Ask::Succeed | Ask::Yield(0) => Poll::Ready(Ok(())),
            Ask::Fail => Poll::Ready(Err(ProbeError)),
            Ask::Yield(polls) => {
                *polls -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ask::Hang => Poll::Pending,
            Ask::PanicInCall | Ask::PanicInFuture => panic!("asked to panic"),
        }
    }
}

impl Drop for ProbeFuture {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the probe failed")
    }
}

impl std::error::Error for ProbeError {}

/// The probe behind HTTP: the ask travels as an extension.
#[derive(Debug, Clone)]
pub(crate) struct HttpProbe(Probe);

impl<B> Service<Request<B>> for HttpProbe {
    type Response = Response<Full<Bytes>>;
    type Error = ProbeError;
    type Future = HttpFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        self.0.ready()
    }

    fn call(&mut self, request: Request<B>) -> HttpFuture {
        let ask = request.extensions().get::<Ask>().copied().unwrap();
        HttpFuture(self.0.answer(ask))
    }
}

/// A call that the probe answers over HTTP; it fails with a 500, as a server does.
#[derive(Debug)]
pub(crate) struct HttpFuture(ProbeFuture);

impl Future for HttpFuture {
    type Output = Result<Response<Full<Bytes>>, ProbeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| {
            let status = if result.is_ok() {
                StatusCode::OK
            } else {
                StatusCode::BAD_GATEWAY
            };
            Ok(Response::builder()
                .status(status)
                .body(Full::default())
                .unwrap())
        })
    }
}

/// A layer that stands in `Plain`.
pub(crate) fn plain<L>(layer: L) -> impl Fn(Probe) -> Wrapped
where
    L: Layer<Probe>,
    L::Service:
        Service<Ask, Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync + 'static,
{
    move |probe| {
        BoxCloneSyncService::new(
            layer
                .layer(probe)
                .then(async |result: Result<(), BoxError>| {
                    read_error(result.map(|()| Answer::Succeeded))
                }),
        )
    }
}

/// A layer that stands in `http::Client`.
pub(crate) fn client<L>(layer: L) -> impl Fn(Probe) -> Wrapped
where
    L: Layer<HttpProbe>,
    L::Service: Service<
            Request<Empty<Bytes>>,
            Response = Response<Full<Bytes>>,
            Error = BoxError,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    move |probe| {
        let service = layer.layer(HttpProbe(probe)).map_request(request);
        BoxCloneSyncService::new(
            service.then(async |result: Result<_, BoxError>| read_error(result.map(read_response))),
        )
    }
}

/// A layer that stands in `http::Server`; its error is the handler's own.
pub(crate) fn server<L>(layer: L) -> impl Fn(Probe) -> Wrapped
where
    L: Layer<HttpProbe>,
    L::Service: Service<
            Request<Empty<Bytes>>,
            Response = Response<Full<Bytes>>,
            Error = ProbeError,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    move |probe| {
        let service = layer.layer(HttpProbe(probe)).map_request(request);
        BoxCloneSyncService::new(service.map_response(read_response).map_err(BoxError::from))
    }
}

fn request(ask: Ask) -> Request<Empty<Bytes>> {
    Request::builder()
        .extension(ask)
        .body(Empty::new())
        .unwrap()
}

fn read_response(response: Response<Full<Bytes>>) -> Answer {
    match response.extensions().get::<Rejected>() {
        Some(rejected) => Answer::Rejected(rejected.clone()),
        None if response.status().is_success() => Answer::Succeeded,
        None => Answer::Failed,
    }
}

fn read_error(result: Result<Answer, BoxError>) -> Result<Answer, BoxError> {
    result.or_else(
        |error| match (error.downcast_ref::<Rejected>(), error.is::<ProbeError>()) {
            (Some(rejected), _) => Ok(Answer::Rejected(rejected.clone())),
            (None, true) => Ok(Answer::Failed),
            (None, false) => Err(error),
        },
    )
}

/// One call, from readiness to answer.
pub(crate) async fn ask(service: &mut Wrapped, ask: Ask) -> Answer {
    service.ready().await.unwrap().call(ask).await.unwrap()
}
