//! One piece of advice, from a replay or from a running program.

use std::fmt;

/// A threshold that does not fit the traffic, with a better value.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Advice {
    /// The pattern: `"circuit_breaker"`.
    pub layer: &'static str,
    /// The instance, as given to `.name(..)`. Empty in a replay.
    pub name: String,
    /// The setter: `"min_calls"`.
    pub setting: &'static str,
    /// Its value now.
    pub now: String,
    /// A better value, or `None` if the remedy is something else.
    pub better: Option<String>,
    /// The reason: what was seen, and what follows from it.
    pub reason: String,
    /// The price of the better value, and what it saves, with confidence intervals.
    pub price: String,
    /// The certainty of the advice.
    pub evidence: Evidence,
    /// The first alert of `examples/observability` that would report it, if one does.
    pub alert: Option<&'static str>,
}

/// The certainty of advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Evidence {
    /// The value held on days that it was not chosen from, or chance does not explain the data.
    Enough,
    /// Not enough: check again after this many more days.
    MoreDays(u64),
}

impl Advice {
    /// Returns whether there is enough evidence to act on it.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.evidence == Evidence::Enough
    }
}

/// The advice on one line.
impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.is_empty() {
            write!(f, "{}: ", self.name)?;
        }
        write!(f, "{} {} {}", self.layer, self.setting, self.now)?;
        if let Some(better) = &self.better {
            write!(f, " -> {better}")?;
        }
        write!(f, ": {}", self.reason)?;
        if !self.price.is_empty() {
            write!(f, "; {}", self.price)?;
        }
        if let Evidence::MoreDays(days) = self.evidence {
            let plural = if days == 1 { "" } else { "s" };
            write!(f, " (not enough evidence: {days} more day{plural})")?;
        }
        if let Some(alert) = self.alert {
            write!(f, " (alert: {alert})")?;
        }
        Ok(())
    }
}
