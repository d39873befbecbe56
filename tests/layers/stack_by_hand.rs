//! A client's stack against the same layers put together by hand: random settings, traffic,
//! deadlines, drops and updates on a paused clock. The caller, the upstream, the handles and a
//! scrape must see the same.
#![allow(
    clippy::disallowed_methods,
    reason = "the test looks at tokio's clock, which is paused"
)]

use std::{
    fmt::Debug,
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, join_all};
use http::{Method, Request, Response, header::RETRY_AFTER};
use http_body_util::Empty;
use proptest::prelude::*;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneSyncService};

use tower_keep::{
    CarryDeadline, Classify, Deadline, Outcome, Rejected, Timeouts,
    algorithm::{Backoff, Jitter, RetryBudget},
    budget::KeyedBudgets,
    bulkhead::{BulkheadBuilder, BulkheadGate, BulkheadLayer},
    circuit_breaker::{CircuitBreakerBuilder, CircuitBreakerLayer, KeyedCircuitBreakerHandle},
    fallback::{FallbackBuilder, FallbackLayer, Value},
    gate::{Asking, FindKey, GateLayer, IntoGate, Shadow},
    hedge::{HedgeBuilder, HedgeLayer},
    keyed::{ByHost, HasKey, Host},
    observe::Registry,
    protocol::{Advice, Kept, Plain, Proof, Protocol, Replay, Settle, http::Client},
    rate_limit::{Rate, RateLimitBuilder, RateLimitLayer},
    retry::{RetryBuilder, RetryLayer},
    stack::{self, ClientHandle},
    testing::Chance,
    throttle::{ThrottleBuilder, ThrottleLayer},
    timeout::{TimeoutHandle, TimeoutLayer},
};

/// Settings of a stack. Times are in milliseconds, here and below.
#[derive(Debug, Clone, Copy)]
struct Settings {
    total: u64,
    attempt: u64,
    attempts: u32,
    backoff: u64,
    /// Calls a second, and for how long calls may wait.
    rate: Option<(u64, Option<u64>)>,
    places: usize,
    place_wait: Option<u64>,
    consecutive: u32,
    open_for: u64,
    sends_deadline: bool,
    without: Without,
    resend: Resend,
    with: With,
}

/// How calls are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resend {
    Retry,
    /// After so long.
    Hedge(u64),
    Once,
}

/// Parts that a stack has only if it is told to.
#[derive(Debug, Clone, Copy)]
struct With {
    throttle: bool,
    /// Places of a bulkhead on trial.
    trial: Option<usize>,
    fallback: bool,
}

/// Parts that are left out.
#[derive(Debug, Clone, Copy)]
struct Without {
    total: bool,
    retry: bool,
    breaker: bool,
    bulkhead: bool,
    attempt: bool,
}

/// One call of a client.
#[derive(Debug, Clone)]
struct Call {
    at: u64,
    host: usize,
    idempotent: bool,
    deadline: Option<u64>,
    own_total: Option<u64>,
    own_attempt: Option<u64>,
    dropped: Option<u64>,
    /// Of each attempt; those beyond them get the last.
    steps: Vec<Step>,
}

/// What the upstream does with an attempt.
#[derive(Debug, Clone, Copy)]
struct Step {
    takes: u64,
    does: Does,
}

#[derive(Debug, Clone, Copy)]
enum Does {
    Answers,
    Fails,
    /// Fails, and says for how many seconds nobody is to come.
    FailsFor(u64),
    Breaks,
}

/// When the upstream is not ready.
#[derive(Debug, Clone, Copy)]
struct Unready {
    from: u64,
    until: u64,
}

/// Everything that was seen, in order.
#[derive(Debug, Default, Clone)]
struct Trace(Arc<Mutex<Vec<String>>>);

type Make<Ask> = fn(usize, &Call) -> Ask;
/// The number of the call that a request belongs to, and what an attempt is told.
type Read<Ask> = fn(&Ask) -> (usize, String);

/// The upstream of a run.
struct Upstream<Ask> {
    calls: Arc<[Call]>,
    attempts: Arc<Mutex<Vec<usize>>>,
    unready: Option<Unready>,
    waits: Option<std::pin::Pin<Box<Sleep>>>,
    start: Instant,
    trace: Trace,
    read: Read<Ask>,
}

impl Trace {
    fn note(&self, start: Instant, what: impl Debug) {
        let at = start.elapsed().as_millis();
        self.0.lock().unwrap().push(format!("{at}: {what:?}"));
    }
}

impl<Ask> Clone for Upstream<Ask> {
    fn clone(&self) -> Self {
        Self {
            calls: self.calls.clone(),
            attempts: self.attempts.clone(),
            unready: self.unready,
            waits: None,
            start: self.start,
            trace: self.trace.clone(),
            read: self.read,
        }
    }
}

