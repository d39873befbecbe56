//! One layer is one limit, wherever on an axum `Router` it stands and however that is driven: of
//! twelve requests to two routes exactly three reach a handler.

use std::{
    convert::Infallible,
    future::{self, IntoFuture},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{Route, get},
};
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpListener, task::yield_now};
use tower::{Layer, Service, ServiceExt};
use tower_keep::{
    RejectedKind,
    algorithm::{SlidingLog, TokenBucket, Vegas},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    protocol::http::{Server, UntilBodyEnd},
    rate_limit::{Dimension, Rate, RateLimitLayer},
    stack,
    throttle::ThrottleLayer,
};

use super::{
    ONE,
    wire::{BoxBody, Connection, Wire, connect},
};

/// Where a layer stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    Layer,
    RouteLayer,
    EachMethodRouter,
    Nested,
    AroundNested,
    Merged,
    BeforeState,
    Fallback,
}

/// How requests come.
#[derive(Debug, Clone, Copy)]
enum Way {
    Oneshot,
    KeptAlive,
    NewConnections,
    Served,
}

/// What handlers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handles {
    Greeting,
    Hanging,
    Failing,
    Overloaded,
}

#[derive(Debug, Clone)]
struct Handler {
    handles: Handles,
    /// How many requests have reached a handler.
    reached: Arc<AtomicUsize>,
}

/// A layer that lets three calls in, of such handlers, and the status of its rejections.
struct Case {
    name: &'static str,
    handles: Handles,
    rejects: u16,
    router: Box<dyn Fn(Place, Handler) -> Router>,
}

type Ask = Box<dyn Fn(String) -> BoxFuture<'static, StatusCode>>;

