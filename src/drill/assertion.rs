//! Assertions over all seeds of a report.

use std::fmt::Write;

use super::{
    measure::{Bound, Limit, Measure},
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

/// Which value of all seeds is asserted.
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

    /// Asserts the mean of all seeds, and not each.
    pub fn mean(mut self) -> Self {
        self.of = Of::Mean;
        self
    }

    /// Asserts the value that such a share of the seeds does not exceed, and not each. A share of
    /// 0.99 leaves one seed of a hundred out, at the end where values are large.
    pub fn quantile(mut self, share: f64) -> Self {
        self.of = Of::Quantile(share);
        self
    }

    /// Asserts another column of the report, by its name: `"no stack"`, or that of
    /// [`against`](super::Drill::against).
    ///
    /// # Panics
    /// There is none of that name.
    #[track_caller]
    pub fn of(mut self, name: &str) -> Self {
        let names = self.report.names();
        match names.iter().position(|known| known == name) {
            Some(stack) => self.column.stack = stack,
            None => panic!("the report has no column `{name}`, but {names:?}"),
        }
        self
    }

    /// Asserts what became of one kind of clients: those that are
    /// [beside](super::Drill::beside) the drilled ones by their name, or `"main"`. What reached the
    /// upstreams is not told apart.
    ///
    /// # Panics
    /// There are none of that name.
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
    /// One is: with the worst seed, its value, the line that runs it alone, and the smallest story
    /// that was found to fail as well.
    #[track_caller]
    pub fn at_least(self, bound: impl Into<Bound>) {
        self.assert(Limit::AtLeast(bound.into().0));
    }

    /// Asserts that no value is above the bound.
    ///
    /// # Panics
    /// As [`at_least`](Self::at_least).
    #[track_caller]
    pub fn at_most(self, bound: impl Into<Bound>) {
        self.assert(Limit::AtMost(bound.into().0));
    }

    /// The value that would be asserted: of each seed that which is worst for the measure.
    #[must_use]
    pub fn value(self) -> f64 {
        let limit = if self.measure.is_a_good() {
            Limit::AtLeast(0.0)
        } else {
            Limit::AtMost(0.0)
        };
        self.value_for(limit)
    }

    #[track_caller]
    fn assert(self, limit: Limit) {
        if !limit.holds(self.value_for(limit)) {
            panic!("{}", self.explain(limit));
        }
    }

    fn value_for(&self, limit: Limit) -> f64 {
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
                Limit::AtLeast(_) => Some(0),
                Limit::AtMost(_) => Some(last),
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

    /// Why it fails, and how to see it.
    fn explain(&self, limit: Limit) -> String {
        let (measure, report) = (self.measure, self.report);
        let value = self.value_for(limit);
        let order = |one: &(u64, f64), two: &(u64, f64)| match limit {
            Limit::AtLeast(_) => one.1.total_cmp(&two.1),
            Limit::AtMost(_) => two.1.total_cmp(&one.1),
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
