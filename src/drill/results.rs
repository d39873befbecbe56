//! Results of all seeds, as data.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    figures::Figures,
    measure::Measure,
    reached::Reached,
    record::LayerCounts,
    run::{Runs, SeedRun},
    scenario::{Phase, Scenario},
};

/// A drill that was run. The columns are the stack, those compared with it, and no stack.
pub(super) struct Results {
    pub(super) drill: Arc<dyn Runs>,
    pub(super) scenario: Scenario,
    pub(super) runs: Vec<SeedRun>,
    /// The real time taken.
    pub(super) took: Duration,
}

/// The figures of a stack, or of one kind of its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) stack: usize,
    pub(super) crowd: Option<usize>,
}

impl Column {
    /// Returns its part of a stack's figures.
    pub(super) fn figures(self, figures: &Figures) -> &Figures {
        let crowd = self.crowd.and_then(|crowd| figures.crowds.get(crowd));
        crowd.unwrap_or(figures)
    }
}

impl Results {
    pub(super) fn names(&self) -> Vec<String> {
        self.drill.names()
    }

    /// Returns the counters of a column's layers, of all seeds together.
    pub(super) fn counted(&self, stack: usize) -> LayerCounts {
        let mut counted = LayerCounts::default();
        for run in &self.runs {
            counted.merge(&run.figures[stack].counted);
        }
        counted
    }

    pub(super) fn mean(&self, stack: usize, value: impl Fn(&Figures) -> f64) -> f64 {
        let values = self.runs.iter().map(|run| value(&run.figures[stack]));
        values.sum::<f64>() / self.runs.len().max(1) as f64
    }

    pub(super) fn phase_mean(&self, stack: usize, phase: usize) -> f64 {
        self.mean(stack, |figures| figures.phases[phase].answered)
    }

    /// Returns the events that the stack's layers never reached.
    pub(super) fn not_reached(&self) -> Vec<String> {
        let counted = self.counted(0);
        if counted.layers.is_empty() {
            let none = "no layer of this crate was built in the closure: build the stack in it";
            return vec![none.into()];
        }
        let missing = Reached::worth_saying(&counted).into_iter();
        missing
            .map(|one| one.missing(&counted, &self.scenario))
            .collect()
    }

    /// Returns the phases in which the stack answers less than no stack, by more than a hundredth.
    pub(super) fn worse_than_none(&self) -> Vec<String> {
        let none = self.names().len() - 1;
        let phases = self.scenario.phases().into_iter().enumerate();
        let worse = phases.filter_map(|(number, phase)| {
            let answered = |stack: usize| self.phase_mean(stack, number);
            let (with, without) = (answered(0), answered(none));
            (with < without - 0.01).then(|| {
                format!(
                    "{phase}: {} answered, {} without a stack",
                    Measure::Answered.show(with),
                    Measure::Answered.show(without)
                )
            })
        });
        worse.collect()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.as_secs_f64(), self.to.as_secs_f64());
        write!(f, "{from:.0} to {to:.0} s, ")?;
        if self.is_well() {
            f.write_str("all well")
        } else {
            f.write_str(&self.troubles.join(" and "))
        }
    }
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results")
            .field("seeds", &self.runs.len())
            .field("took", &self.took)
            .finish_non_exhaustive()
    }
}