impl<Ask> Service<Ask> for Upstream<Ask> {
    type Response = (u16, Option<u64>);
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        let Some(unready) = self.unready else {
            return Poll::Ready(Ok(()));
        };
        let now = self.start.elapsed();
        if now < ms(unready.from) || now >= ms(unready.until) {
            return Poll::Ready(Ok(()));
        }
        let until = self.start + ms(unready.until);
        let wait = self
            .waits
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        wait.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        let (number, told) = (self.read)(&ask);
        let attempt = {
            let mut attempts = self.attempts.lock().unwrap();
            attempts[number] += 1;
            attempts[number]
        };
        self.trace
            .note(self.start, ("attempt", number, attempt, told));
        let steps = &self.calls[number].steps;
        let Step { takes, does } = steps[(attempt - 1).min(steps.len() - 1)];
        async move {
            sleep(ms(takes)).await;
            match does {
                Does::Answers => Ok((200, None)),
                Does::Fails => Ok((503, None)),
                Does::FailsFor(seconds) => Ok((503, Some(seconds))),
                Does::Breaks => Err(io::Error::other("broken")),
            }
        }
        .boxed()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Settings {
    fn backoff(&self) -> Backoff {
        let base = ms(self.backoff);
        Backoff::new(base, base * 8, Jitter::default()).unwrap()
    }

    fn retry(&self, retry: RetryBuilder) -> RetryBuilder {
        retry.attempts(self.attempts).backoff(self.backoff())
    }

    fn breaker(&self, breaker: CircuitBreakerBuilder) -> CircuitBreakerBuilder {
        breaker
            .failure_rate(0.5)
            .min_calls(8)
            .consecutive_failures(self.consecutive)
            .open_for(ms(self.open_for))
            .growing_to(ms(self.open_for * 2))
            .probes(1)
            .lease(ms(5000))
            .window(Duration::from_secs(10))
            .jitter(false)
    }

    fn bulkhead(&self) -> BulkheadBuilder {
        if self.without.bulkhead {
            // What a stack has in its place.
            return BulkheadLayer::builder(usize::MAX);
        }
        let builder = BulkheadLayer::builder(self.places);
        match self.place_wait {
            Some(wait) => builder.max_wait(ms(wait)),
            None => builder,
        }
    }

    fn limit(&self) -> Option<RateLimitBuilder> {
        let (rate, wait) = self.rate?;
        let builder = RateLimitLayer::builder(Rate::per_second(rate)).burst(2);
        Some(match wait {
            Some(wait) => builder.max_wait(ms(wait)),
            None => builder,
        })
    }

    fn throttle(&self, throttle: ThrottleBuilder) -> ThrottleBuilder {
        throttle
            .min_calls(3)
            .window(Duration::from_secs(5))
            .multiplier(1.2)
    }

    fn hedge(&self, hedge: HedgeBuilder) -> HedgeBuilder {
        let Resend::Hedge(delay) = self.resend else {
            return hedge.enabled(false);
        };
        hedge
            .delay(ms(delay))
            .max_retry_after(Duration::from_secs(1))
    }

    /// The bulkhead on trial.
    fn tried(&self) -> BulkheadBuilder {
        let places = BulkheadLayer::builder(self.with.trial.unwrap_or(1));
        places.enabled(self.with.trial.is_some())
    }

    fn trial(&self) -> Shadow<Asking<BulkheadGate>> {
        Shadow::new(self.tried().gate().unwrap(), "trial")
    }

    fn stack<P, W>(&self, builder: stack::ClientBuilder<P, W>) -> BuilderOf<P, W>
    where
        W: HasKey<Key = Host> + Clone,
    {
        let builder = builder
            .name("api")
            .total_timeout(ms(self.total))
            .attempt_timeout(ms(self.attempt))
            .retry(|retry| self.retry(retry).enabled(!self.without.retry))
            .circuit_breaker(|breaker| self.breaker(breaker));
        let mut builder = builder
            .bulkhead(Some(self.bulkhead()))
            .rate_limit(self.limit())
            .shadow(self.trial());
        if self.without.bulkhead {
            builder = builder.without_bulkhead();
        }
        if self.with.throttle {
            builder = builder.throttle(|throttle| self.throttle(throttle));
        }
        if self.without.total {
            builder = builder.without_total_timeout();
        }
        if self.without.breaker {
            builder = builder.without_circuit_breaker();
        }
        if self.without.attempt {
            builder = builder.without_attempt_timeout();
        }
        builder
    }

    /// A client's stack waits for no hint beyond its total timeout.
    fn max_retry_after(&self) -> Duration {
        if self.without.total {
            Duration::from_secs(10)
        } else {
            ms(self.total)
        }
    }

    fn is_valid(&self) -> bool {
        let of_total = self.attempt <= self.total && self.backoff < self.total;
        let hedged = match self.resend {
            Resend::Hedge(delay) => delay < self.attempt && delay < self.total,
            Resend::Retry | Resend::Once => true,
        };
        hedged && (self.without.total || of_total)
    }
}

/// A builder with those parts that have types of their own.
type BuilderOf<P, W> = stack::ClientBuilder<
    P,
    W,
    stack::Parts<
        stack::Retrying,
        Option<RateLimitBuilder>,
        Option<BulkheadBuilder>,
        Shadow<Asking<BulkheadGate>>,
    >,
>;

/// Sends all calls, and notes what becomes of them.
async fn traffic<Ask: Send + 'static>(
    service: BoxCloneSyncService<Ask, u16, BoxError>,
    calls: Arc<[Call]>,
    make: Make<Ask>,
    trace: &Trace,
    start: Instant,
) {
    let calls = calls.iter().enumerate().map(|(number, call)| {
        let service = service.clone();
        async move {
            sleep_until(start + ms(call.at)).await;
            let answer = service.oneshot(make(number, call));
            let answer = match call.dropped {
                Some(after) => timeout(ms(after), answer).await.ok(),
                None => Some(answer.await),
            };
            trace.note(start, (number, answer.map(described)));
        }
    });
    join_all(calls).await;
}

fn described(answer: Result<u16, BoxError>) -> String {
    match answer {
        Ok(status) => status.to_string(),
        Err(error) => match Rejected::find(&*error) {
            Some(rejected) => format!("{rejected:?}"),
            None => error.to_string(),
        },
    }
}

/// What a stack, or its layers by hand, look like from outside.
struct Built<Ask> {
    service: BoxCloneSyncService<Ask, u16, BoxError>,
    handles: Box<dyn Fn() -> String>,
    update: Box<dyn Fn(u64)>,
}

