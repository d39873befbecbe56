//! The gateway: budgets of tenants in front, three providers behind, and a log of who paid what.

use std::{
    future::IntoFuture,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::Full;
// This crate also builds with reqwest 0.12, hence the name. Yours is just `reqwest`.
use reqwest_013 as reqwest;
use tower::{BoxError, Layer, ServiceExt};
use tower_keep::{
    Rejected,
    circuit_breaker::CircuitBreakerLayer,
    fallback::{Backend, Spill, SpillHandle, SpillReport},
    protocol::http::{Client, CloneBody, Server, provider, usage},
    rate_limit::{Dimension, DimensionsBuilder, Follow, Rate, RateLimitLayer},
    reqwest::Reqwest,
    timeout::{TimedBody, TimeoutLayer},
};

use crate::provider::Dialect;

type Prompt = Request<Full<Bytes>>;
type Answer = http::Response<TimedBody<reqwest::Body>>;
/// What a call takes, or has used, of each quota of its tenant: tokens of output, micro-dollars.
pub(crate) type Units = [u64; 2];

/// One line of the audit log.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Charged {
        tenant: String,
        prompt: String,
        backend: &'static str,
        taken: Units,
        used: Units,
    },
    Rejected {
        tenant: String,
        by: String,
    },
    Lost {
        tenant: String,
        why: String,
    },
}

pub(crate) type Audit = Arc<Mutex<Vec<Entry>>>;
type Settle = Arc<dyn Fn(&str, Units, Units) + Send + Sync>;

#[derive(Clone)]
struct Gateway {
    models: Spill<Client<CloneBody>, Prompt, Answer>,
    settle: Settle,
    audit: Audit,
}

pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) audit: Audit,
    pub(crate) models: SpillHandle,
}

/// Starts the gateway. `quota` is what each provider is known to allow a second.
pub(crate) async fn start(
    providers: [(&'static str, Dialect, Uri); 3],
    quota: u64,
) -> Result<Running, BoxError> {
    let mut models = Spill::builder(client());
    for (name, dialect, uri) in providers {
        models = models.backend(backend(name, dialect, uri, quota)?);
    }
    let models = models
        .total_timeout(Duration::from_secs(10))
        .name("models")
        .build()?;
    let handle = models.handle();

    let budgets = of_fleet(RateLimitLayer::dimensions(plan("")?))
        .await?
        .cost(|request: &Request<Body>| price(request.headers()))
        .per_key(
            |request: &Request<Body>| Some(field(request.headers(), "x-tenant")),
            |tenant: &String| plan(tenant),
        )
        .name("budgets")
        .protocol(Server::new())
        .advertise(true)
        .build()?;
    let keys = budgets.handle();
    let settle: Settle = Arc::new(move |tenant, taken, used| {
        if let Some(budget) = keys.key(tenant) {
            budget.settle(taken, used);
        }
    });
    let audit = Audit::default();
    let gateway = Gateway {
        models,
        settle,
        audit: audit.clone(),
    };
    let app = Router::new()
        .route("/chat", post(chat))
        .with_state(gateway)
        .layer(budgets)
        .layer(middleware::from_fn_with_state(
            audit.clone(),
            log_rejections,
        ));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/chat", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(Running {
        url,
        audit,
        models: handle,
    })
}

/// Shares the budgets with other gateways, if the fleet's store is there: with the feature
/// `redis-1`, at the address in `REDIS_URL`.
async fn of_fleet(budgets: DimensionsBuilder<2>) -> Result<DimensionsBuilder<2>, BoxError> {
    #[cfg(feature = "redis-1")]
    if let Ok(url) = std::env::var("REDIS_URL") {
        let client = redis::Client::open(url)?;
        let connection = client.get_connection_manager().await?;
        let store = tower_keep::store::Redis::new(connection).prefix("llm_gateway:");
        return Ok(budgets.fleet(&store, "budgets"));
    }
    Ok(budgets)
}

/// The quotas of a tenant.
fn plan(tenant: &str) -> Result<[Dimension; 2], tower_keep::ConfigError> {
    let (tokens, money) = match tenant {
        // A few short answers a minute.
        "small" => (300, 1_000_000),
        // Many tokens, for which it has no money.
        "poor" => (100_000, 3_000),
        _ => (100_000, 1_000_000),
    };
    Ok([
        Dimension::new("output_tokens", Rate::per_minute(tokens)),
        Dimension::new("micro_dollars", Rate::per_day(money)),
    ])
}

