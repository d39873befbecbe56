//! A gateway before three providers, of which one fails for a quarter of the time.

use http::Request;
use tower::{BoxError, Layer, Service};
use tower_keep::{
    bulkhead::BulkheadLayer,
    drill::{Body, Drill, HttpUpstream, Lognormal, Measure, Poisson, Servers, Trouble, ms, secs},
    fallback::{Backend, Spill},
    protocol::http::{Client, ReplayBody},
};

type Prompt = Request<ReplayBody<Body>>;

/// Three providers in order, each with a bound on what it has in flight.
fn gateway(
    upstream: HttpUpstream,
) -> Result<
    impl Service<Request<Body>, Response = http::Response<Body>, Error = BoxError> + Clone,
    BoxError,
> {
    let client = Client::new()
        .idempotent_when(|_| true)
        .also_retry([http::StatusCode::INTERNAL_SERVER_ERROR]);
    let backend = |name: &'static str| {
        let bulkhead = BulkheadLayer::builder(6).protocol(client);
        let bulkhead = match name {
            "gamma" => bulkhead.max_wait(ms(500)).build()?,
            _ => bulkhead.build()?,
        };
        let backend = Backend::new(name, bulkhead.layer(upstream.clone()));
        Ok::<_, BoxError>(backend.rewrite(to_host(name)).cooldown(secs(1)))
    };
    let spill = Spill::builder(client)
        .backend(backend("alpha")?)
        .backend(backend("beta")?)
        .backend(backend("gamma")?)
        .total_timeout(secs(2))
        .build()?;
    Ok(spill)
}

/// Two workers of some 23 ms: 87 calls a second.
fn provider() -> Servers {
    let latency = Lognormal::median(ms(20)).sigma(0.5);
    Servers::new(2).service(latency).queue(100)
}

#[test]
fn an_outage_of_one_of_three_costs_under_one_percent() {
    let report = Drill::http(gateway)
        .clients(1)
        .patience(secs(2))
        .lasting(secs(24))
        // 60 % of what the three can do.
        .traffic(Poisson::per_second(157.0), |n| {
            Request::post(format!("http://alpha/{n}"))
        })
        .upstream("alpha", provider())
        .upstream("beta", provider())
        .upstream("gamma", provider())
        .trouble(secs(6)..secs(12), "alpha", Trouble::fails(1.0))
        .seeds(0..20)
        .run();
    report.each(Measure::Answered).at_least(0.99);
    report.each(Measure::AnsweredWhileWell).at_least(0.999);
}

/// Each call takes seconds, as a language model does, so many are in flight when it fails.
#[test]
fn all_calls_in_flight_go_on_when_a_backend_fails() {
    let stack = |upstream: HttpUpstream| {
        let backend = |name: &'static str| {
            let backend = Backend::new(name, upstream.clone());
            backend.rewrite(to_host(name)).cooldown(secs(1))
        };
        let spill = Spill::builder(Client::new().idempotent_when(|_| true))
            .backend(backend("alpha"))
            .backend(backend("beta"))
            .total_timeout(secs(30));
        Ok::<_, BoxError>(spill.build()?)
    };
    let model = || {
        let latency = Lognormal::median(secs(3)).sigma(0.5);
        Servers::new(400).service(latency)
    };
    let report = Drill::http(stack)
        .clients(1)
        .patience(secs(30))
        .lasting(secs(60))
        .traffic(Poisson::per_second(30.0), |n| {
            Request::post(format!("http://alpha/{n}"))
        })
        .upstream("alpha", model())
        .upstream("beta", model())
        .trouble(secs(20)..secs(30), "alpha", Trouble::fails(1.0))
        .seeds(0..5)
        .run();
    report.each(Measure::Answered).at_least(0.999);
}

fn to_host(name: &'static str) -> impl Fn(&mut Prompt) + Send + Sync + 'static {
    move |prompt: &mut Prompt| {
        let uri = format!("http://{name}{}", prompt.uri().path());
        *prompt.uri_mut() = uri.parse().expect("a valid URI");
    }
}
