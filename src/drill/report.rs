//! The report of a drill.

use std::fmt;

use super::{
    DrillError, assertion::Each, json, measure::Measure, picture, reached::Reached,
    results::Results,
};

/// The results of a drill: assert them, or print them. The stack is always beside the same traffic
/// without any.
#[derive(Debug)]
#[must_use = "assert something, or print it"]
pub struct Report(pub(super) Results);

impl Report {
    /// A measure of each seed, to be asserted: it must hold for every one of them, unless
    /// [`mean`](Each::mean) or [`quantile`](Each::quantile) says otherwise.
    pub fn each(&self, measure: Measure) -> Each<'_> {
        Each::new(&self.0, measure)
    }

    /// Asserts that each of these happened in at least one seed: a drill in which no circuit opens
    /// says nothing about circuits.
    ///
    /// # Panics
    /// One did not, with the reason as far as the settings tell.
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

    /// The events that the stack's layers never reached, with the reason as far as the settings
    /// tell.
    #[must_use]
    pub fn not_reached(&self) -> Vec<String> {
        self.0.not_reached()
    }

    /// The phases in which the stack answers less than none would, by more than a hundredth.
    #[must_use]
    pub fn worse_than_none(&self) -> Vec<String> {
        self.0.worse_than_none()
    }

    /// The report as one JSON object. What never came is `null`.
    #[must_use]
    pub fn json(&self) -> String {
        json::write(&self.0)
    }

    /// Runs a seed again and draws it as an SVG. It shows what was answered in time with the stack
    /// and without, what reached the upstreams, and how many circuits were open.
    ///
    /// # Errors
    /// A stack that does not build.
    pub fn picture(&self, seed: u64) -> Result<String, DrillError> {
        picture::draw(&self.0, seed)
    }

    /// The smallest share of calls that were answered in a phase, of all seeds.
    pub(super) fn least_in_phase(&self, phase: usize) -> f64 {
        let runs = self.0.runs.iter();
        let answered = runs.map(|run| run.figures[0].phases[phase].answered);
        answered.fold(1.0, f64::min)
    }

    /// The seeds that were run: fewer than were asked for if the time was up.
    pub fn seeds(&self) -> impl Iterator<Item = u64> {
        self.0.runs.iter().map(|run| run.seed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
