//! One run: it makes calls, lets upstreams answer, and records how calls end, all in virtual time.
//!
//! Calls are not tasks. One future polls all of them, in the order of their events, each at its own
//! nanosecond. A task of the runtime would only see whole milliseconds.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{
    agenda::AgendaEvent,
    caller::{CallEnd, Caller, Calling},
    random::{Purpose, Random},
    record::{Asked, LayerCounts, Record},
    scenario::Scenario,
    traffic::Arrivals,
    world::World,
};
use crate::{
    ambient::clock::{self, Clock, nanos},
    observe::Registry,
};

/// A closure that makes the requests of one source.
pub(super) type RequestFn<Req> = Arc<dyn Fn(u64) -> Req + Send + Sync>;

pub(super) struct Conductor<'a, Req> {
    world: World,
    clock: Clock,
    /// The clients of each kind.
    clients: &'a [Vec<Box<dyn Caller<Req>>>],
    sources: Vec<Source<'a, Req>>,
    /// The draws of which client calls.
    random: Random,
    /// The patience of each kind of clients.
    patience: Vec<u64>,
    /// The end of the traffic, in nanoseconds.
    end: u64,
    calls: Vec<Option<RunningCall>>,
    /// The waker of each slot of `calls`.
    wakers: Vec<Waker>,
    free: Vec<usize>,
    running: usize,
    /// The number of sources that still make calls.
    asking: usize,
    ready: Arc<Ready>,
    timer: Pin<Box<Sleep>>,
    /// The registry that is read for a picture, and the interval.
    looks: Option<(Arc<Registry>, u64)>,
    record: Record,
}

struct Source<'a, Req> {
    /// The kind of clients that call.
    crowd: usize,
    arrivals: Arrivals,
    ask: &'a RequestFn<Req>,
    asked: u64,
}

struct RunningCall {
    future: Calling,
    /// Its index in the record.
    number: usize,
}

/// The calls that were woken.
#[derive(Default)]
struct Ready(Mutex<Woken>);

#[derive(Default)]
struct Woken {
    places: Vec<usize>,
    conductor: Option<Waker>,
}

struct WakesCall {
    place: usize,
    ready: Arc<Ready>,
}

