//! The two clients: the stack to copy, and the loop that it replaces.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{sleep, timeout};
use tower::{BoxError, ServiceBuilder, service_fn, util::BoxCloneService};
use tower_keep::{
    ConfigError,
    bulkhead::{BulkheadHandle, BulkheadLayer},
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerLayer},
    protocol::http,
    rate_limit::{Rate, RateLimitHandle, RateLimitLayer},
    retry::{Backoff, Jitter, RetryBudget, RetryHandle, RetryLayer},
    timeout::TimeoutLayer,
};

use crate::options::Options;

pub(crate) type Request = hyper::Request<Empty<Bytes>>;
pub(crate) type HttpClient = BoxCloneService<Request, hyper::Response<Incoming>, BoxError>;

/// What shows the state of the keep stack's layers.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) retry: RetryHandle,
    pub(crate) breaker: CircuitBreakerHandle,
    pub(crate) limit: RateLimitHandle,
    pub(crate) bulkhead: BulkheadHandle,
}

/// A hyper client behind the full stack, from the outside in.
pub(crate) fn keep(options: &Options) -> Result<(HttpClient, Handles), ConfigError> {
    let http = http::Client::new();
    let budget = RetryBudget::new(options.budget, 0.1)?;
    let backoff = Backoff::new(
        Duration::from_millis(50),
        Duration::from_secs(1),
        Jitter::default(),
    )?;

    let total = TimeoutLayer::builder(options.deadline)
        .name("in total")
        .protocol(http)
        .build()?;
    let retry = RetryLayer::builder()
        .attempts(options.attempts)
        .backoff(backoff)
        .budget(budget)
        .protocol(http);
    // A longer wait than this would only end in the total timeout.
    let retry = retry.max_retry_after(options.deadline / 2).build()?;
    let breaker = CircuitBreakerLayer::builder()
        .failure_rate(options.failure_rate)
        .min_calls(options.min_calls);
    let breaker = breaker
        .window(options.window)
        .open_for(options.open_for)
        .probes(options.probes)
        .protocol(http)
        .build()?;
    let limit = RateLimitLayer::builder(Rate::per_second(options.rate))
        .burst(options.burst)
        .protocol(http)
        .build()?;
    let bulkhead = BulkheadLayer::builder(options.bulkhead)
        .protocol(http)
        .build()?;
    let attempt = TimeoutLayer::builder(options.timeout)
        .name("attempt")
        .protocol(http)
        .build()?;

    let handles = Handles {
        retry: retry.handle(),
        breaker: breaker.handle(),
        limit: limit.handle(),
        bulkhead: bulkhead.handle(),
    };
    let stack = ServiceBuilder::new()
        .layer(total)
        .layer(retry)
        .layer(breaker)
        .layer(limit)
        .layer(bulkhead)
        .layer(attempt);
    Ok((BoxCloneService::new(stack.service(hyper_client())), handles))
}

/// What is often written instead: the same time for each attempt, a fixed wait, and no idea of the
/// whole.
pub(crate) fn plain(options: &Options) -> HttpClient {
    let client = hyper_client();
    let (attempts, delay, patience) =
        (options.plain_attempts, options.plain_delay, options.timeout);
    BoxCloneService::new(service_fn(move |request: Request| {
        let client = client.clone();
        async move {
            let mut attempt = 1;
            loop {
                let answer = timeout(patience, client.request(request.clone())).await;
                match answer {
                    Ok(Ok(response)) if !response.status().is_server_error() => {
                        return Ok(response);
                    }
                    Ok(result) if attempt >= attempts => return result.map_err(Into::into),
                    Err(elapsed) if attempt >= attempts => return Err(elapsed.into()),
                    _ => sleep(delay).await,
                }
                attempt += 1;
            }
        }
    }))
}

fn hyper_client<B>() -> Client<HttpConnector, B>
where
    B: Body<Data = Bytes> + Send,
{
    Client::builder(TokioExecutor::new()).build_http()
}