/// Runs the calls through what `build` makes of the upstream; all that was seen.
fn run<Ask: Send + 'static, Told: Send + 'static>(
    calls: &[Call],
    unready: Option<Unready>,
    (make, read): (Make<Ask>, Read<Told>),
    build: impl FnOnce(Upstream<Told>) -> Built<Ask>,
) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (start, trace) = (Instant::now(), Trace::default());
        let calls: Arc<[Call]> = calls.into();
        let registry = Registry::new();
        let upstream = Upstream {
            calls: calls.clone(),
            attempts: Arc::new(Mutex::new(vec![0; calls.len()])),
            unready,
            waits: None,
            start,
            trace: trace.clone(),
            read,
        };
        let built = registry.with(|| build(upstream));
        // The order in which the parts are built is not the same.
        let _chance = Chance::seeded(417).enter();
        let half_way = async {
            sleep(ms(1_500)).await;
            (built.update)(400);
        };
        let calls = traffic(built.service.clone(), calls, make, &trace, start);
        futures::join!(calls, half_way);
        // What was dropped ends in its own time.
        sleep(Duration::from_secs(20)).await;
        trace.note(start, (built.handles)());
        // What counts the calls of a stack is no layer.
        let instances = registry.snapshot().into_iter();
        let instances = instances.filter(|one| one.layer != "drain");
        let shown = instances.map(|one| without_moments(&format!("{one:?}")));
        let mut instances: Vec<_> = shown.collect();
        instances.sort();
        trace.note(start, instances);
        let seen = trace.0.lock().unwrap();
        seen.clone()
    })
}

mod over_http {
    use super::*;

    type Ask = Request<Empty<Bytes>>;

    fn make(number: usize, call: &Call) -> Ask {
        let method = if call.idempotent {
            Method::GET
        } else {
            Method::POST
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://host-{}/{number}", call.host))
            .body(Empty::new())
            .unwrap();
        if let Some(deadline) = call.deadline {
            let deadline = Deadline::after(ms(deadline));
            request.extensions_mut().insert(deadline);
        }
        if call.own_total.is_some() || call.own_attempt.is_some() {
            let mut timeouts = Timeouts::new();
            if let Some(total) = call.own_total {
                timeouts = timeouts.total(ms(total));
            }
            if let Some(attempt) = call.own_attempt {
                timeouts = timeouts.attempt(ms(attempt));
            }
            request.extensions_mut().insert(timeouts);
        }
        request
    }

    fn read<B>(request: &Request<B>) -> (usize, String) {
        let number = request.uri().path()[1..].parse().unwrap();
        let deadline = request.extensions().get::<Deadline>();
        let left = deadline.map(|deadline| deadline.remaining());
        let field = request.headers().get("x-envoy-expected-rq-timeout-ms");
        (number, format!("{left:?} {field:?}"))
    }

    fn respond<Ask>(
        upstream: Upstream<Ask>,
    ) -> impl Service<Ask, Response = Response<Empty<Bytes>>, Error = io::Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
    where
        Ask: Send + 'static,
    {
        upstream.map_response(|(status, retry_after)| {
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header(RETRY_AFTER, seconds);
            }
            response.body(Empty::new()).unwrap()
        })
    }

