//! The replay: recorded calls run through the algorithms of production.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io, thread,
};

use crate::{
    ConfigError, Outcome,
    algorithm::{Breaker, BreakerState, InFlight, Pass, RetryBudget, Transition},
    replay::{
        call::{Call, End},
        limit::Limit,
        moments::SECOND,
        sorted::Calls,
        survey::Survey,
        tally::{Days, Replayed, Tally},
        thresholds::{RetryThreshold, Thresholds},
    },
};

/// The assumption about the upstream's reaction, which a replay cannot know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Upstream {
    /// Every call is answered as recorded, however much load was spared, and a retry fails like the
    /// attempt before it. This is the lower bound of the benefit.
    #[default]
    AsItWas,
    /// The upstream recovers as soon as a circuit has opened in an incident, and a retry succeeds.
    /// This is the upper bound.
    Relieved,
}

/// Replays a log under several sets of thresholds, on two threads.
///
/// # Errors
/// Thresholds that `build` would reject, or temporary files fail.
pub fn replay(
    calls: &Calls,
    survey: &Survey,
    upstream: Upstream,
    candidates: &[Thresholds],
) -> io::Result<Vec<Replayed>> {
    let mut runs = Vec::new();
    for thresholds in candidates {
        let run = ReplayRun::new(survey, upstream, thresholds);
        runs.push(run.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?);
    }
    // Alternating, so that the expensive runs, with many calls in flight, are on both threads.
    let mut parts = [Vec::new(), Vec::new()];
    for (number, run) in runs.iter_mut().enumerate() {
        parts[number % 2].push(run);
    }
    thread::scope(|scope| {
        let threads = parts.map(|mut part| {
            scope.spawn(move || {
                calls.each(&mut |call| part.iter_mut().for_each(|run| run.see(call)))
            })
        });
        let mut results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.try_for_each(|result| result)
    })?;
    Ok(runs.into_iter().map(ReplayRun::finish).collect())
}

/// One set of thresholds during its replay of a log.
struct ReplayRun<'a> {
    survey: &'a Survey,
    upstream: Upstream,
    thresholds: Thresholds,
    limit: Option<Limit>,
    places: Option<InFlight>,
    budget: Option<(RetryThreshold, RetryBudget)>,
    circuits: Vec<Circuit>,
    by_host: HashMap<u32, usize>,
    /// The calls in flight, by their ends, and their slots.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    flying: Vec<Option<Flying>>,
    free: Vec<usize>,
    days: Days,
    keys: HashMap<u64, u64>,
}

/// A call that was admitted.
struct Flying {
    end: End,
    circuit: Option<(usize, Pass)>,
}

struct Circuit {
    breaker: Breaker,
    /// Its host in the survey.
    host: Option<usize>,
    /// The time at which it left the closed state, if it has.
    opened: Option<u64>,
    /// The time at which each incident was noticed, if it was.
    noticed: Vec<Option<u64>>,
}

impl<'a> ReplayRun<'a> {
    fn new(
        survey: &'a Survey,
        upstream: Upstream,
        thresholds: &Thresholds,
    ) -> Result<Self, ConfigError> {
        if let Some(config) = &thresholds.circuit {
            Breaker::new(config, 1, 0)?;
        }
        let limit = thresholds.rate.map(|rate| Limit::new(&rate)).transpose()?;
        let budget = thresholds.retry.map(|retry| {
            let budget = RetryBudget::new(retry.capacity, retry.ratio)?;
            Ok::<_, ConfigError>((retry, budget))
        });
        Ok(Self {
            survey,
            upstream,
            thresholds: thresholds.clone(),
            limit,
            places: thresholds.places.map(InFlight::new),
            budget: budget.transpose()?,
            circuits: Vec::new(),
            by_host: HashMap::new(),
            ends: BinaryHeap::new(),
            flying: Vec::new(),
            free: Vec::new(),
            days: Days::default(),
            keys: HashMap::new(),
        })
    }

    /// Returns the time as the algorithms count it: the log begins an hour after their start.
    fn now(&self, nanos: u64) -> u64 {
        nanos
            .saturating_sub(self.survey.first)
            .saturating_add(3600 * SECOND)
    }

    fn day(&mut self, nanos: u64) -> &mut Tally {
        self.days.at(nanos)
    }

