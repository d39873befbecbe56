//! A question, and the rows of its answer.

use crate::replay::{stack::StackSettings, tally::Replayed};

/// A question about a log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Question {
    /// The settings in force.
    pub now: StackSettings,
    /// Other settings to compare them with.
    pub against: Option<StackSettings>,
    /// If true, keys are shown as the log has them. Otherwise their hashes are shown.
    pub show_keys: bool,
}

/// A set of thresholds with its results, between two bounds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Row {
    /// Its difference from the settings in force: `min_calls 50`.
    pub name: String,
    /// The results if the upstream behaves as recorded.
    pub as_it_was: Replayed,
    /// The results if the upstream recovers as the spared load allows at best.
    pub relieved: Replayed,
    /// The expected false trips a week by the binomial distribution, if it has a circuit: at least,
    /// and at most.
    pub expected: Option<(f64, f64)>,
}

impl Question {
    /// Makes a question about a stack with these settings.
    #[must_use]
    pub fn new(now: StackSettings) -> Self {
        Self {
            now,
            against: None,
            show_keys: false,
        }
    }
}