    fn boxed<S>(service: S) -> BoxCloneSyncService<Ask, u16, BoxError>
    where
        S: Service<Ask, Response = Response<Empty<Bytes>>, Error = BoxError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let status = |response: Response<_>| response.status().as_u16();
        BoxCloneSyncService::new(service.map_response(status))
    }

    /// What fails is answered with that.
    fn answer() -> Response<Empty<Bytes>> {
        let answer = Response::builder().status(203);
        answer.body(Empty::new()).unwrap()
    }

    pub(super) fn in_the_stack(
        settings: Settings,
        calls: &[Call],
        unready: Option<Unready>,
    ) -> Vec<String> {
        let client = |client: Client| client.send_deadline(settings.sends_deadline);
        let builder = || {
            let builder = settings.stack(stack::client().http());
            let answer = FallbackLayer::value(answer()).enabled(settings.with.fallback);
            builder.protocol(client).fallback(answer)
        };
        match settings.resend {
            Resend::Retry => run(calls, unready, (make, read), |upstream| {
                let stack = builder().build().unwrap();
                let service = boxed(stack.layer(respond(upstream)));
                built(service, stack.handle())
            }),
            Resend::Hedge(_) => run(calls, unready, (make, read), |upstream| {
                let stack = builder().hedge(|hedge| settings.hedge(hedge));
                let stack = stack.build().unwrap();
                let service = boxed(stack.layer(respond(upstream)));
                built(service, stack.handle())
            }),
            Resend::Once => run(calls, unready, (make, read), |upstream: Upstream<Ask>| {
                let stack = builder().without_retry().build().unwrap();
                let service = boxed(stack.layer(respond(upstream)));
                built(service, stack.handle())
            }),
        }
    }

    fn built(service: BoxCloneSyncService<Ask, u16, BoxError>, handle: ClientHandle) -> Built<Ask> {
        let updated = handle.total_timeout.clone();
        Built {
            service,
            handles: Box::new(move || {
                let (retry, hedge) = (handle.retry.snapshot(), handle.hedge.as_ref());
                let hedge = hedge.map(|hedge| hedge.snapshot());
                let budgets = keys_of(handle.retry_budgets.keys());
                let gates = (
                    keys(handle.circuit_breaker.keys(), |circuit| circuit.snapshot()),
                    handle
                        .throttle
                        .as_ref()
                        .map(|throttle| keys(throttle.keys(), |throttle| throttle.snapshot())),
                    handle.rate_limit.as_ref().map(|limit| limit.snapshot()),
                    keys(handle.bulkhead.keys(), |bulkhead| bulkhead.snapshot()),
                    handle.attempt_timeout.snapshot(),
                );
                let total = handle.total_timeout.snapshot();
                let again = format!("{retry:?}, {hedge:?}, {budgets:?}");
                let answers = handle.fallback.as_ref().unwrap().snapshot();
                format!("{total:?} {again} {gates:?} {answers:?}")
            }),
            update: Box::new(move |total| drop(updated.set_duration(ms(total)).unwrap())),
        }
    }

    pub(super) fn by_hand(
        settings: Settings,
        calls: &[Call],
        unready: Option<Unready>,
    ) -> Vec<String> {
        match settings.resend {
            Resend::Retry => run(calls, unready, (make, read), |upstream| {
                let budgets = KeyedBudgets::builder(ByHost).build().unwrap();
                let layers = by_hand_of(settings, upstream);
                let retry = settings.retry(RetryLayer::builder()).name("api");
                let retry = retry.enabled(!settings.without.retry);
                let retry = retry.protocol(client(settings)).budget_per(budgets.clone());
                let retry = retry.stop_while_open(layers.circuits);
                let retry = retry.max_retry_after(settings.max_retry_after());
                let retry = retry.build().unwrap();
                let (handle, left) = (retry.handle(), budgets.handle());
                let again = Box::new(move || {
                    format!("{:?}, None, {:?}", handle.snapshot(), keys_of(left.keys()))
                });
                let updated = layers.total.handle();
                let service = layers.total.layer(retry.layer(layers.attempts));
                finish(settings, (service, updated, layers.seen), again)
            }),
            Resend::Hedge(_) => run(calls, unready, (make, read), |upstream| {
                // As the layer's own, for each host.
                let each = || RetryBudget::new(1, 0.02).unwrap();
                let budgets = KeyedBudgets::builder(ByHost).each(each).build().unwrap();
                let layers = by_hand_of(settings, upstream);
                let hedge = settings.hedge(HedgeLayer::builder()).name("api");
                let hedge = hedge.protocol(client(settings)).budget_per(budgets.clone());
                let hedge = hedge.build().unwrap();
                let (handle, left) = (hedge.handle(), budgets.handle());
                let again = Box::new(move || {
                    let retry = no_retry();
                    let hedge = Some(handle.snapshot());
                    format!("{retry:?}, {hedge:?}, {:?}", keys_of(left.keys()))
                });
                let updated = layers.total.handle();
                let service = layers.total.layer(hedge.layer(layers.attempts));
                finish(settings, (service, updated, layers.seen), again)
            }),
            Resend::Once => run(calls, unready, (make, read), |upstream: Upstream<Ask>| {
                let layers = by_hand_of(settings, upstream);
                let again = Box::new(move || {
                    let retry = no_retry();
                    format!("{retry:?}, None, []")
                });
                let updated = layers.total.handle();
                let service = layers.total.layer(layers.attempts);
                finish(settings, (service, updated, layers.seen), again)
            }),
        }
    }

    /// What a stack without retries says of them.
    fn no_retry() -> tower_keep::retry::Snapshot {
        let retry = RetryLayer::builder().enabled(false).protocol(Plain::new());
        retry.build().unwrap().handle().snapshot()
    }

    /// Reads the handles of a stack's layers.
    type Seen = Box<dyn Fn(&str) -> String>;

    /// What all stacks have in common, by hand.
    struct Layers<A> {
        total: TimeoutLayer<Client>,
        /// The gates, and an attempt beneath.
        attempts: A,
        circuits: KeyedCircuitBreakerHandle<Host>,
        /// What the handles say, given what those of what sends again say.
        seen: Seen,
    }

    fn client(settings: Settings) -> Client {
        Client::new().send_deadline(settings.sends_deadline)
    }

    fn by_hand_of<B: Send + 'static>(
        settings: Settings,
        upstream: Upstream<Request<B>>,
    ) -> Layers<
        impl Service<Request<B>, Response = Response<Empty<Bytes>>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    > {
        let client = client(settings);
        let by_host = |request: &Request<B>| -> Option<Host> { ByHost.find(request) };
        let deadline = |request: &Request<B>| {
            let deadline = request.extensions().get::<Deadline>();
            deadline.map(|deadline| deadline.moment())
        };
        let breaker = settings
            .breaker(
                CircuitBreakerLayer::builder()
                    .name("api")
                    .enabled(!settings.without.breaker),
            )
            .keyed_by(by_host)
            .gate()
            .unwrap();
        let throttle = settings.with.throttle.then(|| {
            let throttle = settings.throttle(ThrottleLayer::builder()).name("api");
            throttle.keyed_by(by_host).gate().unwrap()
        });
        let bulkhead = settings
            .bulkhead()
            .name("api")
            .enabled(!settings.without.bulkhead)
            .keyed_by(by_host);
        let bulkhead = bulkhead.deadline(deadline).gate().unwrap();
        let limit = settings.limit().map(|limit| {
            // A deadline alone would let calls wait that may not.
            let wait = settings.rate.and_then(|(_, wait)| wait).unwrap_or(0);
            let limit = limit.name("api").max_wait(ms(wait)).deadline(deadline);
            limit.gate().unwrap()
        });
        let total = TimeoutLayer::builder(ms(settings.total)).name("api");
        let total = total.enabled(!settings.without.total);
        let total = total.total(true).protocol(client).build().unwrap();
        let attempt = TimeoutLayer::builder(ms(settings.attempt)).name("api");
        let attempt = attempt.enabled(!settings.without.attempt);
        let attempt = attempt.protocol(client).build().unwrap();
        let (circuits, bulkheads) = (breaker.handle(), bulkhead.handle());
        let throttles = throttle.as_ref().map(|throttle| throttle.handle());
        let limits = limit.as_ref().map(|limit| limit.handle());
        let (totals, times, seen) = (total.handle(), attempt.handle(), circuits.clone());
        // A stack's gates all know the deadline.
        let tried = settings.tried().deadline(deadline).gate().unwrap();
        let innermost = (bulkhead, Shadow::new(tried, "trial")).into_gate();
        let gates = GateLayer::new((breaker, throttle, limit, innermost)).protocol(client);
        Layers {
            total,
            attempts: gates.layer(attempt.layer(respond(upstream))),
            circuits,
            seen: Box::new(move |again| {
                let (before, after) = (
                    totals.snapshot(),
                    (
                        keys(seen.keys(), |circuit| circuit.snapshot()),
                        throttles
                            .as_ref()
                            .map(|throttle| keys(throttle.keys(), |throttle| throttle.snapshot())),
                        limits.as_ref().map(|limit| limit.snapshot()),
                        keys(bulkheads.keys(), |bulkhead| bulkhead.snapshot()),
                        times.snapshot(),
                    ),
                );
                format!("{before:?} {again} {after:?}")
            }),
        }
    }

    /// Puts the fallback around all of it.
    fn finish<S>(
        settings: Settings,
        layers: (S, TimeoutHandle, Seen),
        again: Box<dyn Fn() -> String>,
    ) -> Built<Ask>
    where
        S: Service<Ask, Response = Response<Empty<Bytes>>, Error = BoxError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let (service, updated, seen) = layers;
        let answer = FallbackLayer::value(answer()).name("api");
        let answer = answer.enabled(settings.with.fallback);
        let answer = answer.protocol(client(settings)).build().unwrap();
        let answers = answer.handle();
        Built {
            service: boxed(answer.layer(service)),
            handles: Box::new(move || format!("{} {:?}", seen(&again()), answers.snapshot())),
            update: Box::new(move |total| drop(updated.set_duration(ms(total)).unwrap())),
        }
    }

    fn keys_of(mut keys: Vec<(Host, u32)>) -> Vec<(Host, u32)> {
        keys.sort_by_key(|(host, _)| host.to_string());
        keys
    }

    fn keys<H, T: Debug>(keys: Vec<(Host, H)>, read: impl Fn(&H) -> T) -> Vec<String> {
        let read = keys
            .iter()
            .map(|(host, handle)| format!("{host} {:?}", read(handle)));
        let mut all: Vec<_> = read.collect();
        all.sort();
        all
    }
}

