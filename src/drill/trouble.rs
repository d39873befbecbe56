//! Troubles, and their times.

use std::{fmt, ops::Range, time::Duration};

use super::times::in_nanos;

/// A trouble that an upstream has for some time.
///
/// Severities are shares between 0 and 1. Troubles of one upstream at the same time add up.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    kind: TroubleKind,
    status: u16,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum TroubleKind {
    Fails(f64),
    Capacity(f64),
    Refused(f64),
    Resets(f64),
    Hangs(f64),
    Slow(f64),
    Sick(f64, f64),
    RollingRestart(u32),
    Burst(f64),
}

/// The effects on an upstream at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Effects {
    /// The share of calls that fail after their usual time.
    pub(super) fails: f64,
    pub(super) status: u16,
    /// The share of the workers that work.
    pub(super) capacity: f64,
    pub(super) refused: f64,
    pub(super) resets: f64,
    pub(super) hangs: f64,
    /// The factor by which calls take longer.
    pub(super) slow: f64,
    /// The share of calls that a sick instance receives, and the factor by which it is slower.
    pub(super) sick: (f64, f64),
    /// The share of calls in flight that are lost as this begins.
    pub(super) loses: f64,
    /// The factor by which traffic grows.
    pub(super) traffic: f64,
}

impl Trouble {
    fn new(kind: TroubleKind) -> Self {
        Self { kind, status: 503 }
    }

    /// Answers a share of the calls with an error, after the usual time. Over HTTP it is a 503, or
    /// another [status](Self::status).
    #[must_use]
    pub fn fails(share: f64) -> Self {
        Self::new(TroubleKind::Fails(share))
    }

    /// Leaves a share of the workers. 0 stops all work.
    #[must_use]
    pub fn capacity(share: f64) -> Self {
        Self::new(TroubleKind::Capacity(share))
    }

    /// Accepts no connection. Calls in flight are answered.
    #[must_use]
    pub fn refused() -> Self {
        Self::refuses(1.0)
    }

    /// Refuses the connections of a share of the calls.
    #[must_use]
    pub fn refuses(share: f64) -> Self {
        Self::new(TroubleKind::Refused(share))
    }

    /// Breaks the connections of a share of the calls after the usual time. Their callers cannot
    /// know whether they were processed.
    #[must_use]
    pub fn resets(share: f64) -> Self {
        Self::new(TroubleKind::Resets(share))
    }

    /// Answers no call that arrives.
    #[must_use]
    pub fn hang() -> Self {
        Self::hangs(1.0)
    }

    /// Never answers a share of the calls that arrive. They occupy no worker.
    #[must_use]
    pub fn hangs(share: f64) -> Self {
        Self::new(TroubleKind::Hangs(share))
    }

    /// Makes all calls take `factor` times as long.
    #[must_use]
    pub fn slow(factor: f64) -> Self {
        Self::new(TroubleKind::Slow(factor))
    }

    /// Makes one of `instances` instances take `factor` times as long.
    #[must_use]
    pub fn one_sick_of(instances: u32, factor: f64) -> Self {
        Self::new(TroubleKind::Sick(1.0 / f64::from(instances.max(1)), factor))
    }

    /// Restarts the instances one after the other, each for three quarters of its turn. Its calls
    /// in flight are lost, and calls that are sent to it meanwhile are refused.
    #[must_use]
    pub fn rolling_restart(instances: u32) -> Self {
        Self::new(TroubleKind::RollingRestart(instances.max(1)))
    }

    /// Multiplies the calls of all sources of traffic except [`Bursts`](super::Bursts).
    #[must_use]
    pub fn burst(factor: f64) -> Self {
        Self::new(TroubleKind::Burst(factor))
    }

