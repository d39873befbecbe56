//! A question, and the rows of its answer.

use crate::replay::{stack::StackSettings, tally::Replayed};

/// A question about a log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Question {
    /// The settings in force.
    pub now: StackSettings,
    /// Others to compare them with.
    pub against: Option<StackSettings>,
    /// If true, keys are shown as the log has them, and else by their hashes.
    pub show_keys: bool,
}

/// Thresholds, and what they would have done, between two bounds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Row {
    /// The difference in it: `min_calls 50`.
    pub name: String,
    /// With the upstream as it was.
    pub as_it_was: Replayed,
    /// With the upstream as the load that was spared would have left it at best.
    pub relieved: Replayed,
    /// The false trips a week to be expected by the binomial distribution, if it has a circuit: at
    /// least, and at most.
    pub expected: Option<(f64, f64)>,
}

impl Question {
    /// A question about a client with default settings.
    #[must_use]
    pub fn new(now: StackSettings) -> Self {
        Self {
            now,
            against: None,
            show_keys: false,
        }
    }
}
