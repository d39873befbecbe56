//! How long after an outage a fleet of clients is without answers, by how their circuits open.
//!
//! A server does one call after the other, 1000 a second, in order of arrival, those of callers who
//! have left too. For some seconds it is half as fast. Each client has a circuit of its own, and
//! gives up on a call after 100 ms. The question is how long after the trouble all calls are
//! answered again: without circuits the server works on a queue of calls that nobody waits for, and
//! circuits that stay open are an outage of their own.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "figures of a simulation, of which the test uses a part"
)]

use std::{collections::VecDeque, time::Duration};

use tower_keep::{
    Outcome,
    algorithm::{
        Backoff, Breaker, BreakerConfig, Budget, Jitter, Pass, RetryBudget, WindowedBudget,
    },
    stack,
};

use super::events::{Events, MS, Random, SECOND};

/// One setting.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) clients: usize,
    /// Calls a second, of the 1000 that the server can do.
    pub(crate) load: f64,
    /// For how many seconds the server is half as fast.
    pub(crate) trouble: usize,
    /// `None`: the clients have no circuits.
    pub(crate) circuit: Option<BreakerConfig>,
    pub(crate) retries: Retries,
    pub(crate) seed: u64,
}

/// Whether calls that fail are sent again, and what pays for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retries {
    None,
    /// Three times, with full jitter: nothing else bounds them.
    Unbounded,
    /// The same, paid for by a fifth of the calls and ten a second besides.
    Windowed,
    /// Twice, by a budget of ten that each success fills by a tenth, with the layer's backoff.
    Funded,
    /// The same with the layer's own budget, which keeps no more than the traffic has paid lately.
    Layer,
}

/// How a fleet came through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovery {
    /// `None` if that is not within two minutes.
    pub(crate) seconds: Option<usize>,
    /// Attempts for each call, during the trouble.
    pub(crate) amplification: f64,
}

enum Event {
    Arrival,
    /// A client asks once more for the call that was this one.
    Again(usize),
    GivesUp(usize),
    /// The server is done with this call.
    Done(usize),
}

struct Client {
    circuit: Option<Breaker>,
    budget: Option<Budget>,
    successes: u64,
}

struct Call {
    client: usize,
    attempt: u32,
    asked: u64,
    /// What the circuit wants back; gone when the client has its answer, or has given up.
    waits: Option<Option<Pass>>,
}

struct Fleet {
    case: Case,
    clients: Vec<Client>,
    backoff: Backoff,
    queue: VecDeque<usize>,
    is_working: bool,
    calls: Vec<Call>,
    events: Events<Event>,
    random: Random,
}

/// Circuits to compare: the pattern's default opens for 30 s.
pub(crate) fn circuits() -> Vec<(&'static str, Option<BreakerConfig>)> {
    let open = |first: u64, most: u64| {
        let mut config = BreakerConfig::default();
        config.open_for = Duration::from_secs(first);
        config.growing = most > first;
        config.max_open = config.growing.then_some(Duration::from_secs(most));
        Some(config)
    };
    vec![
        ("no circuits", None),
        ("30 s", open(30, 30)),
        ("5 s", open(5, 5)),
        ("1 s", open(1, 1)),
        ("1 s, growing to 30 s", open(1, 30)),
        ("as a client's stack", Some(of_the_stack())),
    ]
}

