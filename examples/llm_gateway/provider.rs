//! A fake provider: one of two dialects, with its quota, its fields, its streams and its outages.

use std::{
    collections::HashMap,
    future::IntoFuture,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body, extract::State, response::Response, routing::post};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, Uri};
use tokio::time::{Instant, sleep};
use tower::BoxError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
}

#[derive(Clone)]
pub(crate) struct Provider(Arc<Inner>);

struct Inner {
    dialect: Dialect,
    /// Requests a second, of which as many are saved up.
    quota: f64,
    /// What is left of it, and since when.
    left: Mutex<(f64, Instant)>,
    is_down: AtomicBool,
    served: AtomicUsize,
    over_quota: AtomicUsize,
    /// The bytes of each stream, by the prompt's number.
    streams: Mutex<HashMap<String, Vec<u8>>>,
}

impl Provider {
    /// Starts a server on loopback.
    pub(crate) async fn start(dialect: Dialect, quota: f64) -> Result<(Self, Uri), BoxError> {
        let provider = Self(Arc::new(Inner {
            dialect,
            quota,
            left: Mutex::new((quota, Instant::now())),
            is_down: AtomicBool::new(false),
            served: AtomicUsize::new(0),
            over_quota: AtomicUsize::new(0),
            streams: Mutex::default(),
        }));
        let app = Router::new()
            .route("/chat", post(answer))
            .with_state(provider.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("http://{}/chat", listener.local_addr()?).parse()?;
        tokio::spawn(axum::serve(listener, app).into_future());
        Ok((provider, uri))
    }

    pub(crate) fn goes_down(&self) {
        self.0.is_down.store(true, Ordering::Relaxed);
    }

    /// The calls that it has answered, and those that were over its quota.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (of(&self.0.served), of(&self.0.over_quota))
    }

    /// The bytes that it has sent for a prompt.
    pub(crate) fn sent(&self, prompt: &str) -> Option<Vec<u8>> {
        lock(&self.0.streams).get(prompt).cloned()
    }

    /// Takes a request from the quota, if there is one, and tells what is left.
    fn take(&self) -> (bool, f64) {
        let Inner { quota, left, .. } = &*self.0;
        let mut left = lock(left);
        let now = Instant::now();
        let earned = now.duration_since(left.1).as_secs_f64() * quota;
        *left = ((left.0 + earned).min(*quota), now);
        let fits = left.0 >= 1.0;
        if fits {
            left.0 -= 1.0;
        }
        (fits, left.0)
    }

    /// The fields of the dialect.
    fn tell(&self, headers: &mut HeaderMap, left: f64) -> Result<(), BoxError> {
        let full_in = Duration::from_secs_f64((self.0.quota - left) / self.0.quota);
        let mut tell = |name: &'static str, value: String| {
            headers.insert(name, value.parse()?);
            Ok::<_, BoxError>(())
        };
        let (limit, left) = (self.0.quota.to_string(), left.floor().to_string());
        match self.0.dialect {
            Dialect::OpenAi => {
                tell("x-ratelimit-limit-requests", limit)?;
                tell("x-ratelimit-remaining-requests", left)?;
                tell(
                    "x-ratelimit-reset-requests",
                    format!("{}ms", full_in.as_millis()),
                )
            }
            Dialect::Anthropic => {
                tell("anthropic-ratelimit-requests-limit", limit)?;
                tell("anthropic-ratelimit-requests-remaining", left)?;
                // In whole seconds, as that provider's.
                let seconds = Duration::from_secs(full_in.as_secs() + 1);
                let date = rfc3339(SystemTime::now() + seconds)?;
                tell("anthropic-ratelimit-requests-reset", date)
            }
        }
    }

    /// The events of an answer, and how many tokens of output it is.
    fn events(&self, tokens: u64) -> String {
        let words = (0..tokens).map(|n| match self.0.dialect {
            Dialect::OpenAi => format!(
                "data: {{\"choices\":[{{\"delta\":\"w\u{f6}rd {n}\"}}],\"usage\":null}}\n\n"
            ),
            Dialect::Anthropic => {
                format!("event: content_block_delta\ndata: {{\"delta\":\"w\u{f6}rd {n}\"}}\n\n")
            }
        });
        let words: String = words.collect();
        match self.0.dialect {
            Dialect::OpenAi => format!(
                "{words}data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":10,\"completion_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n"
            ),
            Dialect::Anthropic => format!(
                "event: message_start\ndata: {{\"message\":{{\"usage\":{{\"input_tokens\":10,\"output_tokens\":1}}}}}}\n\n\
                 {words}event: message_delta\ndata: {{\"usage\":{{\"output_tokens\":{tokens}}}}}\n\n\
                 event: message_stop\ndata: {{}}\n\n"
            ),
        }
    }
}

async fn answer(State(provider): State<Provider>, headers: HeaderMap) -> Response<Body> {
    sleep(Duration::from_millis(5)).await;
    let mut response = Response::new(Body::empty());
    if provider.0.is_down.load(Ordering::Relaxed) {
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let (fits, left) = provider.take();
    if !fits {
        provider.0.over_quota.fetch_add(1, Ordering::Relaxed);
        *response.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        response
            .headers_mut()
            .insert("retry-after-ms", http::HeaderValue::from_static("50"));
    } else {
        provider.0.served.fetch_add(1, Ordering::Relaxed);
        let number = headers
            .get("x-prompt")
            .and_then(|value| value.to_str().ok());
        let number = number.unwrap_or_default().to_owned();
        let tokens = 3 + number.len() as u64 * 7 % 11;
        let events = provider.events(tokens).into_bytes();
        lock(&provider.0.streams).insert(number, events.clone());
        // In frames that end anywhere, also within a character.
        let frames: Vec<_> = events.chunks(37).map(Bytes::copy_from_slice).collect();
        let frames = stream::iter(frames).then(async |frame| {
            sleep(Duration::from_micros(200)).await;
            Ok::<_, std::io::Error>(frame)
        });
        *response.body_mut() = Body::from_stream(Box::pin(frames));
        let kind = http::HeaderValue::from_static("text/event-stream");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, kind);
    }
    if let Err(error) = provider.tell(response.headers_mut(), left) {
        eprintln!("no fields: {error}");
    }
    response
}

/// A point in time as RFC 3339 writes it.
fn rfc3339(at: SystemTime) -> Result<String, BoxError> {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil dates by counting years and months: slow, short and right.
    let (mut year, mut left) = (1970, days);
    let length = |year: u64| 365 + u64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    while left >= length(year) {
        left -= length(year);
        year += 1;
    }
    let february = 28 + length(year) - 365;
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    Ok(format!(
        "{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        left + 1
    ))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
