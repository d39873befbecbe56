//! Bulkheads with a queue against a plain model: a list of calls that run, and one of those that
//! wait.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::pending};
use proptest::{prelude::*, sample::Index};
use tokio::time::advance;
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::bulkhead::BulkheadLayer;

const WAIT: Duration = Duration::from_millis(100);
const MAX_WAITING: usize = 4;
const KEYS: usize = 3;

/// A call's key, and its number.
type Ask = (usize, usize);
type Call = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

#[derive(Debug, Clone)]
enum Step {
    Start(usize),
    /// Ends some of the calls that run, all before a waiter polls.
    End(Vec<Index>),
    Cancel(Index),
    Advance(u64),
    /// Of the limit, or of the total.
    Change(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..KEYS).prop_map(Step::Start),
        3 => prop::collection::vec(any::<Index>(), 1..3).prop_map(Step::End),
        1 => any::<Index>().prop_map(Step::Cancel),
        1 => (1u64..40).prop_map(Step::Advance),
        1 => (2usize..7).prop_map(Step::Change),
    ];
    prop::collection::vec(step, 1..80)
}

/// What should happen.
#[derive(Debug)]
struct Model {
    share: usize,
    /// Without one there is one key, and its share is the limit.
    total: Option<usize>,
    running: Vec<Ask>,
    /// By arrival, with the milliseconds at which they give up.
    waiting: Vec<(Ask, u64)>,
    now: u64,
}

impl Model {
    fn of(&self, key: usize) -> usize {
        self.running.iter().filter(|ask| ask.0 == key).count()
    }

    fn start(&mut self, ask: Ask) {
        let waits = self
            .waiting
            .iter()
            .filter(|(other, _)| other.0 == ask.0)
            .count();
        let entitled = waits == 0 && self.of(ask.0) < self.share;
        let room = self.waiting.is_empty() && self.has_room();
        if entitled || room {
            self.running.push(ask);
        } else if waits < MAX_WAITING {
            self.waiting.push((ask, self.now + 100));
        }
    }

    fn has_room(&self) -> bool {
        self.total.is_some_and(|total| self.running.len() < total)
    }

    /// Lets those in that wait: for the share of their key first, and then for the total.
    fn settle(&mut self) {
        let entitled = |model: &Self| {
            let below = |(ask, _): &(Ask, u64)| model.of(ask.0) < model.share;
            model.waiting.iter().position(below)
        };
        while let Some(next) = entitled(self).or_else(|| {
            let room = self.has_room() && !self.waiting.is_empty();
            room.then_some(0)
        }) {
            let (ask, _) = self.waiting.remove(next);
            self.running.push(ask);
        }
    }

    fn end(&mut self, ask: Ask) {
        self.running.retain(|other| *other != ask);
        self.settle();
    }
}

/// What does happen.
struct Real {
    service: BoxCloneSyncService<Ask, (), BoxError>,
    arrived: Arc<Mutex<Vec<Ask>>>,
    /// Those that run or wait.
    calls: Vec<(Ask, Call)>,
    /// Changes the limit, or the total.
    change: Box<dyn Fn(usize)>,
    /// How many run, and how many wait.
    counts: Box<dyn Fn() -> (usize, usize)>,
}

type Hangs = fn(Arc<Mutex<Vec<Ask>>>) -> BoxCloneSyncService<Ask, (), BoxError>;

fn hangs(arrived: Arc<Mutex<Vec<Ask>>>) -> BoxCloneSyncService<Ask, (), BoxError> {
    BoxCloneSyncService::new(service_fn(move |ask: Ask| {
        arrived.lock().unwrap().push(ask);
        pending::<Result<(), BoxError>>()
    }))
}

fn alone(limit: usize) -> Real {
    let builder = BulkheadLayer::builder(limit).max_wait(WAIT);
    let layer = builder.max_waiting(MAX_WAITING).always_in_order();
    let layer = layer.build().unwrap();
    let (handle, change) = (layer.handle(), layer.handle());
    let arrived = Arc::default();
    Real {
        service: BoxCloneSyncService::new(layer.layer((hangs as Hangs)(Arc::clone(&arrived)))),
        arrived,
        calls: Vec::new(),
        change: Box::new(move |limit| drop(change.set_limit(limit).unwrap())),
        counts: Box::new(move || {
            let now = handle.snapshot();
            (now.in_flight, now.waiting)
        }),
    }
}

