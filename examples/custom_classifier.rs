//! Your own classifiers: over HTTP by status and fields, and for any other service by its own
//! responses and errors. The guide's page `classifying` explains each outcome.
//!
//! ```console
//! cargo run --example custom_classifier
//! ```

use std::{convert::Infallible, future::ready};

use http::{Request, Response, StatusCode};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Outcome,
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    protocol::{Plain, http::Client},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // An API that answers 200 while its database is down, and says so in a field. Where the
    // function says `None`, the status is read as always.
    let protocol = Client::new().classify_response(|status, fields| match status {
        StatusCode::OK if fields.contains_key("x-degraded") => Some(Outcome::Failure),
        StatusCode::NOT_IMPLEMENTED => Some(Outcome::Success), // a mistake of the caller
        _ => None,
    });
    for (status, field, opens) in [
        (StatusCode::OK, "x-degraded", true),
        (StatusCode::OK, "x-other", false),
        (StatusCode::NOT_IMPLEMENTED, "x-other", false),
        (StatusCode::BAD_GATEWAY, "x-other", true),
    ] {
        let breaker = CircuitBreakerLayer::builder().min_calls(5);
        let breaker = breaker.protocol(protocol).build()?;
        let upstream = service_fn(move |_: Request<String>| {
            let response = Response::builder().status(status).header(field, "1");
            ready(response.body(String::new()))
        });
        call_20_times(breaker.layer(upstream)).await;
        let open = breaker.handle().state() == BreakerState::Open;
        println!("{status} with {field}: the circuit is open: {open}");
        assert_eq!(open, opens);
    }

    // A cache whose errors are replies. A miss is one that it gives in good health.
    let protocol = Plain::classify(|reply: Result<&Reply, &Infallible>| match reply {
        Ok(Reply::Error("LOADING")) => Outcome::Failure,
        Ok(Reply::Error("MAXCLIENTS")) => Outcome::Overload,
        Ok(Reply::Miss | Reply::Error(_)) => Outcome::Success,
        Err(never) => match *never {},
    });
    for (reply, opens) in [
        (Reply::Miss, false),
        (Reply::Error("SYNTAX"), false),
        (Reply::Error("LOADING"), true),
        (Reply::Error("MAXCLIENTS"), true),
    ] {
        let breaker = CircuitBreakerLayer::builder().min_calls(5);
        let breaker = breaker.protocol(protocol).build()?;
        let cache = service_fn(move |_: &'static str| ready(Ok(reply)));
        call_20_times(breaker.layer(cache)).await;
        let open = breaker.handle().state() == BreakerState::Open;
        println!("{reply:?}: the circuit is open: {open}");
        assert_eq!(open, opens);
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Reply {
    Miss,
    Error(&'static str),
}

async fn call_20_times<Req: Default>(service: impl Service<Req> + Clone) {
    for _ in 0..20 {
        let _ = service.clone().oneshot(Req::default()).await;
    }
}