/// Over gRPC: the layers alone, since limits are the same as over HTTP.
mod over_grpc {
    use tonic::{Code, body::Body};
    use tower_keep::protocol::grpc::Client;

    use super::*;

    type Ask = Request<Body>;

    fn make(number: usize, call: &Call) -> Ask {
        let mut request = Request::new(Body::empty());
        let method = if call.idempotent { "Get" } else { "Set" };
        *request.uri_mut() = format!("http://host-{}/keep.Test/{method}", call.host)
            .parse()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("x-number", number.into());
        if let Some(deadline) = call.deadline {
            let left = format!("{deadline}m").parse().unwrap();
            headers.insert("grpc-timeout", left);
        }
        request
    }

    fn read(request: &Request<Body>) -> (usize, String) {
        let headers = request.headers();
        let number = headers["x-number"].to_str().unwrap().parse().unwrap();
        let deadline = request.extensions().get::<Deadline>();
        let left = deadline.map(|deadline| deadline.remaining());
        (
            number,
            format!("{left:?} {:?}", headers.get("grpc-timeout")),
        )
    }

    fn respond(
        upstream: Upstream<Ask>,
    ) -> impl Service<Ask, Response = Response<Body>, Error = io::Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        upstream.map_response(|(status, retry_after)| {
            let code = if status == 200 {
                Code::Ok
            } else {
                Code::Unavailable
            };
            let mut response = Response::builder().header("grpc-status", code as i32);
            if let Some(seconds) = retry_after {
                response = response.header("grpc-retry-pushback-ms", seconds * 1_000);
            }
            response.body(Body::empty()).unwrap()
        })
    }

    fn boxed<S, B>(service: S) -> BoxCloneSyncService<Ask, u16, BoxError>
    where
        S: Service<Ask, Response = Response<B>, Error = BoxError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: 'static,
    {
        let status = |response: Response<B>| {
            let status = response.headers()["grpc-status"].to_str().unwrap();
            status.parse().unwrap()
        };
        BoxCloneSyncService::new(service.map_response(status))
    }

    fn client() -> Client {
        Client::new().idempotent_when(|path| path.ends_with("/Get"))
    }

    pub(super) fn in_the_stack(
        settings: Settings,
        calls: &[Call],
        unready: Option<Unready>,
    ) -> Vec<String> {
        run(calls, unready, (make, read), |upstream| {
            let settings = Settings {
                rate: None,
                ..settings
            };
            let builder = settings.stack(stack::client().grpc(client()));
            let stack = builder.build().unwrap();
            let (handle, updated) = (stack.handle(), stack.handle());
            Built {
                service: boxed(stack.layer(respond(upstream))),
                handles: Box::new(move || format!("{:?}", handle.retry.snapshot())),
                update: Box::new(move |total| {
                    drop(updated.total_timeout.set_duration(ms(total)).unwrap());
                }),
            }
        })
    }

    pub(super) fn by_hand(
        settings: Settings,
        calls: &[Call],
        unready: Option<Unready>,
    ) -> Vec<String> {
        run(calls, unready, (make, read), |upstream| {
            let by_host = |request: &Request<_>| -> Option<Host> { ByHost.find(request) };
            let deadline = |request: &Request<_>| {
                let deadline = request.extensions().get::<Deadline>();
                deadline.map(|deadline| deadline.moment())
            };
            let breaker = settings.breaker(
                CircuitBreakerLayer::builder()
                    .name("api")
                    .enabled(!settings.without.breaker),
            );
            let breaker = breaker.keyed_by(by_host).gate().unwrap();
            let bulkhead = settings
                .bulkhead()
                .name("api")
                .enabled(!settings.without.bulkhead)
                .keyed_by(by_host);
            let bulkhead = bulkhead.deadline(deadline).gate().unwrap();
            let total = TimeoutLayer::builder(ms(settings.total)).name("api");
            let total = total.enabled(!settings.without.total);
            let total = total.total(true).protocol(client()).build().unwrap();
            let budgets = KeyedBudgets::builder(ByHost).build().unwrap();
            let retry = settings.retry(RetryLayer::builder()).name("api");
            let retry = retry.enabled(!settings.without.retry);
            let retry = retry.max_retry_after(settings.max_retry_after());
            let retry = retry.protocol(client()).budget_per(budgets);
            let retry = retry.stop_while_open(breaker.handle());
            let retry = retry.build().unwrap();
            let attempt = TimeoutLayer::builder(ms(settings.attempt)).name("api");
            let attempt = attempt.enabled(!settings.without.attempt);
            let attempt = attempt.protocol(client()).build().unwrap();
            let (retries, updated) = (retry.handle(), total.handle());
            let throttle = settings.with.throttle.then(|| {
                let throttle = settings.throttle(ThrottleLayer::builder()).name("api");
                throttle.keyed_by(by_host).gate().unwrap()
            });
            let tried = settings.tried().deadline(deadline).gate().unwrap();
            let gates = (breaker, throttle, bulkhead, Shadow::new(tried, "trial"));
            let gates = GateLayer::new(gates).protocol(client());
            let inner = gates.layer(attempt.layer(respond(upstream)));
            Built {
                service: boxed(total.layer(retry.layer(inner))),
                handles: Box::new(move || format!("{:?}", retries.snapshot())),
                update: Box::new(move |total| drop(updated.set_duration(ms(total)).unwrap())),
            }
        })
    }
}

