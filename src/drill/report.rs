//! The report of a drill.

use std::fmt;

use super::{
    DrillError, assertion::Each, json, measure::Measure, picture, reached::Reached,
    results::Results,
};

/// The results of a drill: assert them, or print them. The same traffic without a stack is always
/// included.
#[derive(Debug)]
#[must_use = "assert something, or print it"]
pub struct Report(pub(super) Results);

impl Report {
    /// Returns a measure to assert. It must hold for every seed, unless [`mean`](Each::mean) or
    /// [`quantile`](Each::quantile) is set.
    pub fn each(&self, measure: Measure) -> Each<'_> {
        Each::new(&self.0, measure)
    }

    /// Asserts that each of these happened in at least one seed: a drill in which no circuit opens
    /// shows nothing about circuits.
    ///
    /// # Panics
    /// One did not happen. The message has the reason, as far as the settings tell.
    #[track_caller]
    pub fn reached(&self, what: impl IntoIterator<Item = Reached>) {
        let counted = self.0.counted(0);
        let missing = what.into_iter().filter(|one| one.count(&counted) == 0);
        let missing: Vec<_> = missing
            .map(|one| one.missing(&counted, &self.0.scenario))
            .collect();
        let seeds = self.0.runs.len();
        assert!(
            missing.is_empty(),
            "drill: in {seeds} seeds {}",
            missing.join("; ")
        );
    }

    /// Returns the events that the stack's layers never reached, with the reason as far as the
    /// settings tell.
    #[must_use]
    pub fn not_reached(&self) -> Vec<String> {
        self.0.not_reached()
    }

    /// Returns the phases in which the stack answers less than no stack, by more than a hundredth.
    #[must_use]
    pub fn worse_than_none(&self) -> Vec<String> {
        self.0.worse_than_none()
    }

    /// Returns the report as one JSON object. What never happened is `null`.
    #[must_use]
    pub fn json(&self) -> String {
        json::write(&self.0)
    }

    /// Runs a seed again and draws it as an SVG. It shows how much was answered in time with the
    /// stack and without, how many calls reached the upstreams, and how many circuits were open.
    ///
    /// # Errors
    /// A stack does not build.
    pub fn picture(&self, seed: u64) -> Result<String, DrillError> {
        picture::draw(&self.0, seed)
    }

    /// Returns the smallest share of calls that were answered in a phase, of all seeds.
    pub(super) fn least_in_phase(&self, phase: usize) -> f64 {
        let runs = self.0.runs.iter();
        let answered = runs.map(|run| run.figures[0].phases[phase].answered);
        answered.fold(1.0, f64::min)
    }

    /// Returns the seeds that were run: fewer than requested if the time was over.
    pub fn seeds(&self) -> impl Iterator<Item = u64> {
        self.0.runs.iter().map(|run| run.seed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
