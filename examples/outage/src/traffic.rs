//! Open-loop traffic: requests come when they come, whether or not earlier ones were answered.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use tokio::task::JoinSet;
use tower::{BoxError, Service, ServiceExt};
use tower_keep::{Rejected, RejectedKind};

use crate::{clients::HttpClient, clock::Clock};

/// What became of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// When it came. Latency counts from here, so that a delay in sending is not forgotten.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Good,
    /// An error response, or no response.
    Failed,
    /// Turned away or cut off by a layer of the keep stack.
    Rejected(RejectedKind, Option<&'static str>),
}

/// One client's traffic, while it runs.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) requests: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
}

impl Traffic {
    /// Sends a request to `address` at each of the `arrivals`.
    pub(crate) fn start(
        client: HttpClient,
        address: SocketAddr,
        arrivals: &[Duration],
        clock: Clock,
    ) -> Self {
        let traffic = Self {
            requests: Arc::default(),
            over: Arc::default(),
        };
        let (requests, over, arrivals) = (
            Arc::clone(&traffic.requests),
            Arc::clone(&traffic.over),
            arrivals.to_vec(),
        );
        tokio::spawn(async move {
            let mut pending = JoinSet::new();
            for at in arrivals {
                clock.sleep_until(at).await;
                let (client, requests) = (client.clone(), Arc::clone(&requests));
                pending.spawn(async move {
                    let answer = ask(client, address).await;
                    let asked = Asked {
                        at,
                        took: clock.now().saturating_sub(at),
                        answer,
                    };
                    requests
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(asked);
                });
            }
            pending.join_all().await;
            over.store(true, Ordering::Relaxed);
        });
        traffic
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// How many were answered since then, within the deadline.
    pub(crate) fn good_since(&self, since: Duration, deadline: Duration) -> usize {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests
            .iter()
            .rev()
            .take_while(|asked| asked.at + deadline * 4 >= since)
            .filter(|asked| asked.ended_since(since, deadline))
            .count()
    }
}

impl Asked {
    pub(crate) fn is_good(&self, deadline: Duration) -> bool {
        self.answer == Answer::Good && self.took <= deadline
    }

    fn ended_since(&self, since: Duration, deadline: Duration) -> bool {
        self.at + self.took >= since && self.is_good(deadline)
    }
}

async fn ask(client: HttpClient, address: SocketAddr) -> Answer {
    match send(client, address).await {
        Ok(true) => Answer::Good,
        Ok(false) => Answer::Failed,
        Err(error) => match Rejected::find(&*error) {
            Some(rejected) => Answer::Rejected(rejected.kind, rejected.name),
            None => Answer::Failed,
        },
    }
}

/// Whether the whole answer came, and was one.
async fn send(mut client: HttpClient, address: SocketAddr) -> Result<bool, BoxError> {
    let request = hyper::Request::get(format!("http://{address}/")).body(Empty::new())?;
    let response = client.ready().await?.call(request).await?;
    let good = response.status().is_success();
    response.into_body().collect().await?;
    Ok(good)
}
