//! The same breaker in plain single-threaded code: lists for windows, and no packing.

use proptest::prelude::*;

use super::*;

const OPEN_FOR: u64 = 5 * SECOND;
const SLOW_AFTER: u64 = 4 * SECOND;
const WINDOW_TICK: u64 = 2 * SECOND;
const AGE_TICK: u64 = SECOND;

/// A call that has ended, or a probe that is judged.
#[derive(Debug, Clone, Copy)]
struct Ended {
    at: u64,
    failed: bool,
    slow: bool,
    abandoned: bool,
    not_before: u64,
}

#[derive(Debug)]
struct Model {
    config: BreakerConfig,
    state: BreakerState,
    generation: u32,
    ended: Vec<Ended>,
    /// The times at which calls were dropped that did not fail, or, in a window of calls, since the
    /// last answer.
    abandoned: Vec<u64>,
    in_flight: Vec<(u32, u64)>,
    /// The last tick in which a call was admitted, and its generation.
    entered: Option<(u32, u64)>,
    run: u32,
    deadline: u64,
    streak: u32,
    closed_at: Option<u64>,
    out: usize,
    newest_probe: u64,
    late: u64,
}

impl Model {
    fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: BreakerState::Closed,
            generation: 0,
            ended: vec![],
            abandoned: vec![],
            in_flight: vec![],
            entered: None,
            run: 0,
            deadline: 0,
            streak: 0,
            closed_at: None,
            out: 0,
            newest_probe: 0,
            late: 0,
        }
    }

    fn change(&mut self, state: BreakerState) {
        self.generation += 1;
        self.state = state;
        self.ended.clear();
        self.abandoned.clear();
        (self.run, self.out, self.closed_at) = (0, 0, None);
    }

    fn by_hand(&mut self, state: BreakerState) {
        self.change(state);
        self.streak = 0;
    }

    fn open(&mut self, streak: u32, now: u64) {
        self.streak = streak;
        let own = if self.config.growing {
            OPEN_FOR << (streak - 1).min(20)
        } else {
            OPEN_FOR
        };
        let most = 10 * OPEN_FOR;
        let results = match self.state {
            BreakerState::HalfOpen => self.ended.clone(),
            _ => self.window(now),
        };
        let hint = results.iter().map(|ended| ended.not_before).max();
        self.deadline = (now + own.min(most)).max(hint.unwrap_or(0).min(now + most));
        self.change(BreakerState::Open);
    }

    fn admit(&mut self, now: u64) -> Option<u32> {
        if self.state == BreakerState::Open && now >= self.deadline {
            self.change(BreakerState::HalfOpen);
        } else if self.state == BreakerState::HalfOpen && self.give_verdict(now) {
            return (self.state == BreakerState::Closed).then_some(self.generation);
        }
        match self.state {
            BreakerState::Closed | BreakerState::Disabled | BreakerState::MetricsOnly => {
                if self.trips_on_hung(now) {
                    return None;
                }
                self.in_flight.push((self.generation, now));
            }
            BreakerState::HalfOpen
                if self.out + self.ended.len() < usize::from(self.config.probes) =>
            {
                self.out += 1;
                self.newest_probe = now;
            }
            BreakerState::HalfOpen if self.out > 0 && now >= self.newest_probe + OPEN_FOR => {
                self.open(self.streak + 1, now);
                return None;
            }
            _ => return None,
        }
        Some(self.generation)
    }

    fn trips_on_hung(&mut self, now: u64) -> bool {
        let tick = (self.generation, now / AGE_TICK);
        let first = self.config.slow_calls.is_some() && self.entered != Some(tick);
        self.entered = Some(tick);
        let current = self
            .in_flight
            .iter()
            .filter(|(generation, _)| *generation == self.generation);
        let hung = current
            .filter(|(_, started)| now / AGE_TICK - started / AGE_TICK > 4)
            .count();
        if !first || hung == 0 || self.state != BreakerState::Closed {
            return false;
        }
        self.trip_if(hung, now)
    }

    fn finish(
        &mut self,
        generation: u32,
        started: u64,
        failed: Option<bool>,
        retry_after: Option<u64>,
        now: u64,
    ) {
        if let Some(place) = self
            .in_flight
            .iter()
            .position(|call| *call == (generation, started))
        {
            self.in_flight.swap_remove(place);
        }
        let Some(failed) = failed else {
            return self.give_back(generation, now);
        };
        self.take(
            generation,
            started,
            failed,
            true,
            if failed { retry_after } else { None },
            now,
        );
    }

    fn abandon(&mut self, generation: u32, started: u64, now: u64) {
        if let Some(place) = self
            .in_flight
            .iter()
            .position(|call| *call == (generation, started))
        {
            self.in_flight.swap_remove(place);
        }
        let failed = self.config.cancelled_as_failure;
        let quick = !failed && !self.is_slow(started, now);
        let counts = matches!(self.state, BreakerState::Closed | BreakerState::MetricsOnly);
        if generation == self.generation && counts && !failed {
            self.abandoned.push(now);
        }
        if quick {
            self.give_back(generation, now);
        } else {
            self.take(generation, started, failed, false, None, now);
        }
        if generation == self.generation && counts && !failed {
            self.trip_on_no_answer(now);
        }
    }

    fn live_abandoned(&self, now: u64) -> usize {
        let live = |at: &&u64| match self.config.window {
            Window::Time(_) => now / WINDOW_TICK - *at / WINDOW_TICK < 10,
            Window::Calls(_) => true,
        };
        self.abandoned.iter().filter(live).count()
    }

    fn trip_on_no_answer(&mut self, now: u64) {
        let answered = match self.config.window {
            Window::Time(_) => self.window(now).iter().any(|ended| !ended.abandoned),
            Window::Calls(_) => false,
        };
        let enough = self.live_abandoned(now) >= self.min_calls() as usize;
        let closed = self.state == BreakerState::Closed;
        if closed && enough && !answered && self.config.open_on_no_answer {
            self.trip(now);
        }
    }

    fn min_calls(&self) -> u32 {
        match self.config.window {
            Window::Calls(calls) => self.config.min_calls.min(calls),
            Window::Time(_) => self.config.min_calls,
        }
    }

    fn is_slow(&self, started: u64, now: u64) -> bool {
        self.config.slow_calls.is_some() && now - started >= SLOW_AFTER
    }

    fn give_back(&mut self, generation: u32, now: u64) {
        if generation == self.generation && self.state == BreakerState::HalfOpen {
            self.out -= 1;
            self.give_verdict(now);
        }
    }

    fn take(
        &mut self,
        generation: u32,
        started: u64,
        failed: bool,
        done: bool,
        retry_after: Option<u64>,
        now: u64,
    ) {
        if generation != self.generation {
            self.late += 1;
            return;
        }
        let not_before = retry_after.map_or(0, |wait| now + wait);
        let slow = self.is_slow(started, now);
        match self.state {
            BreakerState::HalfOpen => {
                self.out -= 1;
                self.ended.push(Ended {
                    at: now,
                    failed,
                    slow,
                    abandoned: !done && !failed,
                    not_before,
                });
                self.give_verdict(now);
            }
            BreakerState::Closed | BreakerState::MetricsOnly => {
                self.ended.push(Ended {
                    at: now,
                    failed,
                    slow,
                    abandoned: !done && !failed,
                    not_before,
                });
                if (done || failed) && matches!(self.config.window, Window::Calls(_)) {
                    self.abandoned.clear();
                }
                self.run = if failed {
                    self.run + 1
                } else if done {
                    0
                } else {
                    self.run
                };
                if self.state == BreakerState::Closed && !self.trip_if(0, now) {
                    let by_run = self
                        .config
                        .consecutive_failures
                        .is_some_and(|most| failed && self.run >= most);
                    if by_run {
                        self.trip(now);
                    }
                }
            }
            _ => {}
        }
    }

    fn window(&self, now: u64) -> Vec<Ended> {
        match self.config.window {
            Window::Time(_) => {
                let live = |ended: &&Ended| now / WINDOW_TICK - ended.at / WINDOW_TICK < 10;
                self.ended.iter().filter(live).copied().collect()
            }
            Window::Calls(calls) => {
                self.ended[self.ended.len().saturating_sub(calls as usize)..].to_vec()
            }
        }
    }

    fn trip_if(&mut self, hung: usize, now: u64) -> bool {
        let window = self.window(now);
        let total = window.len() + hung;
        let slow = window.iter().filter(|ended| ended.slow).count() + hung;
        let enough = self.min_calls();
        let trips = total >= enough as usize
            && (self.fails(&window, total) || self.is_too_slow(slow, total));
        if trips {
            self.trip(now);
        }
        trips
    }

    fn fails(&self, ended: &[Ended], total: usize) -> bool {
        let failures = ended.iter().filter(|ended| ended.failed).count();
        failures > 0
            && self
                .config
                .failure_rate
                .is_some_and(|rate| failures as f64 >= total as f64 * rate - 1e-9)
    }

    fn is_too_slow(&self, slow: usize, total: usize) -> bool {
        slow > 0 && self.config.slow_calls.is_some() && 2 * slow >= total
    }

    fn trip(&mut self, now: u64) {
        let held = match self.config.window {
            Window::Time(_) => self.closed_at.is_none_or(|at| now - at >= 20 * SECOND),
            Window::Calls(calls) => self.ended.len() >= calls as usize,
        };
        self.open(if held { 1 } else { self.streak + 1 }, now);
    }

    /// Returns whether the circuit opens again if all probes to come fail slowly, or none does.
    fn verdict_if(&self, probes: usize, fail: bool) -> bool {
        let mut ended = self.ended.clone();
        let to_come = Ended {
            at: 0,
            failed: fail,
            slow: fail,
            abandoned: false,
            not_before: 0,
        };
        ended.resize(probes.max(ended.len()), to_come);
        let slow = ended.iter().filter(|ended| ended.slow).count();
        let failed = match (self.config.verdict, self.config.failure_rate) {
            (Verdict::Rate, Some(_)) => self.fails(&ended, ended.len()),
            _ => ended.iter().any(|ended| ended.failed),
        };
        failed || self.is_too_slow(slow, ended.len())
    }

    fn give_verdict(&mut self, now: u64) -> bool {
        let (judged, probes) = (self.ended.len(), usize::from(self.config.probes));
        // All endings that the probes still to come could bring lie between these two.
        let (best, worst) = (
            self.verdict_if(probes, false),
            self.verdict_if(probes, true),
        );
        let bad = match (best, worst) {
            _ if judged >= probes => best,
            (true, true) => true,
            (false, false) => false,
            _ => return false,
        };
        if bad {
            self.open(self.streak + 1, now);
        } else {
            self.change(BreakerState::Closed);
            self.closed_at = Some(now.max(MILLI));
        }
        true
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    Finish(usize, Outcome, Option<u64>),
    Drop(usize),
    ByHand(BreakerState),
    Reset,
    Update(u32, u32, u16, Option<u32>),
}

