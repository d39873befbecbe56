//! Every interleaving of two threads at a transition.

use loom::{sync::Arc, thread};

use super::*;
use crate::call::Outcome;

const SECOND: u64 = 1_000_000_000;

fn breaker(probes: u16) -> Arc<Breaker> {
    let config = BreakerConfig {
        min_calls: 2,
        probes,
        ..BreakerConfig::default()
    };
    Arc::new(Breaker::new(&config, 1, 0).unwrap())
}

fn pass(breaker: &Breaker) -> Pass {
    breaker.admit_if_closed().unwrap()
}

fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn two_failures_trip_once_and_only_the_winner_knows() {
    bounded(|| {
        let breaker = breaker(1);
        let (first, second) = (pass(&breaker), pass(&breaker));
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(first, Outcome::Failure, None, 0, 0));
        let here = breaker.record(second, Outcome::Failure, None, 0, 0);
        let there = thread.join().unwrap();
        assert_eq!(here.iter().chain(&there).count(), 1);
        assert_eq!(
            (breaker.state(), breaker.generation()),
            (BreakerState::Open, 1)
        );
    });
}

#[test]
fn one_probe_slot_is_given_to_one_of_two() {
    bounded(|| {
        let breaker = breaker(1);
        breaker
            .control
            .store(Control::closed().open(0, 1).word(), Ordering::Release);
        let other = breaker.clone();
        let thread = thread::spawn(move || other.admit(0, SECOND).0.is_ok());
        let here = breaker.admit(0, SECOND).0.is_ok();
        assert!(here ^ thread.join().unwrap());
        assert_eq!(breaker.generation(), 2);
    });
}

#[test]
fn a_probe_given_back_can_be_issued_again() {
    bounded(|| {
        let breaker = breaker(1);
        breaker
            .control
            .store(Control::closed().open(0, 1).word(), Ordering::Release);
        let probe = breaker.admit(0, SECOND).0.unwrap();
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(probe, Outcome::Ignore, None, 0, SECOND));
        let meanwhile = breaker.admit(0, SECOND).0.is_ok();
        thread.join().unwrap();
        assert_eq!(breaker.admit(0, SECOND).0.is_ok(), !meanwhile);
    });
}

#[test]
fn lease_expiry_and_a_returning_probe_never_both_win() {
    bounded(|| {
        let breaker = breaker(1);
        breaker
            .control
            .store(Control::closed().open(0, 1).word(), Ordering::Release);
        let probe = breaker.admit(0, SECOND).0.unwrap();
        let later = 40 * SECOND;
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(probe, Outcome::Success, None, 0, later));
        let (_, expired) = breaker.admit(0, later);
        let closed = thread.join().unwrap();
        assert!(expired.is_some() ^ closed.is_some());
        assert_eq!(breaker.generation(), 3);
        assert_eq!(breaker.late(), u64::from(expired.is_some()));
    });
}

#[test]
fn a_second_thread_never_reads_an_old_probes_time() {
    bounded(|| {
        let breaker = breaker(1);
        breaker
            .control
            .store(Control::closed().open(0, 1).word(), Ordering::Release);
        let now = 100 * SECOND;
        let other = breaker.clone();
        let thread = thread::spawn(move || other.admit(0, now).1);
        let (_, transition) = breaker.admit(0, now);
        let both = [transition, thread.join().unwrap()];
        // A thread that read 0 for the newest probe would expire its lease at once.
        assert!(
            both.iter()
                .flatten()
                .all(|transition| transition.cause == Cause::OpenElapsed)
        );
    });
}

#[test]
fn a_failure_and_the_success_at_the_minimum_trip_once() {
    bounded(|| {
        let breaker = breaker(1);
        let (first, second) = (pass(&breaker), pass(&breaker));
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(first, Outcome::Success, None, 0, 0));
        let here = breaker.record(second, Outcome::Failure, None, 0, 0);
        assert_eq!(here.iter().chain(&thread.join().unwrap()).count(), 1);
    });
}

/// As above, but the success finds its tick begun and takes the short way.
#[test]
fn a_quick_success_and_a_failure_trip_once() {
    bounded(|| {
        let config = BreakerConfig {
            min_calls: 3,
            failure_rate: Some(0.3),
            ..BreakerConfig::default()
        };
        let breaker = Arc::new(Breaker::new(&config, 1, 0).unwrap());
        breaker.record(pass(&breaker), Outcome::Success, None, 0, 0);
        let (first, second) = (pass(&breaker), pass(&breaker));
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(first, Outcome::Success, None, 0, 0));
        let here = breaker.record(second, Outcome::Failure, None, 0, 0);
        assert_eq!(here.iter().chain(&thread.join().unwrap()).count(), 1);
    });
}

#[test]
fn admission_result_and_trip_keep_generations_apart() {
    bounded(|| {
        let breaker = breaker(1);
        let tripping = [pass(&breaker), pass(&breaker)];
        let other = breaker.clone();
        let thread = thread::spawn(move || {
            let Some(pass) = other.admit_if_closed() else {
                return false;
            };
            other.record(pass, Outcome::Success, None, 0, 0);
            true
        });
        for pass in tripping {
            breaker.record(pass, Outcome::Failure, None, 0, 0);
        }
        let admitted = thread.join().unwrap();
        assert!(breaker.late() <= u64::from(admitted));
        // Two failures of three calls are still enough.
        assert_eq!(
            (breaker.state(), breaker.generation()),
            (BreakerState::Open, 1)
        );
        assert_eq!(breaker.counts(0).total(), 0);
    });
}

#[test]
fn of_two_runs_of_failures_one_trips() {
    bounded(|| {
        let config = BreakerConfig {
            consecutive_failures: Some(2),
            failure_rate: None,
            ..BreakerConfig::default()
        };
        let breaker = Arc::new(Breaker::new(&config, 1, 0).unwrap());
        let (first, second) = (pass(&breaker), pass(&breaker));
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(first, Outcome::Failure, None, 0, 0));
        let here = breaker.record(second, Outcome::Failure, None, 0, 0);
        assert_eq!(here.iter().chain(&thread.join().unwrap()).count(), 1);
    });
}

#[test]
fn no_result_before_an_update_is_in_the_new_window() {
    bounded(|| {
        let breaker = breaker(1);
        let call = pass(&breaker);
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(call, Outcome::Failure, None, 0, SECOND));
        let config = BreakerConfig {
            window: Window::Time(Duration::from_secs(100)),
            min_calls: 2,
            ..BreakerConfig::default()
        };
        breaker.update(&config).unwrap();
        thread.join().unwrap();
        assert_eq!(breaker.counts(SECOND), Counts::default());
        // Later results are counted, whatever the other thread has left in their place.
        let call = pass(&breaker);
        breaker.record(call, Outcome::Failure, None, 0, SECOND);
        assert_eq!(breaker.counts(SECOND).failures, 1);
    });
}