    /// Sets the HTTP status of failures. Default 503.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Returns the setting that is invalid, if there is one.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let is_factor = |factor: f64| factor.is_finite() && factor > 0.0;
        let (sound, fix) = match self.kind {
            TroubleKind::Fails(share)
            | TroubleKind::Capacity(share)
            | TroubleKind::Refused(share)
            | TroubleKind::Resets(share)
            | TroubleKind::Hangs(share) => (is_share(share), "use a share between 0 and 1"),
            TroubleKind::Slow(factor)
            | TroubleKind::Sick(_, factor)
            | TroubleKind::Burst(factor) => (is_factor(factor), "use a factor above 0"),
            TroubleKind::RollingRestart(_) => (true, ""),
        };
        (!sound).then_some(fix)
    }

    /// Returns the spans of this trouble with their effects.
    fn stretches(&self, span: &Range<f64>) -> Vec<(Range<f64>, Effects)> {
        let none = Effects::default();
        let status = self.status;
        let effects = match self.kind {
            TroubleKind::Fails(fails) => Effects {
                fails,
                status,
                ..none
            },
            TroubleKind::Capacity(capacity) => Effects { capacity, ..none },
            TroubleKind::Refused(refused) => Effects { refused, ..none },
            TroubleKind::Resets(resets) => Effects { resets, ..none },
            TroubleKind::Hangs(hangs) => Effects { hangs, ..none },
            TroubleKind::Slow(slow) => Effects { slow, ..none },
            TroubleKind::Sick(share, factor) => Effects {
                sick: (share, factor),
                ..none
            },
            TroubleKind::Burst(traffic) => Effects { traffic, ..none },
            TroubleKind::RollingRestart(instances) => {
                let turn = (span.end - span.start) / f64::from(instances);
                let share = 1.0 / f64::from(instances);
                let gone = Effects {
                    capacity: 1.0 - share,
                    refused: share,
                    loses: share,
                    ..none
                };
                let turns = (0..instances).map(|number| {
                    let start = span.start + turn * f64::from(number);
                    (start..start + 0.75 * turn, gone)
                });
                return turns.collect();
            }
        };
        vec![(span.clone(), effects)]
    }
}

impl Default for Effects {
    fn default() -> Self {
        Self {
            fails: 0.0,
            status: 503,
            capacity: 1.0,
            refused: 0.0,
            resets: 0.0,
            hangs: 0.0,
            slow: 1.0,
            sick: (0.0, 1.0),
            loses: 0.0,
            traffic: 1.0,
        }
    }
}

impl Effects {
    /// Returns both effects together.
    fn and(self, other: Self) -> Self {
        let either = |one: f64, two: f64| 1.0 - (1.0 - one) * (1.0 - two);
        Self {
            fails: either(self.fails, other.fails),
            status: if other.fails > 0.0 {
                other.status
            } else {
                self.status
            },
            capacity: self.capacity * other.capacity,
            refused: either(self.refused, other.refused),
            resets: either(self.resets, other.resets),
            hangs: either(self.hangs, other.hangs),
            slow: self.slow * other.slow,
            sick: (self.sick.0.max(other.sick.0), self.sick.1 * other.sick.1),
            loses: either(self.loses, other.loses),
            traffic: self.traffic * other.traffic,
        }
    }
}

/// A trouble of one upstream, from one moment to another.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Incident {
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) upstream: String,
    pub(super) trouble: Trouble,
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.upstream, self.trouble)
    }
}

/// All troubles of a drill, as spans with their effects.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    /// The index of the upstream, the span in seconds, and the effects.
    stretches: Vec<(usize, Range<f64>, Effects)>,
}

impl Timeline {
    pub(super) fn add(&mut self, upstream: usize, incident: &Incident) {
        let span = incident.from.as_secs_f64()..incident.to.as_secs_f64();
        let stretches = incident.trouble.stretches(&span).into_iter();
        self.stretches
            .extend(stretches.map(|(span, effects)| (upstream, span, effects)));
    }

    /// Returns the times at which a trouble of an upstream begins or ends, in nanoseconds.
    pub(super) fn changes(&self) -> Vec<(u64, usize)> {
        let ends = self.stretches.iter().flat_map(|(upstream, span, _)| {
            [span.start, span.end].map(|at| (in_nanos(at), *upstream))
        });
        let mut changes: Vec<_> = ends.collect();
        changes.sort_unstable();
        changes.dedup();
        changes
    }

