//! Callers: they come when they come, whether or not earlier ones were answered, and they leave.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{task::JoinSet, time::timeout};
use tower::BoxError;

use crate::{PATIENCE, clock::Clock};

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

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
    InTime,
    Rejected,
    /// None came until the caller left.
    Late,
    Failed,
}

impl Asked {
    pub(crate) fn ended(&self) -> Duration {
        self.at + self.took
    }
}

/// Sends a request at each of the `arrivals`. Returns when all callers have left.
pub(crate) async fn send(address: SocketAddr, arrivals: Vec<Duration>, clock: Clock) -> Vec<Asked> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut callers = JoinSet::new();
    for at in arrivals {
        clock.sleep_until(at).await;
        let client = client.clone();
        callers.spawn(async move {
            let left = PATIENCE.saturating_sub(clock.now().saturating_sub(at));
            let answer = timeout(left, ask(client, address)).await;
            Asked {
                at,
                took: clock.now().saturating_sub(at),
                answer: match answer {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) => Answer::Failed,
                    Err(_) => Answer::Late,
                },
            }
        });
    }
    let mut asked = callers.join_all().await;
    asked.sort_by_key(|asked| asked.at);
    asked
}

async fn ask(client: HttpClient, address: SocketAddr) -> Result<Answer, BoxError> {
    let request = hyper::Request::get(format!("http://{address}/")).body(Empty::new())?;
    let response = client.request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(match status {
        200 => Answer::InTime,
        503 => Answer::Rejected,
        _ => Answer::Failed,
    })
}
