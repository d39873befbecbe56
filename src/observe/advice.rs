//! A piece of advice, of a replay or of a running program.

use std::fmt;

/// A threshold that does not fit what came, and one that does.
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
    /// A better one, or `None` if something else is to be done.
    pub better: Option<String>,
    /// The reason: the things seen, and what follows from them.
    pub reason: String,
    /// The price of the better value, and what it saves, with intervals.
    pub price: String,
    /// The certainty of it.
    pub evidence: Evidence,
    /// The alert of `examples/observability` that tells it first, if one does.
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
    /// The value held on days that it was not chosen from, or chance does not explain what was
    /// seen.
    Enough,
    /// Not enough: look again after so many days more.
    MoreDays(u64),
}

impl Advice {
    /// Returns whether there is enough evidence to act on it.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.evidence == Evidence::Enough
    }
}

/// One line.
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
