//! The report of the changes of an update.

use std::fmt;

use crate::{Changed, algorithm::Rate};

/// A value that may be off, formatted for a report.
#[derive(PartialEq)]
pub(super) struct OrOff<T>(pub(super) Option<T>);

impl<T: fmt::Debug> fmt::Debug for OrOff<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("off"),
        }
    }
}

/// Reports the changes of an update.
pub(super) fn changed(before: (Rate, u32), after: (Rate, u32)) -> Changed {
    Changed::default()
        .note("rate_limit", "rate", (before.0, after.0))
        .note("rate_limit", "burst", (before.1, after.1))
}

/// Reports the changes of an update to a limit that is off before or after it.
#[cfg(any(feature = "http", feature = "serde"))]
pub(super) fn switched(before: Option<(Rate, u32)>, after: Option<(Rate, u32)>) -> Changed {
    let parts = |quota: Option<(Rate, u32)>| {
        let (rate, burst) = (quota.map(|quota| quota.0), quota.map(|quota| quota.1));
        (OrOff(rate), OrOff(burst))
    };
    let (before, after) = (parts(before), parts(after));
    Changed::default()
        .note("rate_limit", "rate", (before.0, after.0))
        .note("rate_limit", "burst", (before.1, after.1))
}
