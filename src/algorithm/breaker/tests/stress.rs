//! Threads in contention: what must hold of every transition, probe and result, whatever the
//! interleaving.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::*;

const THREADS: usize = 4;
const CALLS: usize = 30_000;
const PROBES: u16 = 3;

/// The observations of one thread.
#[derive(Default)]
struct Seen {
    transitions: Vec<Transition>,
    /// Passes issued, and how many of them were given back, by generation.
    passes: HashMap<u32, (u64, u64)>,
    /// Results recorded, by generation.
    recorded: HashMap<u32, u64>,
    /// Results whose generation had certainly passed, and results for which that cannot be known.
    late: u64,
    unsure: u64,
}

fn work(breaker: &Breaker, clock: &AtomicU64, thread: usize) -> Seen {
    let mut seen = Seen::default();
    let mut random = thread as u64 + 1;
    let mut held = Vec::new();
    for _ in 0..CALLS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let now = clock.fetch_add(MILLI / 2, Ordering::Relaxed);
        let (decision, transition) = breaker.admit(thread, now);
        seen.transitions.extend(transition);
        if let Ok(pass) = decision {
            seen.passes.entry(pass.generation()).or_default().0 += 1;
            held.push(pass);
        }
        if held.len() < 4 {
            continue;
        }
        let pass = held.swap_remove(usize::from((random >> 60) as u8) % held.len());
        let (generation, before) = (pass.generation(), breaker.generation());
        seen.transitions.extend(match random >> 40 & 15 {
            0 => breaker.abandon(pass, thread, now),
            choice => {
                *seen.recorded.entry(generation).or_default() += 1;
                let outcome = if choice < 9 {
                    Outcome::Failure
                } else {
                    Outcome::Success
                };
                let transition = breaker.record(pass, outcome, None, thread, now);
                if before != generation {
                    seen.late += 1;
                } else if breaker.generation() != generation {
                    seen.unsure += 1;
                }
                seen.transitions.extend(transition);
                continue;
            }
        });
        seen.passes.entry(generation).or_default().1 += 1;
    }
    // Passes still held are dropped, as calls that hang.
    seen
}

#[test]
fn transitions_probes_and_results_add_up() {
    for window in [Window::Time(seconds(3600)), Window::Calls(50)] {
        let breaker = breaker(BreakerConfig {
            window,
            min_calls: 50,
            open_for: Duration::from_millis(5),
            probes: PROBES,
            verdict: Verdict::Rate,
            failure_rate: Some(0.5),
            ..BreakerConfig::default()
        });
        let clock = AtomicU64::new(0);
        let seen: Vec<Seen> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn({
                        let (breaker, clock) = (&breaker, &clock);
                        move || work(breaker, clock, thread)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });

        let mut transitions: Vec<_> = seen.iter().flat_map(|seen| &seen.transitions).collect();
        transitions.sort_by_key(|transition| transition.generation);
        assert!(
            transitions.len() > 100,
            "{} transitions put nothing to the test",
            transitions.len()
        );
        let generations = transitions.iter().map(|transition| transition.generation);
        assert!(
            generations.eq(1..=breaker.generation()),
            "each generation is entered once"
        );
        assert!(
            transitions
                .windows(2)
                .all(|pair| pair[0].to == pair[1].from),
            "each state is left as it was entered"
        );

        let half_open = transitions
            .iter()
            .filter(|transition| transition.to == BreakerState::HalfOpen);
        for generation in half_open.map(|transition| transition.generation) {
            let passes = seen.iter().filter_map(|seen| seen.passes.get(&generation));
            let (issued, returned) =
                passes.fold((0, 0), |sum, passes| (sum.0 + passes.0, sum.1 + passes.1));
            assert!(
                issued - returned <= u64::from(PROBES),
                "{issued} probes, {returned} given back"
            );
        }

        let late: u64 = seen.iter().map(|seen| seen.late).sum();
        let unsure: u64 = seen.iter().map(|seen| seen.unsure).sum();
        assert!(
            (late..=late + unsure).contains(&breaker.late()),
            "{late} + {unsure}, not {}",
            breaker.late()
        );
        if breaker.state() == BreakerState::Closed && window == Window::Time(seconds(3600)) {
            let recorded: u64 = seen
                .iter()
                .filter_map(|seen| seen.recorded.get(&breaker.generation()))
                .sum();
            assert_eq!(breaker.counts(clock.into_inner()).total(), recorded);
        }
    }
}

#[test]
fn nothing_is_lost_while_the_state_stays() {
    for window in [Window::Time(seconds(3600)), Window::Calls(1 << 20)] {
        let breaker = breaker(BreakerConfig { window, ..config() });
        breaker.metrics_only();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let breaker = &breaker;
                scope.spawn(move || {
                    for call in 0..CALLS {
                        let pass = admit(breaker, 0);
                        let outcome = if call % 3 == 0 {
                            Outcome::Failure
                        } else {
                            Outcome::Success
                        };
                        breaker.record(pass, outcome, None, thread, 0);
                    }
                });
            }
        });
        let (counts, all) = (breaker.counts(0), (THREADS * CALLS) as u64);
        assert_eq!(
            (counts.total(), counts.failures, breaker.late()),
            (all, all / 3, 0)
        );
    }
}