async fn handle(State(handler): State<Handler>) -> StatusCode {
    handler.reached.fetch_add(1, SeqCst);
    match handler.handles {
        Handles::Greeting => StatusCode::OK,
        Handles::Hanging => future::pending().await,
        Handles::Failing => StatusCode::INTERNAL_SERVER_ERROR,
        Handles::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn placed<L>(layer: L, place: Place, handler: Handler) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Response: IntoResponse, Error: Into<Infallible>, Future: Send>,
    L::Service: Clone + Send + Sync + 'static,
{
    let bare = || {
        Router::new()
            .route("/a", get(handle))
            .route("/b", get(handle))
    };
    let routes = || bare().with_state(handler.clone());
    let each = || get(handle).layer(layer.clone());
    match place {
        Place::Layer => routes().layer(layer),
        Place::RouteLayer => routes().route_layer(layer),
        Place::EachMethodRouter => Router::new()
            .route("/a", each())
            .route("/b", each())
            .with_state(handler),
        Place::Nested => Router::new().nest("/api", routes().layer(layer)),
        Place::AroundNested => Router::new().nest("/api", routes()).layer(layer),
        Place::Merged => Router::new()
            .route("/other", get(async || "other"))
            .merge(routes().layer(layer)),
        Place::BeforeState => bare().layer(layer).with_state(handler),
        Place::Fallback => Router::new()
            .fallback(handle)
            .with_state(handler)
            .layer(layer),
    }
}

fn case<L>(name: &'static str, make: impl Fn() -> L + 'static, rejects: u16) -> Case
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Response: IntoResponse, Error: Into<Infallible>, Future: Send>,
    L::Service: Clone + Send + Sync + 'static,
{
    Case {
        name,
        handles: Handles::Greeting,
        rejects,
        router: Box::new(move |place, handler| placed(make(), place, handler)),
    }
}

fn rates() -> [Case; 10] {
    let limit = || RateLimitLayer::builder(ONE).burst(3);
    let served = move || limit().protocol(Server::new());
    let to_end = move || limit().protocol(UntilBodyEnd::new(Server::new()));
    let log = || RateLimitLayer::with(SlidingLog::new(Rate::per_day(3)).unwrap());
    let key = |_: &Request| Some(7);
    let own = |_: &i32| TokenBucket::new(ONE, 3);
    let stack = || stack::server().http().max_in_flight(9).rate(ONE).burst(3);
    let quotas = || {
        let quotas = ["requests", "tokens"].map(|name| Dimension::new(name, ONE).burst(3));
        RateLimitLayer::dimensions(quotas)
    };
    let quotas_of_stack = move || {
        let stack = stack::server().http().max_in_flight(9);
        stack.rate_limit(quotas().keyed_by(key)).build().unwrap()
    };
    [
        case(
            "dimensions",
            move || quotas().protocol(Server::new()).build().unwrap(),
            429,
        ),
        case(
            "keyed dimensions",
            move || {
                let quotas = quotas().keyed_by(key);
                quotas.protocol(Server::new()).build().unwrap()
            },
            429,
        ),
        case("stack's dimensions", quotas_of_stack, 429),
        case("rate limit", move || served().build().unwrap(), 429),
        case("to the end", move || to_end().build().unwrap(), 429),
        case(
            "log",
            move || log().protocol(Server::new()).build().unwrap(),
            429,
        ),
        case(
            "keyed",
            move || served().keyed_by(key).build().unwrap(),
            429,
        ),
        case(
            "per key",
            move || served().per_key(key, own).build().unwrap(),
            429,
        ),
        case("stack's rate", move || stack().build().unwrap(), 429),
        case(
            "gates",
            move || {
                let bulkhead = BulkheadLayer::builder(9).gate().unwrap();
                GateLayer::new((limit().gate().unwrap(), bulkhead)).protocol(Server::new())
            },
            429,
        ),
    ]
}

fn bulkheads() -> [Case; 6] {
    let bulkhead = || BulkheadLayer::builder(3).protocol(Server::new());
    let to_end = || BulkheadLayer::builder(3).protocol(UntilBodyEnd::new(Server::new()));
    let learning = move || bulkhead().adaptive(Vegas::default());
    let key = |_: &Request| Some(7);
    let stack = || stack::server().http().max_in_flight(3);
    let mut cases = [
        case("bulkhead", move || bulkhead().build().unwrap(), 503),
        case(
            "bulkhead to the end",
            move || to_end().build().unwrap(),
            503,
        ),
        case(
            "keyed bulkhead",
            move || bulkhead().keyed_by(key).build().unwrap(),
            503,
        ),
        case(
            "adaptive bulkhead",
            move || learning().build().unwrap(),
            503,
        ),
        case("stack's bulkhead", move || stack().build().unwrap(), 503),
        case(
            "stack to the end",
            move || stack().protocol(UntilBodyEnd::new).build().unwrap(),
            503,
        ),
    ];
    for case in &mut cases {
        case.handles = Handles::Hanging;
    }
    cases
}

fn breakers() -> [Case; 3] {
    let breaker = || CircuitBreakerLayer::builder().consecutive_failures(3);
    let served = move || breaker().protocol(Server::new());
    let key = |_: &Request| Some(7);
    let mut cases = [
        case("circuit breaker", move || served().build().unwrap(), 503),
        case(
            "keyed circuit breaker",
            move || served().keyed_by(key).build().unwrap(),
            503,
        ),
        case(
            "gate of a circuit breaker",
            move || GateLayer::new(breaker().gate().unwrap()).protocol(Server::new()),
            503,
        ),
    ];
    for case in &mut cases {
        case.handles = Handles::Failing;
    }
    cases
}

async fn asking(router: Router, way: Way) -> Ask {
    match way {
        Way::Oneshot => Box::new(move |path| {
            let call = router.clone().oneshot(to(&path));
            Box::pin(async move { call.await.unwrap().status() })
        }),
        Way::NewConnections => Box::new(move |path| {
            let call = Wire(router.clone()).oneshot(to(&path));
            Box::pin(async move { call.await.unwrap().status() })
        }),
        Way::KeptAlive => {
            let idle = Idle::default();
            Box::new(move |path| Box::pin(idle.clone().ask(router.clone(), path)))
        }
        Way::Served => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(axum::serve(listener, router).into_future());
            let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
            Box::new(move |path| {
                let call = client.request(to(&format!("http://{address}{path}")));
                Box::pin(async move { call.await.unwrap().status() })
            })
        }
    }
}

fn to(path: &str) -> Request {
    let host = ("host", "upstream");
    let request = Request::get(path).header(host.0, host.1);
    request.body(Body::empty()).unwrap()
}

fn boxed(request: Request) -> axum::http::Request<BoxBody> {
    request.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// A connection that is used again for each request, unless one still hangs on it.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<Option<Connection>>>);

impl Idle {
    async fn ask(self, router: Router, path: String) -> StatusCode {
        let idle = self.0.lock().unwrap().take();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect(router).await.unwrap(),
        };
        let response = connection.send_request(boxed(to(&path))).await.unwrap();
        let status = response.status();
        drop(response);
        connection.ready().await.unwrap();
        *self.0.lock().unwrap() = Some(connection);
        status
    }
}

/// Sends twelve requests, each once the one before was answered or hangs. Returns how many have
/// reached a handler, and the answers to the others.
async fn twelve(ask: Ask, prefix: &str, handler: &Handler) -> (usize, Vec<StatusCode>) {
    let (mut hanging, mut rejected) = (Vec::new(), Vec::new());
    for n in 0..12 {
        let before = handler.reached.load(SeqCst);
        let mut call = tokio::spawn(ask(format!("{prefix}{}", ["/a", "/b"][n % 2])));
        let reached = || handler.reached.load(SeqCst) > before;
        while !call.is_finished() && !reached() {
            yield_now().await;
        }
        if handler.handles == Handles::Hanging && reached() {
            hanging.push(call);
            continue;
        }
        let status = (&mut call).await.unwrap();
        if !reached() {
            rejected.push(status);
        }
    }
    for call in hanging {
        call.abort();
    }
    (handler.reached.load(SeqCst), rejected)
}

#[tokio::test]
async fn three_of_twelve_requests_are_admitted_at_any_place() {
    let cases = rates().into_iter().chain(bulkheads()).chain(breakers());
    for case in cases {
        for place in PLACES {
            for way in WAYS {
                let handler = Handler {
                    handles: case.handles,
                    reached: Arc::default(),
                };
                let ask = asking((case.router)(place, handler.clone()), way).await;
                let (admitted, rejected) = twelve(ask, prefix(place), &handler).await;
                let name = format!("{}, {place:?}, {way:?}", case.name);
                assert_eq!((admitted, rejected.len()), (3, 9), "{name}: {rejected:?}");
                assert!(
                    rejected.iter().all(|status| *status == case.rejects),
                    "{name}"
                );
            }
        }
    }
}

fn prefix(place: Place) -> &'static str {
    match place {
        Place::Nested | Place::AroundNested => "/api",
        _ => "",
    }
}