    fn see(&mut self, call: &Call) {
        self.settle(call.start);
        let mut call = *call;
        let circuit = self.circuit_of(call.host);
        if let Some(number) = circuit {
            self.relieve(number, &mut call);
        }
        let tally = self.day(call.start);
        tally.calls += 1;
        tally.good += u64::from(call.is_good());
        tally.bad += u64::from(call.is_bad());
        match self.admit(&call, circuit) {
            Some(pass) => self.send(call, circuit.zip(pass)),
            None => self.reject(&call),
        }
    }

    /// Asks the gates in a stack's order. `None` is a rejection, `Some(None)` an admission that no
    /// circuit sees.
    #[expect(clippy::option_option, reason = "a rejection, or what a circuit gave")]
    fn admit(&mut self, call: &Call, circuit: Option<usize>) -> Option<Option<Pass>> {
        let now = self.now(call.start);
        let mut pass = None;
        if let Some(number) = circuit {
            let (decision, transition) = self.circuits[number].breaker.admit(0, now);
            if let Some(transition) = transition {
                self.changed(number, &transition, call.start);
            }
            pass = Some(decision.ok()?);
        }
        let (limit, places) = (self.limit.as_ref(), self.places.as_ref());
        if limit.is_none_or(|limit| limit.admits(call, now)) {
            if places.is_none_or(InFlight::enter) {
                return Some(pass);
            }
            limit.inspect(|limit| limit.give_back(call, now));
        }
        if let (Some(number), Some(pass)) = (circuit, pass) {
            // Rejected further in, which says nothing about the upstream.
            let circuit = &self.circuits[number].breaker;
            circuit.record(pass, Outcome::Ignore, None, 0, now);
        }
        None
    }

    fn send(&mut self, mut call: Call, circuit: Option<(usize, Pass)>) {
        if let Some(timeout) = self.thresholds.timeout {
            let longest = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            if call.duration >= longest && (call.is_good() || call.is_bad()) {
                let (was_good, beyond) = (call.is_good(), call.duration - longest);
                let tally = self.day(call.start);
                tally.lost_good += u64::from(was_good);
                tally.cut_bad += u64::from(!was_good);
                tally.saved += beyond;
                call.duration = longest;
                call.end = End::Failure;
            }
        }
        if self.places.is_none() && self.budget.is_none() && circuit.is_none() {
            return;
        }
        let flying = Some(Flying {
            end: call.end,
            circuit,
        });
        let place = match self.free.pop() {
            Some(place) => {
                self.flying[place] = flying;
                place
            }
            None => {
                self.flying.push(flying);
                self.flying.len() - 1
            }
        };
        self.ends.push(Reverse((call.ended(), place)));
    }

    /// Ends all calls whose end is at or before a time.
    fn settle(&mut self, until: u64) {
        while let Some(Reverse((at, place))) = self.ends.peek().copied() {
            if at > until {
                return;
            }
            self.ends.pop();
            self.free.push(place);
            if let Some(flying) = self.flying[place].take() {
                self.end(flying, at);
            }
        }
    }

    fn end(&mut self, flying: Flying, at: u64) {
        if let Some(places) = &self.places {
            places.leave();
        }
        if let Some((number, pass)) = flying.circuit {
            let now = self.now(at);
            let breaker = &self.circuits[number].breaker;
            let transition = match flying.end {
                End::Success => breaker.record(pass, Outcome::Success, None, 0, now),
                End::Failure => breaker.record(pass, Outcome::Failure, None, 0, now),
                End::Overload => breaker.record(pass, Outcome::Overload, None, 0, now),
                End::Cancelled => breaker.abandon(pass, 0, now),
                End::Rejected => breaker.record(pass, Outcome::Ignore, None, 0, now),
            };
            if let Some(transition) = transition {
                self.changed(number, &transition, at);
            }
        }
        self.pay(flying.end, at);
    }

    fn pay(&mut self, end: End, at: u64) {
        let Some((retry, budget)) = &self.budget else {
            return;
        };
        let (mut granted, mut denied) = (0, 0);
        match end {
            End::Success => budget.deposit(),
            End::Failure | End::Overload => {
                for _ in 1..retry.attempts {
                    if !budget.withdraw() {
                        denied += 1;
                        break;
                    }
                    granted += 1;
                    if self.upstream == Upstream::Relieved {
                        budget.deposit();
                        break;
                    }
                }
            }
            End::Cancelled | End::Rejected => {}
        }
        let tally = self.day(at);
        tally.retries += granted;
        tally.retries_denied += denied;
    }

