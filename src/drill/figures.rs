//! The figures of one run.

use std::time::Duration;

use super::{
    caller::CallEnd,
    record::{Asked, LayerCounts, Record},
    scenario::Scenario,
};
use crate::ambient::clock::nanos;

/// The figures kept of a run. Its record is made again, by another run, when it is needed.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) asked: u64,
    /// The shares of all calls, by how they ended.
    pub(super) answered: f64,
    pub(super) failed: f64,
    pub(super) rejected: f64,
    pub(super) left: f64,
    /// The share answered in phases without trouble, from five seconds after the trouble before.
    /// Calls that the next trouble may overtake are left out.
    pub(super) answered_while_well: f64,
    /// The calls at the upstreams per call made.
    pub(super) sent: f64,
    /// In seconds, like those below. Infinite if the stack never recovered.
    pub(super) recovery: f64,
    pub(super) wait_mean: f64,
    pub(super) wait_p50: f64,
    pub(super) wait_p99: f64,
    pub(super) phases: Vec<PhaseFigures>,
    /// The figures of each kind of clients, if there are several.
    pub(super) crowds: Vec<Figures>,
    pub(super) counted: LayerCounts,
    pub(super) digest: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PhaseFigures {
    pub(super) answered: f64,
    pub(super) sent: f64,
}

impl Figures {
    pub(super) fn of(record: &Record, scenario: &Scenario) -> Self {
        let asked = &record.asked;
        let share = |end: fn(CallEnd) -> bool| share(asked, |call| end(call.end));
        let mut waits: Vec<_> = asked.iter().map(|call| call.took).collect();
        waits.sort_unstable();
        let total: f64 = asked.iter().map(|call| call.took().as_secs_f64()).sum();
        Self {
            asked: asked.len() as u64,
            answered: share(|end| end == CallEnd::Answered),
            failed: share(|end| end == CallEnd::Failed),
            rejected: share(|end| matches!(end, CallEnd::Rejected(_))),
            left: share(|end| matches!(end, CallEnd::Left | CallEnd::Unfinished)),
            answered_while_well: answered_while_well(asked, scenario),
            sent: ratio(record.sent.len(), asked.len()),
            recovery: recovery(asked, scenario),
            wait_mean: total / (asked.len().max(1)) as f64,
            wait_p50: quantile(&waits, 50),
            wait_p99: quantile(&waits, 99),
            phases: phases(record, scenario),
            crowds: Self::of_crowds(record, scenario),
            counted: record.counted.clone(),
            digest: record.digest,
        }
    }

    /// Returns the figures of each kind of clients. Calls at the upstreams are not counted per
    /// kind.
    fn of_crowds(record: &Record, scenario: &Scenario) -> Vec<Self> {
        let crowds = scenario.crowds.len();
        if crowds < 2 {
            return Vec::new();
        }
        let one = Scenario {
            crowds: scenario.crowds[..1].to_vec(),
            ..scenario.clone()
        };
        let of = |crowd| {
            let asked = record.asked.iter().filter(|call| call.crowd == crowd);
            let record = Record {
                asked: asked.copied().collect(),
                ..Record::default()
            };
            Self::of(&record, &one)
        };
        (0..crowds).map(of).collect()
    }
}

/// Returns the longest recovery: from the end of all trouble to two seconds in a row, in each of
/// which 95 % of the calls are answered. Infinite if there are none before the next trouble. An end
/// that is followed by less than two seconds shows nothing.
fn recovery(asked: &[Asked], scenario: &Scenario) -> f64 {
    let clear = scenario.all_clear().into_iter();
    let clear = clear.filter(|(from, to)| *to - *from >= 2 * SECOND);
    let times = clear.map(|(from, to)| {
        let steps = (0..).map(|step| from + STEP * step);
        let mut starts = steps.take_while(|start| *start + 2 * SECOND <= to);
        let is_good = |start: Duration| {
            let calls = between(asked, start, start + SECOND);
            !calls.is_empty() && share(calls, Asked::is_good) >= RECOVERED
        };
        let back = starts.find(|start| is_good(*start) && is_good(*start + SECOND));
        back.map_or(f64::INFINITY, |start| (start - from).as_secs_f64())
    });
    times.fold(0.0, f64::max)
}

