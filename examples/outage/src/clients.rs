//! The two clients: the stack to copy, and the loop that it replaces.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, service_fn, util::BoxCloneService};
use tower_keep::{
    ConfigError,
    bulkhead::BulkheadHandle,
    circuit_breaker::CircuitBreakerHandle,
    rate_limit::Rate,
    stack::{self, ClientHandle},
};

use crate::options::Options;

pub(crate) type Request = hyper::Request<Empty<Bytes>>;
pub(crate) type HttpClient = BoxCloneService<Request, hyper::Response<Incoming>, BoxError>;

/// A hyper client behind the ready-made stack. What is said is what only its user knows: how long
/// callers wait, how long an attempt may take, and what the server can do.
pub(crate) fn keep(options: &Options) -> Result<(HttpClient, ClientHandle), ConfigError> {
    let stack = stack::client()
        .http()
        .name("protected client")
        .show_keys(ToString::to_string)
        .total_timeout(options.deadline)
        .attempt_timeout(options.timeout)
        .rate(Rate::per_second(options.rate))
        .max_in_flight(options.in_flight)
        .build()?;
    Ok((
        BoxCloneService::new(stack.layer(hyper_client())),
        stack.handle(),
    ))
}

/// The circuit and the bulkhead of the one server there is; those of no host before the first call.
pub(crate) fn of_the_server(handle: &ClientHandle) -> (CircuitBreakerHandle, BulkheadHandle) {
    let (circuits, bulkheads) = (&handle.circuit_breaker, &handle.bulkhead);
    (
        circuits
            .keys()
            .pop()
            .map_or_else(|| circuits.shared(), |(_, circuit)| circuit),
        bulkheads
            .keys()
            .pop()
            .map_or_else(|| bulkheads.shared(), |(_, bulkhead)| bulkhead),
    )
}

/// How many retries the budget of that server would pay for now.
pub(crate) fn budget_of_the_server(handle: &ClientHandle) -> u32 {
    let budgets = &handle.retry_budgets;
    let of_host = budgets.keys().pop().map(|(_, left)| left);
    of_host.or_else(|| budgets.shared()).unwrap_or_default()
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