#[tokio::test]
async fn faults_are_those_of_one_layer_for_all_routes() {
    use std::time::Duration;
    use tower_keep::fault::{Fault, FaultLayer};

    for place in PLACES {
        for way in WAYS {
            let layer = FaultLayer::builder("a test").protocol(Server::new());
            let layer = layer.fault(Fault::status(418)).build().unwrap();
            let handle = layer.handle();
            let handler = Handler {
                handles: Handles::Overloaded,
                reached: Arc::default(),
            };
            let ask = asking(placed(layer, place, handler.clone()), way).await;
            let name = format!("{place:?}, {way:?}");
            for (n, expected) in [503, 418, 418, 503].into_iter().enumerate() {
                match n {
                    1 => assert!(handle.start_for(Duration::from_secs(60))),
                    3 => handle.stop(),
                    _ => {}
                }
                let status = ask(format!("{}{}", prefix(place), ["/a", "/b"][n % 2])).await;
                assert_eq!(status.as_u16(), expected, "{name}");
            }
            assert_eq!(handle.snapshot().injected["status"], 2, "{name}");
            assert_eq!(handler.reached.load(SeqCst), 2, "{name}");
        }
    }
}

#[tokio::test]
async fn a_throttle_is_one_for_all_routes() {
    for place in PLACES {
        for way in WAYS {
            let layer = ThrottleLayer::builder().protocol(Server::new());
            let layer = layer.build().unwrap();
            let handle = layer.handle();
            let handler = Handler {
                handles: Handles::Overloaded,
                reached: Arc::default(),
            };
            let ask = asking(placed(layer, place, handler.clone()), way).await;
            for n in 0..200 {
                let status = ask(format!("{}{}", prefix(place), ["/a", "/b"][n % 2])).await;
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            }
            let name = format!("{place:?}, {way:?}");
            let reached = handler.reached.load(SeqCst);
            let totals = handle.snapshot().totals;
            let rejected = totals.rejected.of(RejectedKind::Throttled);
            assert_eq!(
                (reached as u64, rejected),
                (totals.admitted, 200 - totals.admitted)
            );
            // Once 20 have failed, fewer and fewer are let through.
            assert!((20..=60).contains(&reached), "{name}: {reached}");
        }
    }
}

const PLACES: [Place; 8] = [
    Place::Layer,
    Place::RouteLayer,
    Place::EachMethodRouter,
    Place::Nested,
    Place::AroundNested,
    Place::Merged,
    Place::BeforeState,
    Place::Fallback,
];

const WAYS: [Way; 4] = [
    Way::Oneshot,
    Way::KeptAlive,
    Way::NewConnections,
    Way::Served,
];
