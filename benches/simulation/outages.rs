//! Whole stacks through ten seconds at half the capacity, as drills.
//!
//! The server does a call after the other, 1000 a second, and goes on working for callers that have
//! left. An attempt is given up after 100 ms.
#![allow(dead_code, reason = "the test uses a part")]

use std::time::Duration;

use http::{Request, Response};
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{
    algorithm::{Backoff, BreakerConfig, Jitter, RetryBudget, WindowedBudget},
    drill::{
        Body, Drill, Exponential, HttpUpstream, Measure, Poisson, Report, Servers, Trouble, ms,
        secs,
    },
    protocol::http::Client,
    retry::{RetryBuilder, RetryLayer},
    stack::{self, ClientService},
    timeout::TimeoutLayer,
};

/// Whether calls that fail are sent again, and what pays for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retries {
    None,
    /// Three times, with full jitter: nothing else bounds them.
    Unbounded,
    /// The same, paid for by a fifth of the calls and ten a second besides.
    Windowed,
    /// Twice, by a budget of ten that each success fills by a tenth.
    Funded,
    /// The same with the layer's own budget, which keeps no more than the traffic has paid lately.
    Layer,
}

/// Retries to compare.
pub(crate) const RETRIES: [(&str, Retries); 5] = [
    ("none", Retries::None),
    ("three, no budget", Retries::Unbounded),
    (
        "three, a windowed budget of 20 % and 10/s",
        Retries::Windowed,
    ),
    ("two, a budget of 10", Retries::Funded),
    ("two, the layer's own budget", Retries::Layer),
];

/// Circuits to compare: the pattern's default opens for 30 s.
pub(crate) fn circuits() -> [(&'static str, Option<BreakerConfig>); 5] {
    let open = |first: u64, most: u64| {
        let mut config = BreakerConfig::default();
        config.open_for = secs(first);
        config.growing = most > first;
        config.max_open = config.growing.then_some(secs(most));
        Some(config)
    };
    [
        ("no circuits", None),
        ("30 s", open(30, 30)),
        ("5 s", open(5, 5)),
        ("1 s, growing to 30 s", open(1, 30)),
        ("as a client's stack", Some(of_the_stack())),
    ]
}

/// The circuit of `stack::client()`.
pub(crate) fn of_the_stack() -> BreakerConfig {
    let stack = stack::client().http().build().unwrap();
    stack.handle().circuit_breaker.shared().config()
}

/// A client's stack with another circuit, or none, and other retries.
pub(crate) fn client(
    circuit: Option<BreakerConfig>,
    retries: Retries,
) -> impl Fn(HttpUpstream) -> Result<ClientService<HttpUpstream, Client>, BoxError> + Send + Sync {
    move |upstream| {
        let stack = stack::client().http().attempt_timeout(ms(100));
        let stack = match circuit {
            Some(config) => stack.circuit_breaker(|breaker| breaker.config(config)),
            None => stack.without_circuit_breaker(),
        };
        let stack = stack.retry(|retry| retries.set(retry));
        Ok(stack.build()?.layer(upstream))
    }
}

/// So many clients, and a share of what the server can do.
pub(crate) fn fleet(drill: Drill, clients: usize, load: f64) -> Drill {
    drill
        .clients(clients)
        .patience(secs(2))
        .traffic(Poisson::per_second(1000.0 * load), get)
        .upstream("shop", Servers::new(1).service(Exponential::mean(ms(1))))
        .trouble(BEGIN..END, "shop", Trouble::capacity(0.5))
        .lasting(END + secs(40))
}

/// Drills stacks side by side: each a column with a name, a circuit and retries.
pub(crate) fn compare<const N: usize>(
    stacks: [(&'static str, Option<BreakerConfig>, Retries); N],
    clients: usize,
    load: f64,
) -> Report {
    let mut stacks = stacks.into_iter();
    let (name, circuit, retries) = stacks.next().expect("a stack");
    let first = Drill::http(client(circuit, retries)).named(name);
    let drill = stacks.fold(first, |drill, (name, circuit, retries)| {
        drill.against(client(circuit, retries)).named(name)
    });
    fleet(drill, clients, load).seeds(0..2).run()
}

/// A server whose bulkhead has so many places, before callers that ask three times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bulkhead {
    pub(crate) places: usize,
    /// Each call takes exactly a millisecond, or one on average.
    pub(crate) is_fixed: bool,
    /// The server goes on with a call whose caller has left, in its place.
    pub(crate) goes_on: bool,
}

impl Bulkhead {
    pub(crate) fn drill(self, load: f64) -> Drill {
        let caller = |upstream: HttpUpstream| {
            let backoff = Backoff::new(ms(10), ms(10), Jitter::None)?;
            let retry = RetryLayer::builder().backoff(backoff).without_budget();
            let retry = retry
                .max_retry_after(Duration::ZERO)
                .protocol(Client::new());
            let timeout = TimeoutLayer::builder(ms(100)).protocol(Client::new());
            Ok(retry.build()?.layer(timeout.build()?.layer(upstream)))
        };
        let servers = Servers::new(1);
        let servers = match self.is_fixed {
            true => servers.service(ms(1)),
            false => servers.service(Exponential::mean(ms(1))),
        };
        let servers = match self.goes_on {
            true => servers,
            false => servers.gives_up(),
        };
        let drill = Drill::http(caller).patience(secs(2)).clients(50);
        drill
            .traffic(Poisson::per_second(1000.0 * load), get)
            .upstream("shop", servers)
            .tier("shop", move |handler| self.before(handler))
            .trouble(BEGIN..END, "shop", Trouble::capacity(0.5))
            .lasting(END + secs(40))
    }

    fn before(
        self,
        handler: HttpUpstream,
    ) -> Result<BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>, BoxError> {
        let stack = stack::server().http().max_in_flight(self.places);
        let server = stack.without_timeout().build()?.layer(handler);
        if !self.goes_on {
            return Ok(BoxCloneSyncService::new(server));
        }
        // In a task, which ends when the work does.
        let server = service_fn(move |request| {
            let call = tokio::spawn(server.clone().oneshot(request));
            async move { call.await? }
        });
        Ok(BoxCloneSyncService::new(server))
    }
}

impl Retries {
    fn set(self, retry: RetryBuilder) -> RetryBuilder {
        let jitter = Backoff::new(ms(10), secs(1), Jitter::Full);
        let three = |retry: RetryBuilder| retry.attempts(4).backoff(jitter.unwrap());
        match self {
            Self::None => retry.enabled(false),
            Self::Unbounded => three(retry).without_budget(),
            Self::Windowed => {
                let budget = WindowedBudget::new(secs(10), 0.2, 10);
                three(retry).budget(budget.unwrap())
            }
            Self::Funded => retry.budget(RetryBudget::new(10, 0.1).unwrap()),
            Self::Layer => retry,
        }
    }
}

/// Seconds to recover, mean of the seeds, or never.
pub(crate) fn recovery(report: &Report, column: &str) -> String {
    let seconds = report.each(Measure::Recovery).of(column).mean().value();
    match seconds.is_finite() {
        true => format!("{seconds:.1} s"),
        false => "never".into(),
    }
}

fn get(number: u64) -> http::request::Builder {
    Request::get(format!("http://shop/{number}"))
}

const BEGIN: Duration = secs(10);
const END: Duration = secs(20);