/// A server's stack.
mod server {
    use tower_keep::protocol::http::Server;

    use super::*;

    type Ask = Request<()>;

    fn make(number: usize, call: &Call) -> Ask {
        let mut request = Request::new(());
        *request.uri_mut() = format!("/{number}").parse().unwrap();
        if let Some(deadline) = call.deadline {
            let headers = request.headers_mut();
            headers.insert("x-envoy-expected-rq-timeout-ms", deadline.into());
        }
        if let Some(total) = call.own_attempt {
            let timeouts = Timeouts::new().attempt(ms(total));
            request.extensions_mut().insert(timeouts);
        }
        request
    }

    fn read(request: &Ask) -> (usize, String) {
        let number = request.uri().path()[1..].parse().unwrap();
        let deadline = request.extensions().get::<Deadline>();
        let left = deadline.map(|deadline| deadline.remaining());
        (number, format!("{left:?}"))
    }

    fn respond(
        upstream: Upstream<Ask>,
    ) -> impl Service<Ask, Response = Response<String>, Error = io::Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        upstream.map_response(|(status, _)| {
            let response = Response::builder().status(status);
            response.body(String::new()).unwrap()
        })
    }

    fn boxed<S>(service: S) -> BoxCloneSyncService<Ask, u16, BoxError>
    where
        S: Service<Ask, Response = Response<String>, Error = io::Error, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let status = |response: Response<_>| response.status().as_u16();
        BoxCloneSyncService::new(service.map_response(status).map_err(Into::into))
    }

    fn answer(settings: Settings) -> FallbackBuilder<Value<Response<String>>> {
        let answer = Response::builder().status(203);
        let answer = FallbackLayer::value(answer.body(String::new()).unwrap());
        answer.enabled(settings.with.fallback)
    }

    fn protocol(settings: Settings) -> Server {
        Server::new().read_deadline(settings.sends_deadline)
    }

    pub(super) fn in_the_stack(
        settings: Settings,
        calls: &[Call],
        unready: Option<Unready>,
    ) -> Vec<String> {
        run(calls, unready, (make, read), |upstream| {
            let builder = stack::server()
                .http()
                .name("api")
                .timeout(ms(settings.attempt));
            let builder = builder.protocol(|_| protocol(settings));
            let builder = builder
                .bulkhead(settings.bulkhead())
                .shadow(settings.trial());
            let builder = builder.fallback(answer(settings));
            let stack = builder.rate_limit(settings.limit()).build().unwrap();
            let (handle, updated) = (stack.handle(), stack.handle());
            Built {
                service: boxed(stack.layer(respond(upstream))),
                handles: Box::new(move || {
                    let seen = (
                        handle.rate_limit.as_ref().map(|limit| limit.snapshot()),
                        handle.bulkhead.snapshot(),
                        handle.timeout.snapshot(),
                        handle.fallback.as_ref().map(|fallback| fallback.snapshot()),
                    );
                    format!("{seen:?}")
                }),
                update: Box::new(move |time| {
                    drop(updated.timeout.set_duration(ms(time)).unwrap());
                }),
            }
        })
    }

    pub(super) fn by_hand(
        settings: Settings,
        calls: &[Call],
        unready: Option<Unready>,
    ) -> Vec<String> {
        run(calls, unready, (make, read), |upstream| {
            let protocol = protocol(settings);
            let deadline = move |ask: &Ask| {
                let left = ask.headers().get("x-envoy-expected-rq-timeout-ms");
                let left = left.filter(|_| settings.sends_deadline)?;
                let left = left.to_str().unwrap().parse().unwrap();
                Some(Deadline::after(ms(left)).moment())
            };
            let limit = settings.limit().map(|limit| {
                // A deadline alone would let calls wait that may not.
                let wait = settings.rate.and_then(|(_, wait)| wait).unwrap_or(0);
                let limit = limit.name("api").max_wait(ms(wait)).deadline(deadline);
                limit.gate().unwrap()
            });
            let bulkhead = settings.bulkhead().name("api").deadline(deadline);
            let bulkhead = bulkhead.gate().unwrap();
            let tried = settings.tried().deadline(deadline).gate().unwrap();
            let trial = Shadow::new(tried, "trial");
            let time = TimeoutLayer::builder(ms(settings.attempt)).name("api");
            let time = time.protocol(protocol).build().unwrap();
            let limits = limit.as_ref().map(|limit| limit.handle());
            let (bulkheads, times, updated) = (bulkhead.handle(), time.handle(), time.handle());
            let gates = GateLayer::new((limit, bulkhead, trial)).protocol(protocol);
            let answer = answer(settings)
                .name("api")
                .protocol(protocol)
                .build()
                .unwrap();
            let answers = answer.handle();
            Built {
                service: boxed(answer.layer(gates.layer(time.layer(respond(upstream))))),
                handles: Box::new(move || {
                    let seen = (
                        limits.as_ref().map(|limit| limit.snapshot()),
                        bulkheads.snapshot(),
                        times.snapshot(),
                        Some(answers.snapshot()),
                    );
                    format!("{seen:?}")
                }),
                update: Box::new(move |time| drop(updated.set_duration(ms(time)).unwrap())),
            }
        })
    }
}

/// Requests without any place for a deadline. By hand a protocol of the test's own gives them one,
/// which shows what a stack does without it.
mod plain {
    use super::*;

    #[derive(Debug, Clone)]
    struct Ask {
        number: usize,
        idempotent: bool,
        deadline: Option<Deadline>,
    }

    /// `Plain`, with a deadline in each request.
    #[derive(Debug, Clone, Copy)]
    struct Carries<P>(P);

    fn make(number: usize, call: &Call) -> Ask {
        Ask {
            number,
            idempotent: call.idempotent,
            deadline: None,
        }
    }

