//! Every interleaving of two threads at a transition.

use loom::{sync::Arc, thread};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn breaker(probes: u16) -> Arc<Breaker> {
    let config = BreakerConfig { min_calls: 2, probes, ..BreakerConfig::default() };
    Arc::new(Breaker::new(config, 1).unwrap())
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
        let thread = thread::spawn(move || other.record(first, Outcome::Failure, 0, 0));
        let here = breaker.record(second, Outcome::Failure, 0, 0);
        let there = thread.join().unwrap();
        assert_eq!(here.iter().chain(&there).count(), 1);
        assert_eq!((breaker.state(), breaker.generation()), (BreakerState::Open, 1));
    });
}

#[test]
fn one_probe_slot_is_given_to_one_of_two() {
    bounded(|| {
        let breaker = breaker(1);
        breaker.control.store(Control::closed().open(0).word(), Ordering::Release);
        let other = breaker.clone();
        let thread = thread::spawn(move || other.admit(SECOND).0.is_ok());
        let here = breaker.admit(SECOND).0.is_ok();
        assert!(here ^ thread.join().unwrap());
        assert_eq!(breaker.generation(), 2);
    });
}

#[test]
fn a_probe_given_back_can_be_issued_again() {
    bounded(|| {
        let breaker = breaker(1);
        breaker.control.store(Control::closed().open(0).word(), Ordering::Release);
        let probe = breaker.admit(SECOND).0.unwrap();
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(probe, Outcome::Ignore, 0, SECOND));
        let meanwhile = breaker.admit(SECOND).0.is_ok();
        thread.join().unwrap();
        assert_eq!(breaker.admit(SECOND).0.is_ok(), !meanwhile);
    });
}

#[test]
fn an_expired_lease_and_the_probes_return_do_not_both_win() {
    bounded(|| {
        let breaker = breaker(1);
        breaker.control.store(Control::closed().open(0).word(), Ordering::Release);
        let probe = breaker.admit(SECOND).0.unwrap();
        let later = 40 * SECOND;
        let other = breaker.clone();
        let thread = thread::spawn(move || other.record(probe, Outcome::Success, 0, later));
        let (_, expired) = breaker.admit(later);
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
        breaker.control.store(Control::closed().open(0).word(), Ordering::Release);
        let now = 100 * SECOND;
        let other = breaker.clone();
        let thread = thread::spawn(move || other.admit(now).1);
        let (_, transition) = breaker.admit(now);
        let both = [transition, thread.join().unwrap()];
        // Reading 0 for the newest probe would expire its lease at once.
        assert!(both.iter().flatten().all(|transition| transition.cause == Cause::OpenElapsed));
    });
}