fn any_config() -> impl Strategy<Value = BreakerConfig> {
    let window = prop_oneof![Just(Window::Time(seconds(20))), Just(Window::Calls(7))];
    let verdict = prop_oneof![Just(Verdict::AnyFailure), Just(Verdict::Rate)];
    let rest = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(2u32..6),
    );
    (window, verdict, rest).prop_map(
        |(
            window,
            verdict,
            (slow, growing, cancelled_as_failure, no_answer, consecutive_failures),
        )| {
            BreakerConfig {
                window,
                verdict,
                slow_calls: slow.then_some(SlowCalls {
                    after: seconds(4),
                    rate: 0.5,
                }),
                growing,
                jitter: false,
                cancelled_as_failure,
                open_on_no_answer: no_answer,
                consecutive_failures,
                ..config()
            }
        },
    )
}

fn any_step(drops: u32) -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        5 => Just(Outcome::Success), 4 => Just(Outcome::Failure), 1 => Just(Outcome::Overload), 1 => Just(Outcome::Ignore)
    ];
    let by_hand = prop_oneof![
        Just(BreakerState::Closed),
        Just(BreakerState::ForcedOpen),
        Just(BreakerState::Disabled),
        Just(BreakerState::MetricsOnly)
    ];
    let retry_after = prop::option::weighted(0.1, 0..100 * SECOND / MILLI);
    prop_oneof![
        80 => Just(Step::Admit),
        70 => (any::<usize>(), outcome, retry_after).prop_map(|(which, outcome, wait)| Step::Finish(which, outcome, wait)),
        drops => any::<usize>().prop_map(Step::Drop),
        3 => by_hand.prop_map(Step::ByHand),
        1 => Just(Step::Reset),
        4 => (1u32..9, 2u32..10, 1u16..6, prop::option::of(2u32..6))
            .prop_map(|(calls, tenths, probes, run)| Step::Update(calls, tenths, probes, run)),
    ]
}