/// Retries to compare.
pub(crate) fn retries() -> [(&'static str, Retries); 5] {
    [
        ("none", Retries::None),
        ("three, no budget", Retries::Unbounded),
        (
            "three, a windowed budget of 20 % and 10/s",
            Retries::Windowed,
        ),
        ("two, a budget of 10", Retries::Funded),
        ("two, the layer's own budget", Retries::Layer),
    ]
}

/// What `stack::client()` has for a circuit.
pub(crate) fn of_the_stack() -> BreakerConfig {
    let stack = stack::client().http().build().unwrap();
    stack.handle().circuit_breaker.shared().config()
}

impl Case {
    pub(crate) fn new(
        clients: usize,
        load: f64,
        circuit: Option<BreakerConfig>,
        retries: Retries,
    ) -> Self {
        Self {
            clients,
            load,
            trouble: TROUBLES[0],
            circuit,
            retries,
            seed: 1,
        }
    }

    /// Without circuits.
    pub(crate) fn of_ten_seconds(clients: usize, load: f64, retries: Retries) -> Self {
        Self {
            trouble: 10,
            ..Self::new(clients, load, None, retries)
        }
    }
}

/// Seconds after the trouble until 95 % of the calls are answered in time for three seconds; `None`
/// if that is not within two minutes.
pub(crate) fn seconds_to_recover(case: &Case) -> Option<usize> {
    recovery(case).seconds
}

/// How the fleet comes through that.
pub(crate) fn recovery(case: &Case) -> Recovery {
    let mut fleet = Fleet::new(case.clone());
    let end = START + case.trouble + PATIENCE;
    let mut answered = vec![0u64; end];
    let trouble = START..START + case.trouble;
    let (mut calls, mut attempts) = (0, 0);
    while let Some((now, event)) = fleet.events.next() {
        let second = usize::try_from(now / SECOND).unwrap();
        if second >= end {
            break;
        }
        if trouble.contains(&second) {
            calls += u64::from(matches!(event, Event::Arrival));
            attempts += u64::from(matches!(event, Event::Arrival | Event::Again(_)));
        }
        match event {
            Event::Arrival => fleet.arrive(now),
            Event::Again(call) => fleet.ask_again(call, now),
            Event::GivesUp(call) => fleet.give_up(call, now),
            Event::Done(call) => answered[second] += u64::from(fleet.done(call, now)),
        }
    }
    let good = 0.95 * 1000.0 * case.load;
    let seconds = answered[trouble.end..]
        .windows(3)
        .position(|seconds| seconds.iter().all(|answered| *answered as f64 >= good));
    Recovery {
        seconds,
        amplification: attempts as f64 / calls as f64,
    }
}

/// The mean over troubles of several lengths, and how many of them did not end.
pub(crate) fn mean_over_troubles(case: &Case) -> (f64, usize) {
    let recoveries = TROUBLES.map(|trouble| {
        seconds_to_recover(&Case {
            trouble,
            ..case.clone()
        })
    });
    let never = recoveries.iter().filter(|time| time.is_none()).count();
    let seconds = recoveries.map(|time| time.unwrap_or(PATIENCE) as f64);
    (seconds.iter().sum::<f64>() / seconds.len() as f64, never)
}

impl Retries {
    fn most(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Unbounded | Self::Windowed => 3,
            Self::Funded | Self::Layer => 2,
        }
    }

    fn budget(self) -> Option<Budget> {
        match self {
            Self::None | Self::Unbounded => None,
            Self::Windowed => {
                let ttl = Duration::from_secs(10);
                Some(WindowedBudget::new(ttl, 0.2, 10).unwrap().into())
            }
            Self::Funded | Self::Layer => Some(RetryBudget::new(10, 0.1).unwrap().into()),
        }
    }

    fn backoff(self) -> Backoff {
        match self {
            Self::None | Self::Funded | Self::Layer => Backoff::default(),
            Self::Unbounded | Self::Windowed => {
                let second = Duration::from_secs(1);
                Backoff::new(second / 100, second, Jitter::Full).unwrap()
            }
        }
    }
}

impl Client {
    fn withdraw(&self, retries: Retries, now: u64) -> bool {
        let Some(budget) = &self.budget else {
            return true;
        };
        if retries == Retries::Layer {
            budget.expire(self.successes, now);
        }
        budget.withdraw(now)
    }

    fn succeeded(&mut self) {
        self.successes += 1;
        if let Some(budget) = &self.budget {
            budget.succeeded();
        }
    }
}

