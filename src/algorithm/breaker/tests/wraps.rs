//! Times stay right when their tags wrap.

use super::*;

const YEAR: u64 = 365 * 24 * 3600 * SECOND;
/// The number of ticks of a window after which its tags wrap.
const TICKS: u64 = 1 << 26;

fn of_a_second() -> Breaker {
    breaker(BreakerConfig {
        window: Window::Time(Duration::from_secs(1)),
        min_calls: 2,
        open_for: Duration::from_secs(5),
        jitter: false,
        probes: 1,
        ..config()
    })
}

fn fail(breaker: &Breaker, now: u64) -> Option<Transition> {
    let pass = breaker.admit(0, now).0.unwrap();
    breaker.record(pass, Outcome::Failure, None, 0, now)
}

#[test]
fn a_failure_of_77_days_ago_is_in_no_window() {
    for laps in 1..4 {
        let breaker = of_a_second();
        assert!(fail(&breaker, 0).is_none());
        let now = laps * TICKS * SECOND / 10;
        assert_eq!(breaker.counts(now).failures, 0);
        assert!(fail(&breaker, now).is_none(), "it is the only one");
    }
}

#[test]
fn an_open_circuit_keeps_its_time_for_a_century() {
    // Its moments wrap after 8.7 years.
    for now in (0..100).map(|year| year * YEAR + 12_345_678) {
        let breaker = of_a_second();
        fail(&breaker, now);
        let opened = fail(&breaker, now).unwrap();
        assert_eq!(opened.to, BreakerState::Open);
        let rejected = breaker.admit(0, now + SECOND).0.unwrap_err();
        let wait = rejected.wait.unwrap();
        assert!(wait > Duration::from_millis(3998) && wait <= Duration::from_secs(4));
        assert!(breaker.is_open_at(now + 4 * SECOND));
        assert!(breaker.admit(0, now + 5 * SECOND).0.is_ok());
        // A circuit that no call meets for years is past its open time.
        let idle = of_a_second();
        fail(&idle, now);
        fail(&idle, now);
        assert!(!idle.refuses(now + 8 * YEAR));
    }
}

#[test]
fn a_ramp_is_a_ramp_after_a_decade() {
    for now in [0, 9 * YEAR, 50 * YEAR, 100 * YEAR] {
        let breaker = breaker(BreakerConfig {
            ramp: Duration::from_secs(10),
            min_calls: 1,
            open_for: Duration::from_secs(5),
            jitter: false,
            probes: 1,
            ..config()
        });
        fail(&breaker, now).unwrap();
        let probed = now + 6 * SECOND;
        let probe = breaker.admit(0, probed).0.unwrap();
        let closed = breaker.record(probe, Outcome::Success, None, 0, probed);
        assert_eq!(closed.unwrap().to, BreakerState::Closed);
        let admitted = |now| (0..100).filter(|_| breaker.admit(0, now).0.is_ok()).count();
        let early = admitted(probed + 3 * SECOND);
        assert!((25..=35).contains(&early), "{early} of 100 at {now}");
        assert_eq!(admitted(probed + 11 * SECOND), 100);
    }
}