    /// Returns the effects on an upstream at a time, in nanoseconds. Calls in flight are lost only
    /// at the beginning of a span.
    pub(super) fn effects(&self, upstream: usize, at: u64) -> Effects {
        let active = self.stretches.iter().filter(|(number, span, _)| {
            *number == upstream && (in_nanos(span.start)..in_nanos(span.end)).contains(&at)
        });
        active.fold(Effects::default(), |sum, (_, span, effects)| {
            let begins = in_nanos(span.start) == at;
            let loses = if begins { effects.loses } else { 0.0 };
            sum.and(Effects { loses, ..*effects })
        })
    }

    /// Returns the factor of the traffic at a time, in seconds, and until when it holds.
    pub(super) fn traffic_at(&self, at: f64) -> (f64, f64) {
        let busy = |effects: &Effects| (effects.traffic - 1.0).abs() > f64::EPSILON;
        let stretches = self
            .stretches
            .iter()
            .filter(|(_, _, effects)| busy(effects));
        stretches.fold(
            (1.0, f64::INFINITY),
            |(factor, until), (_, span, effects)| {
                let next = [span.start, span.end].into_iter().filter(|end| *end > at);
                let until = next.fold(until, f64::min);
                let factor = if span.contains(&at) {
                    factor * effects.traffic
                } else {
                    factor
                };
                (factor, until)
            },
        )
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| share * 100.0;
        match self.kind {
            TroubleKind::Fails(share) => write!(f, "{:.0} % fail", percent(share)),
            TroubleKind::Capacity(share) => write!(f, "{:.0} % capacity", percent(share)),
            TroubleKind::Refused(share) if share >= 1.0 => f.write_str("refused"),
            TroubleKind::Refused(share) => write!(f, "{:.0} % refused", percent(share)),
            TroubleKind::Resets(share) => write!(f, "{:.0} % reset", percent(share)),
            TroubleKind::Hangs(share) if share >= 1.0 => f.write_str("hangs"),
            TroubleKind::Hangs(share) => write!(f, "{:.0} % hang", percent(share)),
            TroubleKind::Slow(factor) => write!(f, "{factor:.1} times as slow"),
            TroubleKind::Sick(share, factor) => {
                write!(f, "one of {:.0} is {factor:.0} times as slow", 1.0 / share)
            }
            TroubleKind::RollingRestart(instances) => write!(f, "{instances} restart in turn"),
            TroubleKind::Burst(factor) => write!(f, "{factor:.0} times the calls"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(trouble: Trouble) -> Timeline {
        let mut timeline = Timeline::default();
        timeline.add(
            0,
            &Incident {
                from: Duration::from_secs(10),
                to: Duration::from_secs(20),
                upstream: "shop".into(),
                trouble,
            },
        );
        timeline
    }

    #[test]
    fn a_trouble_holds_until_just_before_its_end() {
        let timeline = timeline(Trouble::fails(0.5));
        let fails = |seconds| timeline.effects(0, in_nanos(seconds)).fails;
        assert_eq!([9.99, 10.0, 19.99, 20.0].map(fails), [0.0, 0.5, 0.5, 0.0]);
        assert_eq!(timeline.effects(1, in_nanos(15.0)), Effects::default());
    }

    #[test]
    fn instances_restart_one_after_the_other() {
        let timeline = timeline(Trouble::rolling_restart(4));
        let refused = |seconds| timeline.effects(0, in_nanos(seconds)).refused;
        assert_eq!(
            [10.0, 11.8, 12.0, 12.6].map(refused),
            [0.25, 0.25, 0.0, 0.25]
        );
        assert_eq!(timeline.effects(0, in_nanos(12.5)).loses, 0.25);
        assert_eq!(timeline.effects(0, in_nanos(12.6)).loses, 0.0);
    }

    #[test]
    fn troubles_at_once_add_up() {
        let mut both = timeline(Trouble::fails(0.5));
        both.stretches
            .extend(timeline(Trouble::fails(0.5)).stretches);
        assert_eq!(both.effects(0, in_nanos(15.0)).fails, 0.75);
    }

    #[test]
    fn a_burst_ends_when_it_ends() {
        let timeline = timeline(Trouble::burst(10.0));
        assert_eq!(timeline.traffic_at(0.0), (1.0, 10.0));
        assert_eq!(timeline.traffic_at(10.0), (10.0, 20.0));
        assert_eq!(timeline.traffic_at(20.0), (1.0, f64::INFINITY));
    }
}