fn answered_while_well(asked: &[Asked], scenario: &Scenario) -> f64 {
    let phases = scenario.phases();
    let well = phases
        .iter()
        .enumerate()
        .filter(|(_, phase)| phase.is_well());
    let mut calls = Vec::new();
    for (number, phase) in well {
        // The time after a trouble counts as recovery.
        let from = if number == 0 {
            phase.from
        } else {
            phase.from + RECOVERY
        };
        // A call that a trouble overtakes shows nothing.
        let is_last = number + 1 == phases.len();
        let to = if is_last {
            phase.to
        } else {
            phase.to.saturating_sub(scenario.patience())
        };
        calls.extend_from_slice(between(asked, from, to.max(from)));
    }
    if calls.is_empty() {
        1.0
    } else {
        share(&calls, Asked::is_good)
    }
}

fn phases(record: &Record, scenario: &Scenario) -> Vec<PhaseFigures> {
    let phases = scenario.phases().into_iter();
    let figures = phases.map(|phase| {
        let calls = between(&record.asked, phase.from, phase.to);
        let (from, to) = (nanos(phase.from), nanos(phase.to));
        let first = record.sent.partition_point(|at| *at < from);
        let last = record.sent.partition_point(|at| *at < to);
        PhaseFigures {
            answered: share(calls, Asked::is_good),
            sent: ratio(last - first, calls.len()),
        }
    });
    figures.collect()
}

/// Returns the calls that were made from one moment to another.
fn between(asked: &[Asked], from: Duration, to: Duration) -> &[Asked] {
    let (from, to) = (nanos(from), nanos(to));
    let first = asked.partition_point(|call| call.at < from);
    let last = asked.partition_point(|call| call.at < to);
    &asked[first..last]
}

/// Returns the share of calls that match. 1 without calls.
fn share(asked: &[Asked], is: impl Fn(&Asked) -> bool) -> f64 {
    if asked.is_empty() {
        return 1.0;
    }
    ratio(asked.iter().filter(|call| is(call)).count(), asked.len())
}

fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Returns a quantile in seconds, of sorted nanoseconds.
fn quantile(sorted: &[u64], percent: usize) -> f64 {
    let rank = sorted.len() * percent / 100;
    let value = sorted.get(rank.min(sorted.len().saturating_sub(1)));
    value.map_or(0.0, |nanos| Duration::from_nanos(*nanos).as_secs_f64())
}

const RECOVERED: f64 = 0.95;
const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);
/// The time after a trouble in which its effects may remain.
const RECOVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::{Poisson, Servers, Trouble, trouble::Incident};

    fn scenario() -> Scenario {
        let mut scenario = Scenario::new(false);
        scenario.upstreams.push(("shop".into(), Servers::new(1)));
        scenario.patterns.push((0, Poisson::per_second(10).into()));
        scenario.lasting = Duration::from_secs(30);
        scenario.incidents.push(Incident {
            from: Duration::from_secs(10),
            to: Duration::from_secs(20),
            upstream: "shop".into(),
            trouble: Trouble::fails(1.0),
        });
        scenario
    }

    /// Returns a call each 100 ms. Those before `bad` and from `good` on are answered.
    fn asked(bad: u64, good: u64) -> Vec<Asked> {
        let calls = (0..300).map(|number| number * 100);
        let call = |at: u64| Asked {
            at: at * 1_000_000,
            took: 1_000_000,
            crowd: 0,
            end: if (bad..good).contains(&at) {
                CallEnd::Failed
            } else {
                CallEnd::Answered
            },
        };
        calls.map(call).collect()
    }

    #[test]
    fn recovery_counts_from_the_end_of_the_trouble() {
        let scenario = scenario();
        assert_eq!(recovery(&asked(10_000, 20_000), &scenario), 0.0);
        // In steps of 50 ms, while calls are 100 ms apart.
        let back = recovery(&asked(10_000, 23_000), &scenario);
        assert!((2.9..=3.0).contains(&back), "{back}");
        assert_eq!(recovery(&asked(10_000, 29_000), &scenario), f64::INFINITY);
    }

    #[test]
    fn the_shares_are_of_what_was_asked() {
        let record = Record {
            asked: asked(10_000, 20_000),
            sent: (0..600).map(|number| number * 50_000_000).collect(),
            ..Record::default()
        };
        let figures = Figures::of(&record, &scenario());
        assert!((figures.answered - 2.0 / 3.0).abs() < 1e-9);
        assert!((figures.sent - 2.0).abs() < 1e-9);
        assert_eq!(figures.answered_while_well, 1.0);
        let answered: Vec<_> = figures.phases.iter().map(|phase| phase.answered).collect();
        assert_eq!(answered, [1.0, 0.0, 1.0]);
        assert_eq!(figures.wait_p99, 0.001);
    }
}