impl Fleet {
    fn new(case: Case) -> Self {
        let clients = (0..case.clients).map(|number| {
            let circuit = case.circuit.as_ref();
            let circuit = circuit.map(|config| Breaker::new(config, 1, number as u64).unwrap());
            Client {
                circuit,
                budget: case.retries.budget(),
                successes: 0,
            }
        });
        let backoff = case.retries.backoff();
        let mut fleet = Self {
            clients: clients.collect(),
            backoff,
            queue: VecDeque::new(),
            is_working: false,
            calls: Vec::new(),
            events: Events::new(),
            random: Random::new(case.seed),
            case,
        };
        fleet.events.plan(0, Event::Arrival);
        fleet
    }

    fn arrive(&mut self, now: u64) {
        let gap = SECOND as f64 / (1000.0 * self.case.load);
        let gap = self.random.exponential(gap).max(1);
        self.events.plan(now + gap, Event::Arrival);
        let client = self.random.word() as usize % self.clients.len();
        if let Some(budget) = &self.clients[client].budget {
            budget.called(now);
        }
        self.ask(client, 0, now);
    }

    fn ask(&mut self, client: usize, attempt: u32, now: u64) {
        let mut pass = None;
        if let Some(circuit) = &self.clients[client].circuit {
            match circuit.admit(0, now).0 {
                Ok(admitted) => pass = Some(admitted),
                Err(_) => return,
            }
        }
        let call = self.calls.len();
        self.calls.push(Call {
            client,
            attempt,
            asked: now,
            waits: Some(pass),
        });
        self.queue.push_back(call);
        self.events.plan(now + TIMEOUT, Event::GivesUp(call));
        self.work(now);
    }

    fn ask_again(&mut self, call: usize, now: u64) {
        let Call {
            client, attempt, ..
        } = self.calls[call];
        self.ask(client, attempt + 1, now);
    }

    fn give_up(&mut self, call: usize, now: u64) {
        if !self.answer(call, Outcome::Failure, now) {
            return;
        }
        let Call {
            client, attempt, ..
        } = self.calls[call];
        let may_retry = attempt < self.case.retries.most();
        if may_retry && self.clients[client].withdraw(self.case.retries, now) {
            let delay = self
                .backoff
                .delay(attempt, self.backoff.base(), self.random.word());
            let delay = u64::try_from(delay.as_nanos()).unwrap();
            self.events.plan(now + delay, Event::Again(call));
        }
    }

    /// Whether the client was still there.
    fn done(&mut self, call: usize, now: u64) -> bool {
        self.is_working = false;
        self.work(now);
        let in_time = now + NETWORK <= self.calls[call].asked + TIMEOUT;
        let answered = in_time && self.answer(call, Outcome::Success, now);
        if answered {
            self.clients[self.calls[call].client].succeeded();
        }
        answered
    }

    /// Whether the client still waited for it.
    fn answer(&mut self, call: usize, outcome: Outcome, now: u64) -> bool {
        let Some(pass) = self.calls[call].waits.take() else {
            return false;
        };
        let circuit = &self.clients[self.calls[call].client].circuit;
        if let (Some(circuit), Some(pass)) = (circuit, pass) {
            circuit.record(pass, outcome, None, 0, now);
        }
        true
    }

    fn work(&mut self, now: u64) {
        if self.is_working {
            return;
        }
        let Some(call) = self.queue.pop_front() else {
            return;
        };
        self.is_working = true;
        let trouble = START..START + self.case.trouble;
        let is_slow = trouble.contains(&usize::try_from(now / SECOND).unwrap());
        let mean = if is_slow { 2 * MS } else { MS };
        let time = self.random.exponential(mean as f64);
        self.events.plan(now + time, Event::Done(call));
    }
}

const TIMEOUT: u64 = 100 * MS;
/// There and back.
const NETWORK: u64 = 5 * MS;
/// When the trouble begins, in seconds.
const START: usize = 20;
pub(crate) const TROUBLES: [usize; 5] = [7, 10, 20, 30, 60];
/// How long is watched after the trouble, in seconds.
const PATIENCE: usize = 120;
