//! The builder of a drill.

use std::{env, fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use tower::{BoxError, Service};

use super::{
    Body, DrillError, HttpUpstream, IntoRequest, PlainUpstream, Report, Servers, Trouble,
    caller::Kind,
    grpc::Wire,
    http::{Http, http_stack},
    plain::{PlainKind, plain_stack},
    results::Results,
    run::{self, MakeStack, Runs, SEED, Setup},
    scenario::Scenario,
    traffic::{Pattern, recording},
    trouble::Incident,
};
use crate::ambient::clock::Stopwatch;

/// A drill: a stack, its traffic, its upstreams and their troubles.
///
/// Everything has a default except the traffic and the upstreams. [`standard`](Self::standard) sets
/// those too. Nothing runs until [`run`](Self::run).
#[must_use = "nothing happens until `run`"]
pub struct Drill<K: Kind = Http> {
    setup: Setup<K>,
    scenario: Scenario,
}

impl Drill<Http> {
    /// Drills a stack that a closure builds over the upstreams, as an HTTP client. Build everything
    /// in the closure: it is called for each seed and each client. State that is built outside
    /// would be shared by all of them.
    pub fn http<S, B>(
        stack: impl Fn(HttpUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body + 'static,
    {
        Self::new(http_stack(stack), false)
    }

    /// Drills a server: all clients call the one stack that the closure builds over its handler,
    /// which is modelled like an upstream. The clients have no stack.
    pub fn http_server<S, B>(
        stack: impl Fn(HttpUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body + 'static,
    {
        Self::new(http_stack(stack), true)
    }

    /// Drills a stack as a gRPC client, as [`http`](Self::http) does. A modelled upstream answers
    /// with a `grpc-status`. For a [trouble](Trouble::status) it is the status itself up to 16, and
    /// `UNAVAILABLE` for 503. If the queue is full it is `RESOURCE_EXHAUSTED`.
    pub fn grpc<S, B>(
        stack: impl Fn(HttpUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body + 'static,
    {
        let mut drill = Self::http(stack);
        drill.setup.handlers.wire = Wire::Grpc;
        drill
    }

    /// Adds a service of your own that calls others, such as a shop in a chain of shop, stock and
    /// database. Requests to the host `name` go to it. The closure builds it over the upstreams,
    /// with its stacks as a server and as a client. It is called once for each run.
    ///
    /// A tier itself takes no time, only its upstreams do. Requests of the tier to its own name go
    /// to the modelled upstream of that name, so that a server's stack may protect one. When a
    /// caller leaves, the tier's work for it is dropped.
    pub fn tier<S, B>(
        mut self,
        name: impl Into<String>,
        make: impl Fn(HttpUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.setup.handlers.add_tier(name.into(), make);
        self
    }

    /// Adds recorded calls, each with its time from the start of the drill.
    pub fn recorded<R>(self, calls: impl IntoIterator<Item = (Duration, R)>) -> Self
    where
        R: IntoRequest + Clone + Send + Sync + 'static,
    {
        let (moments, request) = recording(calls.into_iter().collect());
        self.traffic(moments, request)
    }

    /// Adds a source of calls. The closure makes the request from its number, from 0. The host of
    /// its URI is the name of the upstream that it goes to. A name that none of several upstreams
    /// has is an error of [`run`](Self::run).
    pub fn traffic<R: IntoRequest>(
        mut self,
        pattern: impl Into<Pattern>,
        request: impl Fn(u64) -> R + Send + Sync + 'static,
    ) -> Self {
        self.scenario.patterns.push((0, pattern.into()));
        let request = move |number| request(number).into_request();
        self.setup.asks.push(Arc::new(request));
        self
    }

    /// Lets your own service, such as an axum `Router`, make the responses of an upstream, in
    /// virtual time. It receives the calls that the modelled [`Servers`] would have answered
    /// successfully. The closure makes a new service for each run. It must open no sockets. A name
    /// that no upstream has is an error.
    pub fn handler<S, B>(
        mut self,
        upstream: impl Into<String>,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.setup.handlers.add(upstream.into(), make);
        self
    }

    /// Adds a stack for comparison: a column `other`, numbered from the second on.
    pub fn against<S, B>(
        self,
        stack: impl Fn(HttpUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body + 'static,
    {
        self.with_other(http_stack(stack))
    }
}

impl<Req: 'static> Drill<PlainKind<Req>> {
    /// Drills a stack for requests of any type. Failures are errors.
    pub fn plain<S>(
        stack: impl Fn(PlainUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Req> + Clone + 'static,
        S::Error: Into<BoxError>,
    {
        Self::new(plain_stack(stack), false)
    }

    /// Drills a server for requests of any type, as [`http_server`](Drill::http_server) does.
    pub fn plain_server<S>(
        stack: impl Fn(PlainUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Req> + Clone + 'static,
        S::Error: Into<BoxError>,
    {
        Self::new(plain_stack(stack), true)
    }

    /// Adds recorded calls, each with its time from the start of the drill.
    pub fn recorded(self, calls: impl IntoIterator<Item = (Duration, Req)>) -> Self
    where
        Req: Clone + Send + Sync,
    {
        let (moments, request) = recording(calls.into_iter().collect());
        self.traffic(moments, request)
    }

    /// Adds a source of calls. The closure makes the request from its number, from 0.
    pub fn traffic(
        mut self,
        pattern: impl Into<Pattern>,
        request: impl Fn(u64) -> Req + Send + Sync + 'static,
    ) -> Self {
        self.scenario.patterns.push((0, pattern.into()));
        self.setup.asks.push(Arc::new(request));
        self
    }

    /// Adds a stack for comparison: a column `other`, numbered from the second on.
    pub fn against<S>(
        self,
        stack: impl Fn(PlainUpstream) -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Req> + Clone + 'static,
        S::Error: Into<BoxError>,
    {
        self.with_other(plain_stack(stack))
    }
}

impl<K: Kind> Drill<K> {
    fn new(stack: MakeStack<K>, is_shared: bool) -> Self {
        let setup = Setup {
            stacks: vec![("stack".into(), stack)],
            beside: Vec::new(),
            asks: Vec::new(),
            handlers: K::Handlers::default(),
        };
        let scenario = Scenario::new(is_shared);
        Self { setup, scenario }
    }

    /// Names the stack that was added last, in the report and for
    /// [`Each::of`](super::Each::of). The first is `stack`.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        if let Some((known, _)) = self.setup.stacks.last_mut() {
            *known = name.into();
        }
        self
    }

    fn with_other(mut self, stack: MakeStack<K>) -> Self {
        let name = match self.setup.stacks.len() {
            1 => "other".to_owned(),
            number => format!("other {number}"),
        };
        self.setup.stacks.push((name, stack));
        self
    }

    /// Adds clients of another kind, with the stack, number, patience and traffic of their own
    /// drill. Its upstreams and troubles are added too, but not its columns and seeds. The report
    /// lists the kinds separately, and [`of_clients`](super::Each::of_clients) asserts one.
    ///
    /// ```
    /// use http::Request;
    /// use tower::Layer;
    /// use tower_keep::{drill::{Bursts, Drill, Measure, Poisson, Servers, secs}, stack};
    ///
    /// let get = |number| Request::get(format!("http://shop/{number}"));
    /// let batch = Drill::http(|upstream| Ok(upstream)) // no stack at all
    ///     .patience(secs(60))
    ///     .traffic(Bursts::of(100).every(secs(5)), get);
    /// let report = Drill::http(|upstream| Ok(stack::client().http().build()?.layer(upstream)))
    ///     .clients(20).lasting(secs(10))
    ///     .traffic(Poisson::per_second(50), get)
    ///     .upstream("shop", Servers::new(8))
    ///     .beside("batch", batch)
    ///     .seeds(0..2)
    ///     .run();
    /// report.each(Measure::Answered).of_clients("batch").at_least(1.0);
    /// ```
    pub fn beside(mut self, name: impl Into<String>, other: Self) -> Self {
        let Self { setup, scenario } = other;
        let first = self.scenario.crowds.len();
        let mut crowds = scenario.crowds;
        crowds[0].name = name.into();
        self.scenario.crowds.extend(crowds);
        let patterns = scenario.patterns.into_iter();
        let patterns = patterns.map(|(crowd, pattern)| (first + crowd, pattern));
        self.scenario.patterns.extend(patterns);
        self.scenario.upstreams.extend(scenario.upstreams);
        self.scenario.incidents.extend(scenario.incidents);
        let stack = setup.stacks.into_iter().take(1).map(|(_, stack)| stack);
        self.setup.beside.extend(stack.chain(setup.beside));
        self.setup.asks.extend(setup.asks);
        K::join(&mut self.setup.handlers, setup.handlers);
        self
    }

    /// Sets the number of clients. Each has its own stack, as processes do, and makes its share of
    /// the calls. Default 1.
    pub fn clients(mut self, clients: usize) -> Self {
        self.scenario.main_mut().clients = clients;
        self
    }

    /// Lets all clients share one stack.
    pub fn shared(mut self) -> Self {
        self.scenario.main_mut().is_shared = true;
        self
    }

    /// Sets how long callers wait for an answer before they leave. Default 10 s, as people do.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.scenario.main_mut().patience = patience;
        self
    }

    /// Sets how long traffic lasts, in virtual time. Default 60 s.
    pub fn lasting(mut self, time: Duration) -> Self {
        self.scenario.lasting = time;
        self
    }

    /// Adds an upstream. Over HTTP its name is a host.
    pub fn upstream(mut self, name: impl Into<String>, servers: Servers) -> Self {
        self.scenario.upstreams.push((name.into(), servers));
        self
    }

    /// Adds a trouble of an upstream, from one moment to another.
    pub fn trouble(
        mut self,
        when: Range<Duration>,
        upstream: impl Into<String>,
        trouble: Trouble,
    ) -> Self {
        self.scenario.incidents.push(Incident {
            from: when.start,
            to: when.end,
            upstream: upstream.into(),
            trouble,
        });
        self
    }

    /// Sets the seeds to run: one run of each stack for each. Default `0..20`. The environment
    /// variable `TOWER_KEEP_SEED`, which failing assertions print, runs that seed alone.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.scenario.seeds = seeds;
        self
    }

    /// Starts no further seed after this real time. The report tells how many were run.
    pub fn within(mut self, time: Duration) -> Self {
        self.scenario.within = Some(time);
        self
    }

    /// Runs all seeds, on all cores.
    ///
    /// # Panics
    /// As [`try_run`](Self::try_run) fails, or as the stack panics.
    #[track_caller]
    pub fn run(self) -> Report {
        match self.try_run() {
            Ok(report) => report,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs all seeds, on all cores.
    ///
    /// # Errors
    /// An invalid setting, or a stack that does not build. A call to a name that none of several
    /// upstreams has.
    pub fn try_run(self) -> Result<Report, DrillError> {
        let (drill, mut scenario) = self.into_parts();
        if let Some(seed) = seed_of_environment()? {
            scenario.seeds = seed..seed.saturating_add(1);
        }
        scenario.check()?;
        let watch = Stopwatch::start();
        let runs = run::run_all(&*drill, &scenario)?;
        Ok(Report(Results {
            drill,
            scenario,
            runs,
            took: watch.elapsed(),
        }))
    }

    pub(super) fn into_parts(self) -> (Arc<dyn Runs>, Scenario) {
        (Arc::new(self.setup), self.scenario)
    }
}

fn seed_of_environment() -> Result<Option<u64>, DrillError> {
    let Ok(seed) = env::var(SEED) else {
        return Ok(None);
    };
    let parsed = seed.parse().map(Some);
    parsed.map_err(|_| DrillError::setting("seeds", format!("`{SEED}` is no number: {seed:?}")))
}

impl<K: Kind> fmt::Debug for Drill<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drill")
            .field("scenario", &self.scenario)
            .finish_non_exhaustive()
    }
}
