//! The pages of other processes, as JSON. They are fetched only while a browser shows this page.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Map, Value, json};
use tokio::{runtime::Handle, time::timeout};

use crate::ConfigError;

/// The other processes, each by the address of its page.
#[derive(Clone, Default)]
pub(super) struct Others(Arc<Vec<Other>>);

struct Other {
    address: String,
    snapshot: Uri,
    /// If true, a fetch is in progress.
    is_asked: AtomicBool,
    /// Its last answer.
    said: Mutex<Value>,
}

impl Others {
    pub(super) fn new(
        addresses: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, ConfigError> {
        let others = addresses.into_iter().map(|one| Other::new(one.as_ref()));
        let others: Vec<_> = others.collect::<Result<_, _>>()?;
        if others.len() > MAX_OTHERS {
            let fix = "list at most 32 processes";
            return Err(ConfigError::new("others", others.len(), fix).of("page", None));
        }
        Ok(Self(Arc::new(others)))
    }

    /// Adds the last answers to the model, and fetches new ones.
    pub(super) fn add_to(&self, model: &mut Value) {
        if self.0.is_empty() {
            return;
        }
        let others = self
            .0
            .iter()
            .map(|one| (one.address.clone(), one.lock().clone()));
        let others: Map<_, _> = others.collect();
        if let Value::Object(model) = model {
            model.insert("others".into(), others.into());
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        for (number, one) in self.0.iter().enumerate() {
            if !one.is_asked.swap(true, Ordering::Relaxed) {
                runtime.spawn(ask(Asked(self.clone(), number)));
            }
        }
    }
}

impl Other {
    fn new(address: &str) -> Result<Self, ConfigError> {
        let invalid =
            |fix| ConfigError::new("others", format!("{address:?}"), fix).of("page", None);
        let path = format!("{}/snapshot.json?alone", address.trim_end_matches('/'));
        let snapshot = path.parse::<Uri>();
        let snapshot =
            snapshot.map_err(|_| invalid("give addresses such as http://10.0.0.2:9000/keep/"))?;
        if snapshot.scheme_str() != Some("http") || snapshot.host().is_none() {
            return Err(invalid("give addresses such as http://10.0.0.2:9000/keep/"));
        }
        Ok(Self {
            address: address.to_owned(),
            snapshot,
            is_asked: AtomicBool::new(false),
            said: Mutex::new(json!({"error": "not asked yet"})),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Value> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch in progress, until drop.
struct Asked(Others, usize);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.0[self.1].is_asked.store(false, Ordering::Relaxed);
    }
}

async fn ask(asked: Asked) {
    let other = &asked.0.0[asked.1];
    let answer = timeout(PATIENCE, fetch(other.snapshot.clone())).await;
    let answer = answer.unwrap_or_else(|_| Err("no answer in time".into()));
    let said = answer.unwrap_or_else(|error| json!({ "error": error }));
    *other.lock() = said;
}

async fn fetch(uri: Uri) -> Result<Value, String> {
    let client: Client<HttpConnector, String> = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::get(uri).body(String::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = client.request(request).await;
    let answer = answer.map_err(|error| format!("cannot be reached: {error}"))?;
    if !answer.status().is_success() {
        return Err(format!("it answers {}", answer.status().as_u16()));
    }
    let text = read(answer).await?;
    let said: Value = serde_json::from_slice(&text).map_err(|_| "it is no page of this kind")?;
    match said {
        Value::Object(mut said) if said.contains_key("instances") => {
            said.remove("others");
            Ok(said.into())
        }
        _ => Err("it is no page of this kind".into()),
    }
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, String> {
    let (mut body, mut text) = (answer.into_body(), BytesMut::new());
    loop {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = frame else {
            return Ok(text.freeze());
        };
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > MAX_BYTES {
            return Err("it says more than 4 MiB".into());
        }
    }
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.0.iter().map(|one| &one.address);
        f.debug_list().entries(addresses).finish()
    }
}

const MAX_OTHERS: usize = 32;
const MAX_BYTES: usize = 4 << 20;
/// The time limit of a fetch, shorter than a browser's own.
const PATIENCE: Duration = Duration::from_secs(2);