    fn read(ask: &Ask) -> (usize, String) {
        (ask.number, String::new())
    }

    fn respond(
        upstream: Upstream<Ask>,
    ) -> impl Service<Ask, Response = u16, Error = io::Error, Future: Send> + Clone + Send + Sync + 'static
    {
        upstream.map_result(|result| match result {
            Ok((503, _)) => Err(io::Error::other("unavailable")),
            result => result.map(|(status, _)| status),
        })
    }

    fn idempotent(ask: &Ask) -> bool {
        ask.idempotent
    }

    fn deadline(ask: &Ask) -> Option<Instant> {
        ask.deadline.map(Deadline::moment)
    }

    pub(super) fn in_the_stack(
        settings: Settings,
        calls: &[Call],
        unready: Option<Unready>,
    ) -> Vec<String> {
        run(calls, unready, (make, read), |upstream| {
            let protocol = Plain::new().idempotent_when(idempotent);
            let builder = settings.stack(stack::client().plain(protocol));
            let stack = builder.build().unwrap();
            let (handle, updated) = (stack.handle(), stack.handle());
            Built {
                service: BoxCloneSyncService::new(stack.layer(respond(upstream))),
                handles: Box::new(move || {
                    let seen = (
                        handle.total_timeout.snapshot(),
                        handle.retry.snapshot(),
                        handle.circuit_breaker.shared().snapshot(),
                        handle.rate_limit.as_ref().map(|limit| limit.snapshot()),
                        handle.bulkhead.shared().snapshot(),
                        handle.attempt_timeout.snapshot(),
                    );
                    format!("{seen:?}")
                }),
                update: Box::new(move |total| {
                    drop(updated.total_timeout.set_duration(ms(total)).unwrap());
                }),
            }
        })
    }

    pub(super) fn by_hand(
        settings: Settings,
        calls: &[Call],
        unready: Option<Unready>,
    ) -> Vec<String> {
        run(calls, unready, (make, read), |upstream| {
            let protocol = Carries(Plain::new().idempotent_when(idempotent));
            let breaker = settings.breaker(
                CircuitBreakerLayer::builder()
                    .name("api")
                    .enabled(!settings.without.breaker),
            );
            let breaker = breaker.gate().unwrap();
            let bulkhead = settings
                .bulkhead()
                .name("api")
                .enabled(!settings.without.bulkhead);
            let bulkhead = bulkhead.deadline(deadline).gate().unwrap();
            let limit = settings.limit().map(|limit| {
                // A deadline alone would let calls wait that may not.
                let wait = settings.rate.and_then(|(_, wait)| wait).unwrap_or(0);
                let limit = limit.name("api").max_wait(ms(wait)).deadline(deadline);
                limit.gate().unwrap()
            });
            let total = TimeoutLayer::builder(ms(settings.total)).name("api");
            let total = total.enabled(!settings.without.total);
            let total = total.total(true).protocol(protocol).build().unwrap();
            let retry = settings.retry(RetryLayer::builder()).name("api");
            let retry = retry.enabled(!settings.without.retry);
            let retry = retry.max_retry_after(settings.max_retry_after());
            let retry = retry.stop_while_open(breaker.handle());
            let retry = retry.protocol(protocol).build().unwrap();
            let attempt = TimeoutLayer::builder(ms(settings.attempt)).name("api");
            let attempt = attempt.enabled(!settings.without.attempt);
            let attempt = attempt.protocol(protocol).build().unwrap();
            let (circuits, bulkheads) = (breaker.handle(), bulkhead.handle());
            let limit_handle = limit.as_ref().map(|limit| limit.handle());
            let (totals, attempts) = (total.handle(), attempt.handle());
            let (retries, updated) = (retry.handle(), total.handle());
            let throttle = settings.with.throttle.then(|| {
                let throttle = settings.throttle(ThrottleLayer::builder()).name("api");
                // A stack of one peer counts for all keys.
                throttle.keyed_by(|_: &Ask| None::<Host>).gate().unwrap()
            });
            // A stack's gates all know the deadline.
            let tried = settings.tried().deadline(deadline).gate().unwrap();
            let innermost = (bulkhead, Shadow::new(tried, "trial")).into_gate();
            let gates = GateLayer::new((breaker, throttle, limit, innermost)).protocol(protocol);
            let inner = gates.layer(attempt.layer(respond(upstream)));
            Built {
                service: BoxCloneSyncService::new(total.layer(retry.layer(inner))),
                handles: Box::new(move || {
                    let seen = (
                        totals.snapshot(),
                        retries.snapshot(),
                        circuits.snapshot(),
                        limit_handle.as_ref().map(|limit| limit.snapshot()),
                        bulkheads.snapshot(),
                        attempts.snapshot(),
                    );
                    format!("{seen:?}")
                }),
                update: Box::new(move |total| drop(updated.set_duration(ms(total)).unwrap())),
            }
        })
    }

    impl<P> CarryDeadline<Ask> for Carries<P> {
        fn deadline(&self, ask: &Ask) -> Option<Deadline> {
            ask.deadline
        }

        fn set_deadline(&self, ask: &mut Ask, deadline: Deadline) {
            ask.deadline = Some(deadline);
        }

        fn wants_deadline(&self, total: bool) -> bool {
            total
        }
    }

