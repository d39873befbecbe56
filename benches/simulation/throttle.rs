//! The client's throttle before an upstream that does part of what it is sent, then all again.
//!
//! An upstream does what its capacity allows each second and rejects the rest, which costs it a
//! part of what a call costs: so the more it is sent, the less it does.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "figures of a simulation, of which the test uses a part"
)]

use std::time::Duration;

use tower_keep::algorithm::{Throttle, throttle::ThrottleConfig};

use super::events::{MS, Random, SECOND};

/// What became of the calls of a phase.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Calls asked for.
    pub(crate) asked: u64,
    /// Calls sent to the upstream.
    pub(crate) sent: u64,
    /// Calls that it did.
    pub(crate) done: u64,
    /// Seconds until 99 % of a second's calls were sent; `None` if never.
    pub(crate) recovered: Option<u64>,
}

/// A client of so many calls a second, and an upstream of such a capacity for so many seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) rate: u64,
    pub(crate) capacity: u64,
    pub(crate) seconds: u64,
    /// The chance that a call fails although there is capacity.
    pub(crate) failures: f64,
}

/// Runs the loads one after the other through one throttle, or none.
pub(crate) fn run(config: Option<ThrottleConfig>, loads: &[Load], seed: u64) -> Vec<Measured> {
    let throttle = config.map(|config| Throttle::new(config, 1).unwrap());
    let mut random = Random::new(seed);
    let mut second = 0;
    let mut measured = Vec::new();
    for load in loads {
        let mut phase = Measured::default();
        for elapsed in 0..load.seconds {
            let sent = run_second(throttle.as_ref(), load, second, &mut random, &mut phase);
            if sent * 100 >= load.rate * 99 {
                phase.recovered = phase.recovered.or(Some(elapsed));
            }
            second += 1;
        }
        measured.push(phase);
    }
    measured
}

/// How many calls of a second were sent.
fn run_second(
    throttle: Option<&Throttle>,
    load: &Load,
    second: u64,
    random: &mut Random,
    phase: &mut Measured,
) -> u64 {
    let mut sent = 0;
    // In tenths of a call: to reject one takes three of them.
    let mut left = load.capacity * 10;
    for n in 0..load.rate {
        let now = second * SECOND + n * SECOND / load.rate;
        phase.asked += 1;
        if throttle.is_some_and(|throttle| !throttle.admit((random.word() >> 32) as u32, now)) {
            continue;
        }
        sent += 1;
        // Its work is spread over the second.
        let budget = load.capacity * 10 * (n + 1) / load.rate;
        let spent = load.capacity * 10 - left;
        let fits = spent + 10 <= budget;
        left = left.saturating_sub(if fits { 10 } else { 3 });
        let done = fits && random.share() > load.failures;
        phase.done += u64::from(done);
        if let Some(throttle) = throttle {
            throttle.record(done, 0, now + MS);
        }
    }
    phase.sent += sent;
    sent
}

/// The defaults, over another window.
pub(crate) fn over(window: Duration) -> ThrottleConfig {
    let mut config = ThrottleConfig::default();
    config.window = window;
    config
}
