//! Assertions over all seeds of a report.

use std::fmt::Write;

use super::{
    measure::{Bound, Measure, Requirement},
    results::{Column, Results},
    run::{SEED, test_name},
    shrink,
};

/// A measure of each seed's run, to be asserted.
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing is asserted until `at_least` or `at_most`"]
pub struct Each<'a> {
    report: &'a Results,
    measure: Measure,
    column: Column,
    of: Of,
}

/// The value of all seeds that is asserted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Of {
    Worst,
    Mean,
    Quantile(f64),
}

impl<'a> Each<'a> {
    pub(super) fn new(report: &'a Results, measure: Measure) -> Self {
        Self {
            report,
            measure,
            column: Column {
                stack: 0,
                crowd: None,
            },
            of: Of::Worst,
        }
    }

    /// Asserts the mean of all seeds, in place of each seed.
    pub fn mean(mut self) -> Self {
        self.of = Of::Mean;
        self
    }

    /// Asserts the value that this share of the seeds does not exceed, in place of each seed. A
    /// share of 0.99 leaves out one seed of a hundred, at the end of large values.
    pub fn quantile(mut self, share: f64) -> Self {
        self.of = Of::Quantile(share);
        self
    }

    /// Asserts another column of the report, by its name: `"no stack"`, or a column of
    /// [`against`](super::Drill::against).
    ///
    /// # Panics
    /// There is no column of that name.
    #[track_caller]
    pub fn of(mut self, name: &str) -> Self {
        let names = self.report.names();
        match names.iter().position(|known| known == name) {
            Some(stack) => self.column.stack = stack,
            None => panic!("the report has no column `{name}`, but {names:?}"),
        }
        self
    }

    /// Asserts the results of one kind of clients: those [beside](super::Drill::beside) the drilled
    /// ones by their name, or `"main"`. Calls at the upstreams are not counted per kind.
    ///
    /// # Panics
    /// There are no clients of that name.
    #[track_caller]
    pub fn of_clients(mut self, name: &str) -> Self {
        let mut crowds = self.report.scenario.crowds.iter();
        match crowds.position(|crowd| crowd.name == name) {
            Some(crowd) => self.column.crowd = Some(crowd),
            None => panic!("the drill has no clients `{name}`"),
        }
        self
    }

    /// Asserts that no value is below the bound.
    ///
    /// # Panics
    /// A value is below. The message has the worst seed, its value, the line that runs it alone,
    /// and the smallest story found that fails too.
    #[track_caller]
    pub fn at_least(self, bound: impl Into<Bound>) {
        self.assert(Requirement::AtLeast(bound.into().0));
    }

    /// Asserts that no value is above the bound.
    ///
    /// # Panics
    /// As [`at_least`](Self::at_least).
    #[track_caller]
    pub fn at_most(self, bound: impl Into<Bound>) {
        self.assert(Requirement::AtMost(bound.into().0));
    }

    /// Returns the value that would be asserted: for each seed, the worst for the measure.
    #[must_use]
    pub fn value(self) -> f64 {
        let limit = if self.measure.is_a_good() {
            Requirement::AtLeast(0.0)
        } else {
            Requirement::AtMost(0.0)
        };
        self.value_for(limit)
    }

    #[track_caller]
    fn assert(self, limit: Requirement) {
        if !limit.holds(self.value_for(limit)) {
            panic!("{}", self.explain(limit));
        }
    }

    fn value_for(&self, limit: Requirement) -> f64 {
        let mut values: Vec<_> = self.values().map(|(_, value)| value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let rank = match self.of {
            Of::Mean => return values.iter().sum::<f64>() / values.len().max(1) as f64,
            Of::Quantile(share) => values
                .iter()
                .zip(0u32..)
                .position(|(_, number)| f64::from(number + 1) >= share * values.len() as f64),
            Of::Worst => match limit {
                Requirement::AtLeast(_) => Some(0),
                Requirement::AtMost(_) => Some(last),
            },
        };
        values.get(rank.unwrap_or(last)).copied().unwrap_or(0.0)
    }

    fn values(&self) -> impl Iterator<Item = (u64, f64)> {
        let (measure, column) = (self.measure, self.column);
        let runs = self.report.runs.iter();
        runs.map(move |run| {
            let figures = column.figures(&run.figures[column.stack]);
            (run.seed, measure.of(figures))
        })
    }

    /// Explains why it fails, and how to reproduce it.
    fn explain(&self, limit: Requirement) -> String {
        let (measure, report) = (self.measure, self.report);
        let value = self.value_for(limit);
        let order = |one: &(u64, f64), two: &(u64, f64)| match limit {
            Requirement::AtLeast(_) => one.1.total_cmp(&two.1),
            Requirement::AtMost(_) => two.1.total_cmp(&one.1),
        };
        let Some((seed, worst)) = self.values().min_by(order) else {
            return "the report has no seeds".into();
        };
        let failing = self
            .values()
            .filter(|(_, value)| !limit.holds(*value))
            .count();
        let what = match self.of {
            Of::Worst => String::new(),
            Of::Mean => format!(", mean of {} seeds", report.runs.len()),
            Of::Quantile(share) => format!(", quantile {share} of {} seeds", report.runs.len()),
        };
        let mut text = format!(
            "drill: {measure}{what}: {}, not {}\n  column:     {}\n  worst seed: {seed}, with {}; \
             {failing} of {} seeds fail\n  run it:     {SEED}={seed} cargo test{}\n",
            measure.show(value),
            limit.show(measure),
            report.names()[self.column.stack],
            measure.show(worst),
            report.runs.len(),
            test_name(),
        );
        if self.of == Of::Worst {
            let _ = writeln!(
                text,
                "{}",
                shrink::story(report, (self.column, seed), (measure, limit))
            );
        }
        let _ = write!(text, "\n{report}");
        text
    }
}