    impl<P: Classify<Res, Err>, Res, Err> Classify<Res, Err> for Carries<P> {
        fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
            self.0.classify(result)
        }
    }

    impl<P: Protocol<Res, Err>, Res, Err> Protocol<Res, Err> for Carries<P> {
        type Response<T: Settle> = P::Response<T>;
        type Error = P::Error;

        fn settle<T: Settle>(
            &self,
            result: Result<Res, Err>,
            permit: T,
        ) -> Result<P::Response<T>, P::Error> {
            self.0.settle(result, permit)
        }

        fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<P::Response<T>, P::Error> {
            self.0.reject(rejected)
        }

        fn not_ready(&self, error: Err) -> P::Error {
            self.0.not_ready(error)
        }

        fn advise(&self, outcome: Outcome, result: Result<&P::Response<()>, &P::Error>) -> Advice {
            self.0.advise(outcome, result)
        }

        fn proof(&self, advice: Advice, result: Result<&P::Response<()>, &P::Error>) -> Proof {
            self.0.proof(advice, result)
        }

        fn keep(&self, error: P::Error) -> Option<P::Error> {
            self.0.keep(error)
        }

        fn judge(
            &self,
            classified: Outcome,
            result: Result<&P::Response<()>, &P::Error>,
        ) -> Outcome {
            self.0.judge(classified, result)
        }
    }

    impl<P: Replay<Ask, Request = Ask, Snapshot = Ask>> Replay<Ask> for Carries<P> {
        type Request = Ask;
        type Snapshot = Ask;

        fn once(&self, ask: Ask) -> Ask {
            self.0.once(ask)
        }

        fn prepare(&self, ask: Ask) -> (Ask, Option<Kept<Ask>>) {
            self.0.prepare(ask)
        }

        fn replay(&self, kept: &Ask) -> Option<Ask> {
            self.0.replay(kept)
        }

        fn deadline(&self, kept: &Ask) -> Option<Deadline> {
            kept.deadline
        }
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let times = (1_000..4_000u64, 100..1_000u64, 1..5u32, 10..900u64);
    let rate = prop::option::of((1..50u64, prop::option::of(10..800u64)));
    let places = (1..6usize, prop::option::of(10..800u64));
    let breaker = (2..12u32, 100..1_500u64);
    let out = || prop::bool::weighted(0.15);
    let without = (out(), out(), out(), out(), out());
    let without = without.prop_map(|(total, retry, breaker, bulkhead, attempt)| Without {
        total,
        retry,
        breaker,
        bulkhead,
        attempt,
    });
    let resend = prop_oneof![
        4 => Just(Resend::Retry),
        2 => (10..400u64).prop_map(Resend::Hedge),
        1 => Just(Resend::Once),
    ];
    let some = || prop::bool::weighted(0.3);
    let with = (some(), prop::option::weighted(0.3, 1..5usize), some());
    let with = with.prop_map(|(throttle, trial, fallback)| With {
        throttle,
        trial,
        fallback,
    });
    let more = (any::<bool>(), without, resend, with);
    (times, rate, places, breaker, more).prop_map(
        |((total, attempt, attempts, backoff), rate, places, breaker, more)| {
            let (sends_deadline, without, resend, with) = more;
            Settings {
                total,
                attempt,
                attempts,
                backoff,
                rate,
                places: places.0,
                place_wait: places.1,
                consecutive: breaker.0,
                open_for: breaker.1,
                // By hand the timeout of an attempt tells what remains after a wait.
                sends_deadline: sends_deadline && !without.attempt,
                without,
                resend,
                with,
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let takes = prop_oneof![Just(0), 1..50u64, 50..1_500u64];
    let does = prop_oneof![
        4 => Just(Does::Answers),
        2 => Just(Does::Fails),
        1 => (0..3u64).prop_map(Does::FailsFor),
        2 => Just(Does::Breaks),
    ];
    (takes, does).prop_map(|(takes, does)| Step { takes, does })
}

fn call() -> impl Strategy<Value = Call> {
    let often = |time: std::ops::Range<u64>| prop::option::weighted(0.2, time);
    let own = (often(1..2_000), often(1..2_000), often(1..2_000));
    let kind = (0..3_000u64, 0..2usize, prop::bool::weighted(0.8));
    let steps = prop::collection::vec(step(), 1..4);
    (kind, own, often(1..2_000), steps).prop_map(|((at, host, idempotent), own, dropped, steps)| {
        Call {
            at,
            host,
            idempotent,
            deadline: own.0,
            own_total: own.1,
            own_attempt: own.2,
            dropped,
            steps,
        }
    })
}

fn unready() -> impl Strategy<Value = Option<Unready>> {
    let unready = (0..2_000u64, 1..5_000u64).prop_map(|(from, length)| Unready {
        from,
        until: from + length,
    });
    prop::option::weighted(0.3, unready)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_stack_over_http_is_its_layers_by_hand(
        settings in settings(),
        calls in prop::collection::vec(call(), 1..30),
        unready in unready(),
    ) {
        prop_assume!(settings.is_valid());
        let stack = over_http::in_the_stack(settings, &calls, unready);
        let hand = over_http::by_hand(settings, &calls, unready);
        prop_assert_eq!(stack.join("\n"), hand.join("\n"));
    }

    #[test]
    fn a_plain_stack_is_its_layers_by_hand(
        settings in settings(),
        calls in prop::collection::vec(call(), 1..30),
        unready in unready(),
    ) {
        prop_assume!(settings.is_valid());
        let stack = plain::in_the_stack(settings, &calls, unready);
        let hand = plain::by_hand(settings, &calls, unready);
        prop_assert_eq!(stack.join("\n"), hand.join("\n"));
    }

    #[test]
    fn a_servers_stack_is_its_layers_by_hand(
        settings in settings(),
        calls in prop::collection::vec(call(), 1..30),
        unready in unready(),
    ) {
        let stack = server::in_the_stack(settings, &calls, unready);
        let hand = server::by_hand(settings, &calls, unready);
        prop_assert_eq!(stack.join("\n"), hand.join("\n"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_stack_over_grpc_is_its_layers_by_hand(
        settings in settings(),
        calls in prop::collection::vec(call(), 1..30),
        unready in unready(),
    ) {
        prop_assume!(settings.is_valid());
        // Without a total timeout a stack knows a caller's `grpc-timeout` from the start, and by
        // hand each layer reads it for itself.
        prop_assume!(!settings.without.total);
        let stack = over_grpc::in_the_stack(settings, &calls, unready);
        let hand = over_grpc::by_hand(settings, &calls, unready);
        prop_assert_eq!(stack.join("\n"), hand.join("\n"));
    }
}

/// Leaves out the moments of the process's clock, which differ between two runs.
fn without_moments(text: &str) -> String {
    let mut parts = text.split("moment: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| {
        shown + part.trim_start_matches(|letter: char| letter.is_ascii_digit())
    })
}