/// The longest answer that is asked for, and its price.
fn price(headers: &HeaderMap) -> Units {
    let tokens = field(headers, "x-longest-answer").parse().unwrap_or(100);
    [tokens, PRICE * tokens]
}

fn field(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// A prompt that is sent twice costs money, and nothing else.
fn client() -> Client<CloneBody> {
    Client::new().idempotent_when(|_| true).clone_body()
}

fn backend(
    name: &'static str,
    dialect: Dialect,
    uri: Uri,
    quota: u64,
) -> Result<Backend<Prompt, Answer>, BoxError> {
    let http = client().provider(match dialect {
        Dialect::OpenAi => provider::openai(),
        Dialect::Anthropic => provider::anthropic(),
    });
    let breaker = CircuitBreakerLayer::builder()
        .protocol(http)
        .name(name)
        .build()?;
    let limit = RateLimitLayer::builder(Rate::per_second(quota))
        .follow(Follow::new("requests"))
        .honor_retry_after(Duration::from_secs(5))
        .max_wait(Duration::from_millis(500))
        .protocol(http)
        .build()?;
    let timeout = TimeoutLayer::builder(Duration::from_secs(30))
        .first_byte(Duration::from_secs(2))
        .between_frames(Duration::from_secs(2))
        .protocol(http)
        .build()?;
    let stack = breaker.layer(limit.layer(timeout.layer(Reqwest::new(reqwest::Client::new()))));
    let to_provider = move |prompt: &mut Prompt| *prompt.uri_mut() = uri.clone();
    let backend = Backend::new(name, stack).rewrite(to_provider);
    Ok(backend.cooldown(Duration::from_millis(200)))
}

async fn chat(State(gateway): State<Gateway>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let (tenant, prompt) = (
        field(&head.headers, "x-tenant"),
        field(&head.headers, "x-prompt"),
    );
    let taken = price(&head.headers);
    let Ok(body) = to_bytes(body, 1 << 20).await else {
        (gateway.settle)(&tenant, taken, [0, 0]);
        return status(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let mut request = Request::post("http://models.example/")
        .body(Full::from(body))
        .unwrap_or_default();
    request
        .headers_mut()
        .extend(head.headers.into_iter().filter(|(name, _)| {
            name.as_ref()
                .is_some_and(|name| name.as_str().starts_with("x-"))
        }));
    let lost = |why: String| {
        (gateway.settle)(&tenant, taken, [0, 0]);
        log(
            &gateway.audit,
            Entry::Lost {
                tenant: tenant.clone(),
                why,
            },
        );
        status(StatusCode::SERVICE_UNAVAILABLE)
    };
    let answer = match gateway.models.oneshot(request).await {
        Ok(answer) => answer,
        // The error says what each model answered.
        Err(error) => return lost(error.to_string()),
    };
    let report = answer
        .extensions()
        .get::<SpillReport>()
        .cloned()
        .unwrap_or_default();
    let Some(backend) = report.answered_by.filter(|_| answer.status().is_success()) else {
        return lost(report.to_string());
    };
    let shape = match backend {
        "beta" => usage::anthropic(),
        _ => usage::openai(),
    };
    let (settle, audit) = (gateway.settle.clone(), gateway.audit.clone());
    let answer = usage::meter(answer, shape, move |report| {
        // Without a word the estimate stands.
        let output = report.usage.and_then(|usage| usage.output);
        let used = output.map_or(taken, |output| [output, PRICE * output]);
        settle(&tenant, taken, used);
        let entry = Entry::Charged {
            tenant,
            prompt,
            backend,
            taken,
            used,
        };
        log(&audit, entry);
    });
    answer.map(Body::new)
}

/// Who was rejected by which quota.
async fn log_rejections(
    State(audit): State<Audit>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let tenant = field(request.headers(), "x-tenant");
    let response = next.run(request).await;
    if let Some(rejected) = response.extensions().get::<Rejected>() {
        let by = rejected.dimension.unwrap_or(rejected.layer).to_owned();
        log(&audit, Entry::Rejected { tenant, by });
    }
    response
}

fn log(audit: &Audit, entry: Entry) {
    audit
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(entry);
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Micro-dollars for a token.
const PRICE: u64 = 15;