    fn reject(&mut self, call: &Call) {
        let (good, bad) = (call.is_good(), call.is_bad());
        let tally = self.day(call.start);
        tally.rejected_good += u64::from(good);
        tally.rejected_bad += u64::from(bad);
        tally.rejected_other += u64::from(!good && !bad);
        if call.key != 0 && (self.keys.len() < TRACKED || self.keys.contains_key(&call.key)) {
            *self.keys.entry(call.key).or_default() += 1;
        }
    }

    fn circuit_of(&mut self, host: u32) -> Option<usize> {
        let config = self.thresholds.circuit.as_ref()?;
        if let Some(number) = self.by_host.get(&host) {
            return Some(*number);
        }
        let number = self.circuits.len();
        // The last slot is shared by all later hosts.
        if number >= HOSTS {
            return Some(number - 1);
        }
        let found = self.survey.hosts.iter().position(|one| one.host == host);
        let incidents = found.map_or(0, |place| self.survey.hosts[place].incidents.len());
        self.circuits.push(Circuit {
            breaker: Breaker::new(config, 1, u64::from(host)).ok()?,
            host: found,
            opened: None,
            noticed: vec![None; incidents],
        });
        self.by_host.insert(host, number);
        Some(number)
    }

    /// Makes a call of a recovered upstream a success once its incident was noticed.
    fn relieve(&self, number: usize, call: &mut Call) {
        let circuit = &self.circuits[number];
        let (Upstream::Relieved, Some(host), true) = (self.upstream, circuit.host, call.is_bad())
        else {
            return;
        };
        let incident = self.survey.hosts[host].incident_at(call.start, 0);
        if incident.is_some_and(|number| circuit.noticed[number].is_some()) {
            call.end = End::Success;
        }
    }

    fn changed(&mut self, number: usize, transition: &Transition, at: u64) {
        match (transition.from, transition.to) {
            (BreakerState::Closed, BreakerState::Open) => self.tripped(number, at),
            (_, BreakerState::Closed) => {
                if let Some(since) = self.circuits[number].opened.take() {
                    self.day(since).open += at.saturating_sub(since);
                }
            }
            _ => {}
        }
    }

    fn tripped(&mut self, number: usize, at: u64) {
        let circuit = &mut self.circuits[number];
        circuit.opened.get_or_insert(at);
        let host = circuit.host.map(|host| &self.survey.hosts[host]);
        let found = host.and_then(|host| {
            let incident = host.incident_at(at, GRACE)?;
            Some((incident, host.incidents[incident].from))
        });
        let mut noticed = None;
        if let Some((incident, from)) = found {
            let first = &mut circuit.noticed[incident];
            noticed = first.is_none().then(|| at.saturating_sub(from));
            first.get_or_insert(at);
        }
        let tally = self.day(at);
        tally.trips += 1;
        tally.false_trips += u64::from(found.is_none());
        if let Some(after) = noticed {
            tally.detected += 1;
            tally.detection += after;
        }
    }

    fn finish(mut self) -> Replayed {
        self.settle(u64::MAX);
        let last = self.survey.last;
        for number in 0..self.circuits.len() {
            if let Some(since) = self.circuits[number].opened.take() {
                self.day(since).open += last.saturating_sub(since);
            }
        }
        let mut keys: Vec<_> = self.keys.into_iter().collect();
        keys.sort_by_key(|(key, count)| (Reverse(*count), *key));
        keys.truncate(SHOWN);
        let incidents = self
            .survey
            .hosts
            .iter()
            .map(|host| host.incidents.len() as u64);
        Replayed {
            thresholds: self.thresholds,
            days: self.days.into_inner(),
            keys,
            incidents: incidents.sum(),
        }
    }
}

/// The keys whose rejections are counted, and how many of them are kept.
const TRACKED: usize = 1 << 14;
const SHOWN: usize = 100;
const HOSTS: usize = 4096;
/// A trip up to this long after an incident belongs to it: its failures are still in the window.
const GRACE: u64 = 10 * SECOND;