impl<'a, Req> Conductor<'a, Req> {
    pub(super) fn new(
        world: World,
        (scenario, seed): (&Scenario, u64),
        clients: &'a [Vec<Box<dyn Caller<Req>>>],
        asks: &'a [RequestFn<Req>],
    ) -> Self {
        let patterns = (0..).zip(&scenario.patterns).zip(asks);
        let sources = patterns.map(|((number, (crowd, pattern)), ask)| Source {
            crowd: *crowd,
            arrivals: Arrivals::new(pattern.clone(), seed, number),
            ask,
            asked: 0,
        });
        let patience = scenario.crowds.iter().map(|crowd| nanos(crowd.patience));
        let mut conductor = Self {
            clock: world.clock(),
            world,
            clients,
            sources: sources.collect(),
            random: Random::new(seed, Purpose::Traffic(u64::MAX >> 2)),
            patience: patience.collect(),
            end: nanos(scenario.lasting),
            calls: Vec::new(),
            wakers: Vec::new(),
            free: Vec::new(),
            running: 0,
            asking: 0,
            ready: Arc::default(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            looks: None,
            record: Record::default(),
        };
        conductor.asking = conductor.sources.len();
        for source in 0..conductor.sources.len() {
            conductor.schedule(source);
        }
        conductor
    }

    /// Reads the circuits of a registry at this interval, as long as there is traffic.
    pub(super) fn looking(mut self, registry: &Arc<Registry>, every: Duration) -> Self {
        self.looks = Some((Arc::clone(registry), nanos(every)));
        self.world.lock().model.agenda.enter(0, AgendaEvent::Look);
        self
    }

    /// Runs until the last call has ended, or one went to a name that no upstream has.
    pub(super) async fn run(mut self) -> Record {
        std::future::poll_fn(|context| self.poll(context)).await;
        let state = self.world.lock();
        let arrivals = state.model.seen().flat_map(|seen| &seen.arrivals);
        self.record.sent = arrivals.copied().collect();
        drop(state);
        self.record.sent.sort_unstable();
        for at in 0..self.record.sent.len() {
            let at = self.record.sent[at];
            self.record.digest([at, 0, 0]);
        }
        std::mem::take(&mut self.record)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // A call that is woken while this runs is polled anyway.
        self.ready.lock().conductor = None;
        loop {
            let now = self.clock.now();
            while let Some((at, event)) = self.next_event(now) {
                self.happen(at, event);
                self.poll_calls(at);
            }
            self.poll_calls(now);
            if (self.running == 0 && self.asking == 0) || self.world.is_lost() {
                return Poll::Ready(());
            }
            let next = self.world.lock().model.agenda.next_at();
            let moment = self.moment(next);
            self.timer.as_mut().reset(moment);
            if self.timer.as_mut().poll(context).is_pending() {
                return self.pause(context.waker());
            }
        }
    }

    fn pause(&self, waker: &Waker) -> Poll<()> {
        let mut woken = self.ready.lock();
        if !woken.places.is_empty() {
            // A call wakes itself again and again, so let other tasks run first.
            waker.wake_by_ref();
        }
        woken.conductor = Some(waker.clone());
        Poll::Pending
    }

    fn moment(&self, next: Option<u64>) -> Instant {
        let next = next.and_then(|at| self.clock.moment(at));
        next.unwrap_or_else(|| clock::later(clock::moment(), Duration::MAX))
    }

    fn next_event(&self, now: u64) -> Option<(u64, AgendaEvent)> {
        self.world.lock().model.agenda.pop(now)
    }

    fn happen(&mut self, at: u64, event: AgendaEvent) {
        match event {
            AgendaEvent::Depart(id) => {
                let woken = self.world.lock().model.depart(id, at);
                woken.into_iter().for_each(Waker::wake);
            }
            AgendaEvent::Change(upstream) => {
                let woken = self.world.lock().model.change(upstream, at);
                woken.into_iter().for_each(Waker::wake);
            }
            AgendaEvent::Ask(source) => self.ask(source, at),
            AgendaEvent::Look => self.look(at),
            AgendaEvent::Leave { place, number } => {
                let held = self.calls[place].as_ref();
                if held.is_some_and(|call| call.number as u64 == number) {
                    self.finish(place, CallEnd::Left, at);
                }
            }
        }
    }

    fn look(&mut self, at: u64) {
        if let Some((registry, every)) = &self.looks {
            self.record.open.push(LayerCounts::open_circuits(registry));
            let next = at.saturating_add(*every);
            if next < self.end {
                self.world
                    .lock()
                    .model
                    .agenda
                    .enter(next, AgendaEvent::Look);
            }
        }
    }

    /// Makes a call of a source, and schedules the next.
    fn ask(&mut self, source_number: usize, at: u64) {
        let source = &mut self.sources[source_number];
        let request = (source.ask)(source.asked);
        source.asked += 1;
        // In the column without a stack, one client serves all kinds.
        let crowd = source.crowd;
        let clients = &self.clients[crowd.min(self.clients.len() - 1)];
        let client = &clients[self.random.below(clients.len())];
        self.world.lock().polling_at = Some(at);
        let future = client.call(request);
        self.world.lock().polling_at = None;
        let place = self.free.pop().unwrap_or_else(|| self.new_place());
        let number = self.record.asked.len();
        self.record.asked.push(Asked {
            crowd,
            at,
            took: 0,
            end: CallEnd::Unfinished,
        });
        self.calls[place] = Some(RunningCall { future, number });
        self.running += 1;
        self.ready.lock().places.push(place);
        let leaves = at.saturating_add(self.patience[crowd]);
        let number = number as u64;
        let leave = AgendaEvent::Leave { place, number };
        self.world.lock().model.agenda.enter(leaves, leave);
        self.schedule(source_number);
    }

    fn new_place(&mut self) -> usize {
        let (place, ready) = (self.calls.len(), self.ready.clone());
        self.calls.push(None);
        self.wakers
            .push(Waker::from(Arc::new(WakesCall { place, ready })));
        place
    }

    /// Schedules the next call of a source.
    fn schedule(&mut self, number: usize) {
        let mut state = self.world.lock();
        let at = self.sources[number].arrivals.next(state.model.timeline());
        if at < self.end {
            state.model.agenda.enter(at, AgendaEvent::Ask(number));
        } else {
            self.asking -= 1;
        }
    }

    /// Polls the calls that were woken, and those that these wake, at one moment.
    fn poll_calls(&mut self, at: u64) {
        for _ in 0..ROUNDS {
            let places = std::mem::take(&mut self.ready.lock().places);
            if places.is_empty() {
                return;
            }
            for place in places {
                self.poll_call(place, at);
            }
        }
    }

    fn poll_call(&mut self, place: usize, at: u64) {
        // The call may have ended since it was woken.
        let Some(call) = self.calls[place].as_mut() else {
            return;
        };
        self.world.lock().polling_at = Some(at);
        let mut context = Context::from_waker(&self.wakers[place]);
        let polled = call.future.as_mut().poll(&mut context);
        self.world.lock().polling_at = None;
        if let Poll::Ready(end) = polled {
            self.finish(place, end, at);
        }
    }

    fn finish(&mut self, place: usize, end: CallEnd, at: u64) {
        let Some(call) = self.calls[place].take() else {
            return;
        };
        let asked = &mut self.record.asked[call.number];
        asked.took = at.saturating_sub(asked.at);
        asked.end = end;
        self.record.digest([call.number as u64, at, end.code()]);
        self.free.push(place);
        self.running -= 1;
        // Layers and upstream see the drop at this moment.
        self.world.lock().polling_at = Some(at);
        drop(call);
        self.world.lock().polling_at = None;
    }
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, Woken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for WakesCall {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut woken = self.ready.lock();
        woken.places.push(self.place);
        let conductor = woken.conductor.take();
        drop(woken);
        if let Some(conductor) = conductor {
            conductor.wake();
        }
    }
}

/// The rounds in which calls that wake each other are polled at one moment, before other tasks run.
const ROUNDS: usize = 64;

#[cfg(test)]
mod tests;
