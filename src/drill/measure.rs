//! Measures of a run, and the bounds that assertions compare them with.

use std::{fmt, time::Duration};

use super::figures::Figures;

/// A figure of one run, for [`Report::each`](super::Report::each).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measure {
    /// The share of all calls that were answered before their caller left.
    Answered,
    /// The share answered of calls made without trouble, from five seconds after the trouble
    /// before. Calls that the next trouble may overtake are left out. 1 unless the stack does harm.
    AnsweredWhileWell,
    /// The share of calls that a layer rejected or cut off, as the caller saw it.
    Rejected,
    /// The share of calls that ended in an error or a 5xx.
    Failed,
    /// The share of calls whose caller ran out of patience.
    Left,
    /// The calls that reached an upstream, per call made.
    Sent,
    /// The longest time from the end of a trouble to two seconds in a row, in each of which 95 % of
    /// all calls are answered. Infinite if that does not happen before the next trouble.
    Recovery,
    /// The mean time that callers waited for any end.
    WaitMean,
    /// The time within which half of the calls ended.
    WaitP50,
    /// The time within which 99 of 100 calls ended.
    WaitP99,
}

/// A value to compare a [`Measure`] with: a number, or a [`Duration`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound(pub(super) f64);

/// The bound of an assertion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Requirement {
    AtLeast(f64),
    AtMost(f64),
}

/// The unit of a measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Share,
    Ratio,
    Seconds,
}

impl Measure {
    pub(super) fn of(self, figures: &Figures) -> f64 {
        match self {
            Self::Answered => figures.answered,
            Self::AnsweredWhileWell => figures.answered_while_well,
            Self::Rejected => figures.rejected,
            Self::Failed => figures.failed,
            Self::Left => figures.left,
            Self::Sent => figures.sent,
            Self::Recovery => figures.recovery,
            Self::WaitMean => figures.wait_mean,
            Self::WaitP50 => figures.wait_p50,
            Self::WaitP99 => figures.wait_p99,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered in time",
            Self::AnsweredWhileWell => "answered while all is well",
            Self::Rejected => "rejected or cut off",
            Self::Failed => "failed",
            Self::Left => "callers that left",
            Self::Sent => "calls sent for each asked",
            Self::Recovery => "time to recover",
            Self::WaitMean => "wait, mean",
            Self::WaitP50 => "wait, p50",
            Self::WaitP99 => "wait, p99",
        }
    }

    /// Returns whether a larger value is better.
    pub(super) fn is_a_good(self) -> bool {
        matches!(self, Self::Answered | Self::AnsweredWhileWell)
    }

    /// Returns a value as text.
    pub(super) fn show(self, value: f64) -> String {
        match self.unit() {
            Unit::Share => format!("{:.1} %", value * 100.0),
            Unit::Ratio => format!("{value:.2}"),
            Unit::Seconds if value.is_infinite() => "never".into(),
            Unit::Seconds if value < 1.0 => format!("{:.0} ms", value * 1000.0),
            Unit::Seconds => format!("{value:.1} s"),
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Sent => Unit::Ratio,
            Self::Recovery | Self::WaitMean | Self::WaitP50 | Self::WaitP99 => Unit::Seconds,
            _ => Unit::Share,
        }
    }

    /// All measures, in the order of the report.
    pub(super) const ALL: [Self; 10] = [
        Self::Answered,
        Self::AnsweredWhileWell,
        Self::Rejected,
        Self::Failed,
        Self::Left,
        Self::Sent,
        Self::Recovery,
        Self::WaitMean,
        Self::WaitP50,
        Self::WaitP99,
    ];
}

impl Requirement {
    pub(super) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    pub(super) fn show(self, measure: Measure) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {}", measure.show(bound)),
            Self::AtMost(bound) => format!("at most {}", measure.show(bound)),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<f64> for Bound {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl From<Duration> for Bound {
    fn from(time: Duration) -> Self {
        Self(time.as_secs_f64())
    }
}
