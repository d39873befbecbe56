//! One client, many hosts: a circuit for each, so that a host that is down costs neither waiting
//! nor the others.
//!
//! `cargo run --example breaker_per_host` asks a host that is up and one that is down, and ends
//! with an error if the protection did not fire.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_keep::{
    Rejected,
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    protocol::http::Client,
};

type HttpRequest = Request<String>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let breakers = CircuitBreakerLayer::builder()
        .min_calls(5)
        .open_for(Duration::from_secs(1))
        .growing_to(Duration::from_secs(60))
        .protocol(Client::new())
        .keyed_by(|request: &HttpRequest| request.uri().host().map(str::to_owned))
        .build()?;

    // In your code: a hyper or reqwest client instead of this network.
    let sent = Arc::new(AtomicU32::new(0));
    let network = tower::service_fn({
        let sent = sent.clone();
        move |request: HttpRequest| {
            sent.fetch_add(1, Ordering::Relaxed);
            let down = request.uri().host() == Some("down.example");
            async move {
                let mut response = Response::new(String::new());
                if down {
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                }
                Ok::<_, io::Error>(response)
            }
        }
    });
    let mut client = ServiceBuilder::new()
        .layer(breakers.clone())
        .service(network);

    let (mut answered, mut refused) = (0, 0);
    for round in 0..20 {
        for host in ["up.example", "down.example"] {
            let request = Request::get(format!("http://{host}/{round}")).body(String::new())?;
            match client.ready().await?.call(request).await {
                Ok(response) if response.status().is_success() => answered += 1,
                Ok(response) => println!("{host}: {}", response.status()),
                Err(error) => {
                    let rejected =
                        Rejected::find(&*error).ok_or("only the circuit refuses here")?;
                    refused += 1;
                    if refused == 1 {
                        println!("{host}: {rejected}");
                    }
                }
            }
        }
    }

    for (host, circuit) in breakers.handle().keys() {
        let snapshot = circuit.snapshot();
        let cause = snapshot.last_transition.map(|transition| transition.cause);
        println!(
            "{host}: {:?} because of {cause:?}, {} calls in its window",
            snapshot.state,
            snapshot.counts.total()
        );
    }
    println!(
        "answered {answered}, refused {refused}, sent {}",
        sent.load(Ordering::Relaxed)
    );

    assert_eq!(
        (answered, refused),
        (20, 15),
        "the circuit of the host that is down opens at its fifth failure"
    );
    assert_eq!(
        sent.load(Ordering::Relaxed),
        25,
        "what is refused is not sent"
    );
    let state = |host: &str| {
        breakers
            .handle()
            .key(&host.to_owned())
            .map(|circuit| circuit.state())
    };
    assert_eq!(state("down.example"), Some(BreakerState::Open));
    assert_eq!(state("up.example"), Some(BreakerState::Closed));
    Ok(())
}
