//! The breaker's scenarios, and its agreement with a model in plain code.

use proptest::prelude::*;

use super::*;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 20 s window, at least 5 calls, 50 %, open for 5 s, 4 probes judged by rate.
fn config() -> BreakerConfig {
    BreakerConfig {
        window: seconds(20),
        min_calls: 5,
        open_for: seconds(5),
        probes: 4,
        verdict: Verdict::Rate,
        ..BreakerConfig::default()
    }
}

fn breaker(config: BreakerConfig) -> Breaker {
    Breaker::new(config, 2).unwrap()
}

fn admit(breaker: &Breaker, now: u64) -> Pass {
    breaker.admit(now).0.unwrap()
}

/// `S`, `F`, `O` or `X` as an outcome.
fn outcome(letter: char) -> Outcome {
    match letter {
        'S' => Outcome::Success,
        'F' => Outcome::Failure,
        'O' => Outcome::Overload,
        _ => Outcome::Ignore,
    }
}

/// One whole call after the other.
fn run(breaker: &Breaker, letters: &str, now: u64) {
    for letter in letters.chars() {
        let pass = admit(breaker, now);
        breaker.record(pass, outcome(letter), 0, now);
    }
}

fn half_open(config: BreakerConfig) -> (Breaker, u64) {
    let breaker = breaker(config);
    run(&breaker, "FFFFF", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
    (breaker, 5 * SECOND)
}

#[test]
fn opens_on_the_call_that_makes_up_the_minimum() {
    let breaker = breaker(config());
    run(&breaker, "FFFS", 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "S", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.admit(0), (Err(Refused { wait: Some(seconds(5)) }), None));
}

#[test]
fn opens_when_the_rate_reaches_the_threshold() {
    let breaker = breaker(config());
    for (now, letter) in ["S", "S", "S", "F", "F"].into_iter().enumerate() {
        run(&breaker, letter, now as u64 * SECOND);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "F", 5 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn remembers_failures_for_the_whole_window() {
    let breaker = breaker(BreakerConfig { window: seconds(10), min_calls: 4, ..config() });
    run(&breaker, "FFF", 0);
    run(&breaker, "F", 10 * SECOND - 1);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn opens_when_successes_leave_the_window() {
    let breaker = breaker(BreakerConfig { window: seconds(10), min_calls: 4, ..config() });
    run(&breaker, &"S".repeat(10), 0);
    run(&breaker, "FFFF", 5 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "S", 10 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn an_overloaded_peer_counts_as_a_failing_one() {
    let breaker = breaker(config());
    run(&breaker, "OOOOO", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn ignored_calls_count_for_nothing() {
    let breaker = breaker(config());
    run(&breaker, "XXXXXXXXXXFFFF", 0);
    assert_eq!(breaker.counts(0).total(), 4);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn half_open_admits_no_more_than_its_probes() {
    let (breaker, now) = half_open(config());
    let probes: Vec<_> = (0..4).map(|_| admit(&breaker, now)).collect();
    assert!(breaker.admit(now).0.is_err());
    assert!(breaker.admit(now).0.is_err());
    breaker.record(probes[0], Outcome::Ignore, 0, now);
    assert!(breaker.admit(now).0.is_ok());
    assert!(breaker.admit(now).0.is_err());
}

#[test]
fn a_verdict_by_rate_waits_for_all_probes() {
    for letters in ["FSSS", "SSSXF"] {
        let (breaker, now) = half_open(config());
        run(&breaker, letters, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.counts(now).total(), 0);
    }
    let (breaker, now) = half_open(config());
    run(&breaker, "FSFS", now);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_verdict_by_any_failure_is_given_at_the_first() {
    let (breaker, now) = half_open(BreakerConfig { verdict: Verdict::AnyFailure, ..config() });
    run(&breaker, "SF", now);
    assert_eq!(breaker.state(), BreakerState::Open);
    run(&breaker, "SSSS", now + 5 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn late_results_from_an_old_generation_are_ignored() {
    let breaker = breaker(config());
    let late = admit(&breaker, 0);
    run(&breaker, "FFFFF", 0);
    let now = 5 * SECOND;
    let probe = admit(&breaker, now);
    for outcome in [Outcome::Success, Outcome::Failure] {
        assert_eq!(breaker.record(late, outcome, 0, now), None);
    }
    assert_eq!(breaker.late(), 2);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    run(&breaker, "SSS", now);
    let closed = breaker.record(probe, Outcome::Success, 0, now).unwrap();
    assert_eq!((closed.to, closed.cause), (BreakerState::Closed, Cause::ProbesSucceeded));
}

#[test]
fn hung_probes_cannot_hold_the_circuit_half_open() {
    let (breaker, now) = half_open(config());
    let hung: Vec<_> = (0..4).map(|_| admit(&breaker, now)).collect();
    assert_eq!(breaker.admit(now + 5 * SECOND - 1), (Err(Refused { wait: None }), None));
    let (refused, transition) = breaker.admit(now + 5 * SECOND);
    assert_eq!(refused, Err(Refused { wait: Some(seconds(5)) }));
    assert_eq!(transition.unwrap().cause, Cause::LeaseExpired);
    run(&breaker, "SSSS", now + 10 * SECOND);
    breaker.record(hung[0], Outcome::Failure, 0, now + 10 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn probes_far_apart_in_a_short_window_still_close() {
    let config = BreakerConfig {
        window: Duration::from_millis(200),
        min_calls: 5,
        open_for: Duration::from_millis(100),
        ..BreakerConfig::default()
    };
    let breaker = breaker(config);
    run(&breaker, "FFFFF", 0);
    for probe in 0..3 {
        run(&breaker, "S", (100 + probe * 150) * MILLI);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

/// Once a bucket from before 128 transitions was taken for a newer one, and every result for late: a circuit that had
/// reopened 64 times, half an hour of outage, closed and never opened again.
#[test]
fn a_circuit_still_opens_after_a_long_outage() {
    for reopenings in [63, 64, 100, 127, 128] {
        let breaker = breaker(BreakerConfig { probes: 1, verdict: Verdict::AnyFailure, ..config() });
        run(&breaker, "FFFFF", 0);
        let mut now = 0;
        for _ in 0..reopenings {
            now += 5 * SECOND;
            run(&breaker, "F", now);
        }
        run(&breaker, "S", now + 5 * SECOND);
        assert_eq!(breaker.state(), BreakerState::Closed);
        run(&breaker, "FFFFF", now + 6 * SECOND);
        assert_eq!((breaker.state(), breaker.late()), (BreakerState::Open, 0));
    }
}

#[test]
fn forced_open_refuses_after_any_wait() {
    let breaker = breaker(config());
    assert_eq!(breaker.force_open().unwrap().cause, Cause::ByHand);
    assert_eq!(breaker.force_open(), None);
    assert_eq!(breaker.admit(u64::MAX), (Err(Refused { wait: None }), None));
    breaker.close();
    assert!(breaker.admit_if_closed().is_some());
}

#[test]
fn disabled_lets_all_through_and_counts_nothing() {
    let breaker = breaker(config());
    breaker.disable();
    run(&breaker, "FFFFFFFFFF", 0);
    assert_eq!(breaker.state(), BreakerState::Disabled);
    assert_eq!(breaker.counts(0).total(), 0);
}

#[test]
fn an_open_time_ends_however_long_nobody_called() {
    let (breaker, _) = half_open(config());
    assert!(breaker.admit(400 * 24 * 3600 * SECOND).0.is_ok());
}

#[test]
fn refuses_settings_that_cannot_work() {
    let refused = |config: BreakerConfig| Breaker::new(config, 1).unwrap_err().field;
    for failure_rate in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(BreakerConfig { failure_rate, ..config() }), "failure_rate");
    }
    for window in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
        assert_eq!(refused(BreakerConfig { window, ..config() }), "window");
    }
    for open_for in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        assert_eq!(refused(BreakerConfig { open_for, ..config() }), "open_for");
    }
    for probes in [0, 8192, u16::MAX] {
        assert_eq!(refused(BreakerConfig { probes, ..config() }), "probes");
    }
    for lease in [Duration::ZERO, Duration::MAX] {
        assert_eq!(refused(BreakerConfig { lease: Some(lease), ..config() }), "lease");
    }
    assert_eq!(refused(BreakerConfig { min_calls: 0, ..config() }), "min_calls");
}

/// The same breaker with a list for a window and no packing.
struct Model {
    state: BreakerState,
    generation: u32,
    /// When, as a tick, and whether it failed.
    events: Vec<(u64, bool)>,
    deadline: u64,
    out: u64,
    judged: Vec<bool>,
    newest_probe: u64,
}

impl Model {
    fn enter(&mut self, state: BreakerState, now: u64) {
        self.generation += 1;
        self.events.clear();
        self.judged.clear();
        self.out = 0;
        self.deadline = now + 5 * SECOND;
        self.state = state;
    }

    fn admit(&mut self, now: u64) -> Option<u32> {
        if self.state == BreakerState::Open && now >= self.deadline {
            self.enter(BreakerState::HalfOpen, now);
        }
        match self.state {
            BreakerState::Closed | BreakerState::Disabled => {}
            BreakerState::HalfOpen if self.out + (self.judged.len() as u64) < 4 => {
                self.out += 1;
                self.newest_probe = now;
            }
            BreakerState::HalfOpen if self.out > 0 && now >= self.newest_probe + 5 * SECOND => {
                self.enter(BreakerState::Open, now);
                return None;
            }
            _ => return None,
        }
        Some(self.generation)
    }

    fn record(&mut self, generation: u32, outcome: Outcome, now: u64) {
        if generation != self.generation {
            return;
        }
        let failed = matches!(outcome, Outcome::Failure | Outcome::Overload);
        match self.state {
            BreakerState::HalfOpen => {
                self.out -= 1;
                if outcome != Outcome::Ignore {
                    self.judged.push(failed);
                }
                if self.judged.len() == 4 {
                    let failures = self.judged.iter().filter(|failed| **failed).count();
                    self.enter(if failures >= 2 { BreakerState::Open } else { BreakerState::Closed }, now);
                }
            }
            BreakerState::Closed if outcome != Outcome::Ignore => {
                let tick = now / (2 * SECOND);
                self.events.push((tick, failed));
                self.events.retain(|(then, _)| tick - then < 10);
                let failures = self.events.iter().filter(|(_, failed)| *failed).count();
                if self.events.len() >= 5 && 2 * failures >= self.events.len() {
                    self.enter(BreakerState::Open, now);
                }
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    Finish(usize, Outcome),
    Force,
    Close,
    Disable,
}

fn any_step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Success), 4 => Just(Outcome::Failure), 1 => Just(Outcome::Overload), 1 => Just(Outcome::Ignore)
    ];
    prop_oneof![
        40 => Just(Step::Admit),
        40 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Finish(which, outcome)),
        1 => Just(Step::Force), 1 => Just(Step::Close), 1 => Just(Step::Disable),
    ]
}

proptest! {
    #[test]
    fn agrees_with_the_model(steps in prop::collection::vec((any_step(), 0u64..3000), 1..400)) {
        let breaker = breaker(config());
        let mut model = Model {
            state: BreakerState::Closed, generation: 0, events: vec![], deadline: 0, out: 0, judged: vec![], newest_probe: 0,
        };
        let (mut now, mut in_flight) = (0, Vec::new());
        for (step, millis) in steps {
            now += millis * MILLI;
            match step {
                Step::Admit => {
                    let pass = breaker.admit(now).0.ok();
                    prop_assert_eq!(pass.map(|pass| pass.generation), model.admit(now));
                    in_flight.extend(pass);
                }
                Step::Finish(which, outcome) if !in_flight.is_empty() => {
                    let pass: Pass = in_flight.swap_remove(which % in_flight.len());
                    breaker.record(pass, outcome, which, now);
                    model.record(pass.generation, outcome, now);
                }
                Step::Finish(..) => {}
                Step::Force => if breaker.force_open().is_some() { model.enter(BreakerState::ForcedOpen, now) },
                Step::Disable => if breaker.disable().is_some() { model.enter(BreakerState::Disabled, now) },
                Step::Close => { breaker.close(); model.enter(BreakerState::Closed, now); }
            }
            prop_assert_eq!((breaker.state(), breaker.generation()), (model.state, model.generation));
        }
    }
}
