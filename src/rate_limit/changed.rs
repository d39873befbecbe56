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
