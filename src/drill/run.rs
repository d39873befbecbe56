//! Runs: one stack and one seed each, on all cores.

use std::{
    any::Any,
    num::NonZero,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tower::BoxError;

use super::{
    DrillError,
    caller::{Caller, Kind},
    conductor::{Conductor, RequestFn},
    figures::Figures,
    model::Model,
    random::{Purpose, seed_for},
    record::{LayerCounts, Record},
    scenario::Scenario,
    world::World,
};
use crate::{ambient::clock::Stopwatch, observe::Registry, testing};

/// The user's closures.
pub(super) struct Setup<K: Kind> {
    /// The stacks. The first is the user's own, and others are compared with it.
    pub(super) stacks: Vec<(String, MakeStack<K>)>,
    /// The stacks of the other kinds of clients, in the order of their kinds.
    pub(super) beside: Vec<MakeStack<K>>,
    pub(super) asks: Vec<RequestFn<K::Request>>,
    pub(super) handlers: K::Handlers,
}

/// Builds a stack over the upstreams.
pub(super) type MakeStack<K> = Arc<
    dyn Fn(<K as Kind>::Upstream) -> Result<Box<dyn Caller<<K as Kind>::Request>>, BoxError>
        + Send
        + Sync,
>;

/// The stacks of one kind of clients.
type Clients<K> = Vec<Box<dyn Caller<<K as Kind>::Request>>>;

/// Runs that can be run again, whatever their protocol.
pub(super) trait Runs: Send + Sync {
    /// Returns the names of the stacks. The last means no stack.
    fn names(&self) -> Vec<String>;

    /// Runs a stack, by its index among the names.
    ///
    /// # Errors
    /// A stack that does not build, or a call to a name that no upstream has.
    fn run(&self, scenario: &Scenario, stack: usize, seed: u64) -> Result<Record, DrillError> {
        self.run_looking(scenario, stack, seed, None)
    }

    /// Runs it, and reads its circuits at this interval.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn run_looking(
        &self,
        scenario: &Scenario,
        stack: usize,
        seed: u64,
        every: Option<Duration>,
    ) -> Result<Record, DrillError>;
}

/// The figures of all stacks under one seed, in the order of their names.
#[derive(Debug, Clone)]
pub(super) struct SeedRun {
    pub(super) seed: u64,
    pub(super) figures: Vec<Figures>,
}

impl<K: Kind> Setup<K> {
    fn build(
        &self,
        upstream: &K::Upstream,
        (scenario, stack): (&Scenario, usize),
    ) -> Result<Vec<Clients<K>>, DrillError> {
        let Some((_, make)) = self.stacks.get(stack) else {
            return Ok(vec![vec![K::bare(upstream.clone())]]);
        };
        let kinds = [make].into_iter().chain(&self.beside);
        let kinds = kinds.zip(&scenario.crowds).map(|(make, crowd)| {
            let stacks = 0..crowd.stacks();
            let stacks = stacks.map(|_| make(upstream.clone()).map_err(DrillError::Stack));
            stacks.collect()
        });
        kinds.collect()
    }
}

impl<K: Kind> Runs for Setup<K> {
    fn names(&self) -> Vec<String> {
        let names = self.stacks.iter().map(|(name, _)| name.clone());
        names.chain(["no stack".to_owned()]).collect()
    }

    fn run_looking(
        &self,
        scenario: &Scenario,
        stack: usize,
        seed: u64,
        every: Option<Duration>,
    ) -> Result<Record, DrillError> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| DrillError::Stack(error.into()))?;
        let registry = Registry::of_all();
        let run = async {
            let servers = scenario.upstreams.iter();
            let (names, servers) = servers.cloned().unzip();
            // Without a stack nothing chooses among the peers of a balancer.
            let knows_names = stack < self.stacks.len();
            let model = Model::new(servers, scenario.timeline(), seed);
            let world = World::new(model, names, knows_names);
            let (upstream, clients) = registry.with(|| {
                let upstream = K::upstream(world.clone(), &self.handlers);
                let upstream = upstream.map_err(DrillError::Stack)?;
                let clients = self.build(&upstream, (scenario, stack))?;
                Ok::<_, DrillError>((upstream, clients))
            })?;
            let conductor = Conductor::new(world.clone(), (scenario, seed), &clients, &self.asks);
            let conductor = match every {
                Some(every) => conductor.looking(&registry, every),
                None => conductor,
            };
            // The runtime's budget is for one task, but here one task polls all calls.
            let mut record = tokio::task::unconstrained(conductor.run()).await;
            record.counted = LayerCounts::read(&registry);
            K::release(&upstream);
            world.check_names()?;
            Ok(record)
        };
        testing::seeded(seed_for(seed, Purpose::Stack), || runtime.block_on(run))
    }
}

/// Runs all stacks under all seeds, on all cores. The results are in the order of the seeds.
///
/// # Errors
/// A stack does not build, or a call goes to a name that no upstream has.
pub(super) fn run_all(runs: &dyn Runs, scenario: &Scenario) -> Result<Vec<SeedRun>, DrillError> {
    let stacks = runs.names().len();
    run_some(scenario, |seed| {
        let figures = (0..stacks).map(|stack| {
            let record = runs.run(scenario, stack, seed)?;
            Ok(Figures::of(&record, scenario))
        });
        let figures = figures.collect::<Result<_, DrillError>>()?;
        Ok(SeedRun { seed, figures })
    })
}

/// Does something for each seed, until the time is over.
///
/// # Errors
/// The error of the first seed that fails.
///
/// # Panics
/// A seed panics. The message has the seed and the line that runs it alone.
pub(super) fn run_some<T: Send>(
    scenario: &Scenario,
    run: impl Fn(u64) -> Result<T, DrillError> + Sync,
) -> Result<Vec<T>, DrillError> {
    let seeds: Vec<u64> = scenario.seeds.clone().collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(seeds.len()));
    let watch = Stopwatch::start();
    let is_over = || {
        scenario
            .within
            .is_some_and(|within| watch.elapsed() >= within)
    };
    thread::scope(|scope| {
        for _ in 0..cores().min(seeds.len()) {
            scope.spawn(|| {
                loop {
                    // Relaxed: each number is taken once, and nothing else is published.
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = seeds.get(number) else {
                        return;
                    };
                    if number > 0 && is_over() {
                        return;
                    }
                    let result = panic::catch_unwind(AssertUnwindSafe(|| run(*seed)));
                    if result.is_err() {
                        next.store(seeds.len(), Ordering::Relaxed);
                    }
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(number, _)| *number);
    let results = results.into_iter();
    let results = results.map(|(number, result)| match result {
        Ok(result) => result,
        Err(panic) => fail(seeds[number], &*panic),
    });
    results.collect()
}

/// Panics as a seed did. The panic hook has printed the original message with its location.
fn fail(seed: u64, panic: &(dyn Any + Send)) -> ! {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without words");
    let name = test_name();
    panic!("drill: seed {seed} panicked: {text}\n  run it: {SEED}={seed} cargo test{name}")
}

/// Returns the name of the running test as cargo takes it, after a space: the harness names its
/// threads by test. Empty if there is none.
pub(super) fn test_name() -> String {
    match thread::current().name() {
        Some(name) if name != "main" => format!(" {name}"),
        _ => String::new(),
    }
}

pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The environment variable that runs one seed alone.
pub(super) const SEED: &str = "TOWER_KEEP_SEED";
