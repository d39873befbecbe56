//! Criticality: the damage that the rejection of a call does.

use std::{fmt, str::FromStr};

/// The criticality of a call: under pressure the least critical calls are rejected first.
///
/// The classes are those of Google's *Site Reliability Engineering* (chapter 21). Give a bulkhead a
/// closure that returns a request's class, with
/// [`criticality`](crate::bulkhead::BulkheadBuilder::criticality). On HTTP the class may come from
/// an extension, or from a header of a trusted client:
///
/// ```
/// # #[cfg(feature = "http")] {
/// use tower_keep::Criticality;
///
/// let class = |request: &http::Request<()>| {
///     let header = request.headers().get("x-criticality").and_then(|value| value.to_str().ok());
///     header.and_then(|class| class.parse().ok()).unwrap_or(Criticality::Sheddable)
/// };
/// let request = http::Request::get("/").header("x-criticality", "critical").body(()).unwrap();
/// assert_eq!(class(&request), Criticality::Critical);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Criticality {
    /// Calls that are partly missing at all times, unnoticed: prefetches, statistics.
    Sheddable,
    /// Calls that are repeated later: batch jobs.
    SheddablePlus,
    /// Calls that a user waits for. The default.
    #[default]
    Critical,
    /// Calls that a user waits for, and on which everything else depends: logins, payments.
    CriticalPlus,
}

impl Criticality {
    /// Returns its name, as [`parse`](str::parse) reads it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }
}

impl fmt::Display for Criticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error for a text that is no name of a [`Criticality`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCriticality;

impl fmt::Display for UnknownCriticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one of sheddable, sheddable_plus, critical, critical_plus")
    }
}

impl std::error::Error for UnknownCriticality {}

impl FromStr for Criticality {
    type Err = UnknownCriticality;

    fn from_str(name: &str) -> Result<Self, UnknownCriticality> {
        let all = [
            Self::Sheddable,
            Self::SheddablePlus,
            Self::Critical,
            Self::CriticalPlus,
        ];
        let named = |class: &Self| class.as_str().eq_ignore_ascii_case(name);
        all.into_iter().find(named).ok_or(UnknownCriticality)
    }
}