fn apply(
    step: Step,
    breaker: &Breaker,
    model: &mut Model,
    in_flight: &mut Vec<(Pass, u64)>,
    now: u64,
) {
    match step {
        Step::Admit => {
            let pass = breaker.admit(0, now).0.ok();
            assert_eq!(pass.as_ref().map(Pass::generation), model.admit(now));
            in_flight.extend(pass.map(|pass| (pass, now)));
        }
        Step::Finish(which, outcome, wait) if !in_flight.is_empty() => {
            let (pass, started) = in_flight.swap_remove(which % in_flight.len());
            let failed = (outcome != Outcome::Ignore).then_some(outcome != Outcome::Success);
            let wait = wait.map(|millis| millis * MILLI);
            model.finish(pass.generation(), started, failed, wait, now);
            breaker.record(pass, outcome, wait.map(Duration::from_nanos), which, now);
        }
        Step::Drop(which) if !in_flight.is_empty() => {
            let (pass, started) = in_flight.swap_remove(which % in_flight.len());
            model.abandon(pass.generation(), started, now);
            breaker.abandon(pass, which, now);
        }
        Step::Finish(..) | Step::Drop(_) => {}
        Step::ByHand(state) => {
            let changed = match state {
                BreakerState::Closed => breaker.close(),
                BreakerState::ForcedOpen => breaker.force_open(),
                BreakerState::Disabled => breaker.disable(),
                _ => breaker.metrics_only(),
            };
            assert_eq!(changed.is_some(), model.state != state);
            if changed.is_some() {
                model.by_hand(state);
            }
        }
        Step::Reset => {
            breaker.reset();
            model.by_hand(BreakerState::Closed);
        }
        Step::Update(min_calls, tenths, probes, consecutive_failures) => {
            let failure_rate = Some(f64::from(tenths) / 10.0);
            model.config = BreakerConfig {
                min_calls,
                failure_rate,
                probes,
                consecutive_failures,
                ..model.config
            };
            breaker.update(&model.config).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn agrees_with_the_model(
        config in any_config(),
        // Mostly ended, or mostly dropped.
        steps in prop_oneof![Just(10), Just(400)]
            .prop_flat_map(|drops| prop::collection::vec((any_step(drops), 0u64..2500), 1..400)),
    ) {
        let breaker = breaker(config);
        let mut model = Model::new(config);
        let (mut now, mut in_flight) = (0, Vec::new());
        for (step, millis) in steps {
            now += millis * MILLI;
            apply(step, &breaker, &mut model, &mut in_flight, now);
            prop_assert_eq!((breaker.state(), breaker.generation()), (model.state, model.generation));
            prop_assert_eq!(breaker.late(), model.late);
            if model.state == BreakerState::Open {
                let wait = Duration::from_nanos(model.deadline.saturating_sub(now));
                prop_assert_eq!(breaker.until_half_open(now), Some(wait));
            }
            if matches!(model.state, BreakerState::Closed | BreakerState::MetricsOnly) {
                let (counts, window) = (breaker.counts(now), model.window(now));
                prop_assert_eq!(counts.total(), window.len() as u64);
                prop_assert_eq!(counts.failures, window.iter().filter(|ended| ended.failed).count() as u64);
                prop_assert_eq!(counts.abandoned, model.live_abandoned(now) as u64);
                prop_assert_eq!(counts.slow, window.iter().filter(|ended| ended.slow).count() as u64);
            }
        }
    }
}