fn shares(share: usize, total: usize) -> Real {
    let builder = BulkheadLayer::builder(share).max_wait(WAIT);
    let layer = builder.max_waiting(MAX_WAITING).always_in_order();
    let layer = layer
        .keyed_by(|ask: &Ask| Some(ask.0))
        .within(total)
        .build()
        .unwrap();
    let (handle, change) = (layer.handle(), layer.handle());
    let arrived = Arc::default();
    Real {
        service: BoxCloneSyncService::new(layer.layer(hangs(Arc::clone(&arrived)))),
        arrived,
        calls: Vec::new(),
        change: Box::new(move |total| drop(change.set_total(total).unwrap())),
        counts: Box::new(move || {
            let keys = handle.keys().into_iter().map(|(_, key)| key.snapshot());
            let waiting = keys.map(|now| now.waiting).sum();
            (handle.total().unwrap().0, waiting)
        }),
    }
}

impl Real {
    /// Polls until nothing changes: a place that was given twice goes on to the next.
    fn poll(&mut self) {
        loop {
            let before = (self.calls.len(), self.arrived.lock().unwrap().len());
            self.calls
                .retain_mut(|(_, call)| call.as_mut().now_or_never().is_none());
            if before == (self.calls.len(), self.arrived.lock().unwrap().len()) {
                return;
            }
        }
    }

    fn drop_call(&mut self, ask: Ask) {
        self.calls.retain(|(other, _)| *other != ask);
    }

    fn running(&self) -> Vec<Ask> {
        let arrived = self.arrived.lock().unwrap();
        let runs = |ask: &Ask| self.calls.iter().any(|(other, _)| other == ask);
        let mut running: Vec<_> = arrived.iter().copied().filter(runs).collect();
        running.sort_unstable();
        running
    }
}

async fn run(mut real: Real, mut model: Model, steps: Vec<Step>) -> Result<(), TestCaseError> {
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Start(key) => {
                let key = if model.total.is_some() { key } else { 0 };
                let call = real.service.clone().oneshot((key, number));
                real.calls.push(((key, number), Box::pin(call)));
                model.start((key, number));
            }
            Step::End(ended) => {
                for index in ended {
                    if !model.running.is_empty() {
                        let running = real.running();
                        if running.is_empty() {
                            break;
                        }
                        let ask = running[index.index(running.len())];
                        real.drop_call(ask);
                        model.end(ask);
                    }
                }
            }
            Step::Cancel(index) if !model.waiting.is_empty() => {
                let ask = model.waiting.remove(index.index(model.waiting.len())).0;
                real.drop_call(ask);
            }
            Step::Cancel(_) => {}
            Step::Advance(millis) => {
                advance(Duration::from_millis(millis)).await;
                model.now += millis;
                model.waiting.retain(|(_, until)| *until >= model.now);
            }
            Step::Change(limit) => {
                (real.change)(limit);
                match &mut model.total {
                    Some(total) => *total = limit,
                    None => model.share = limit,
                }
                model.settle();
            }
        }
        real.poll();
        model.running.sort_unstable();
        prop_assert_eq!(&real.running(), &model.running);
        prop_assert_eq!((real.counts)(), (model.running.len(), model.waiting.len()));
    }
    real.calls.clear();
    prop_assert_eq!((real.counts)(), (0, 0));
    Ok(())
}

fn check(
    real: impl FnOnce() -> Real,
    (share, total): (usize, Option<usize>),
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let model = Model {
        share,
        total,
        running: Vec::new(),
        waiting: Vec::new(),
        now: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { run(real(), model, steps).await })
}

proptest! {
    #[test]
    fn a_limit_and_its_queue_do_as_a_plain_model(limit in 1usize..5, steps in steps()) {
        check(|| alone(limit), (limit, None), steps)?;
    }

    #[test]
    fn shares_of_a_total_do_as_a_plain_model(
        share in 1usize..3, more in 0usize..5, steps in steps(),
    ) {
        let total = share + more;
        check(|| shares(share, total), (share, Some(total)), steps)?;
    }
}
