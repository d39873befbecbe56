//! The search for the run in which a stack does most harm.

use std::{fmt, sync::Arc};

use super::{
    Drill, DrillError,
    caller::Kind,
    measure::Measure,
    random::{Purpose, Random},
    run::{self, Runs},
    scenario::Scenario,
};

/// The worst run that a search has found: the one in which no stack beats this stack by most.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Worst {
    /// The share of calls answered in time with the stack, the mean of all seeds.
    pub answered: f64,
    /// The same share without a stack.
    pub without: f64,
    story: String,
}

impl<K: Kind> Drill<K> {
    /// Searches for the drill in which the stack does worst compared with none. Each step moves one
    /// trouble, changes its length, or changes the load. It is kept if the stack then does worse.
    /// Loads range from half to twice the setting, and a trouble takes at most a third of the
    /// drill. The search ends after 60 steps. Two searches of one drill find the same.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[must_use]
    pub fn worst(self) -> Worst {
        let (runs, scenario) = self.into_parts();
        let found = search(&runs, scenario);
        found.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Climbs: a scenario in which the stack does worse is the next start.
fn search(runs: &Arc<dyn Runs>, scenario: Scenario) -> Result<Worst, DrillError> {
    scenario.check()?;
    let mut random = Random::new(0, Purpose::Stack);
    let mut load = 1.0;
    let mut worst = judge(runs, &scenario, load)?;
    let mut at = scenario;
    for _ in 0..STEPS {
        let (next, next_load) = step(&at, load, &mut random);
        if next.check().is_err() {
            continue;
        }
        let judged = judge(runs, &next, next_load)?;
        if judged.harm() > worst.harm() {
            (at, load, worst) = (next, next_load, judged);
        }
    }
    Ok(worst)
}

/// Returns another scenario that differs in one thing, and its load.
fn step(scenario: &Scenario, load: f64, random: &mut Random) -> (Scenario, f64) {
    let mut next = scenario.clone();
    let factor = if random.happens(0.5) { 1.5 } else { 1.0 / 1.5 };
    let incidents = next.incidents.len();
    if incidents == 0 || random.happens(1.0 / 3.0) {
        let next_load = f64::clamp(load * factor, 0.5, 2.0);
        for (_, pattern) in &mut next.patterns {
            *pattern = pattern.times(next_load / load);
        }
        return (next, next_load);
    }
    let incident = &mut next.incidents[random.below(incidents)];
    let length = incident.to - incident.from;
    if random.happens(0.5) {
        let length = length.mul_f64(factor).min(scenario.lasting / 3);
        incident.to = incident.from + length;
    } else {
        let latest = scenario.lasting.saturating_sub(length);
        incident.from = latest.mul_f64(random.unit());
        incident.to = incident.from + length;
    }
    (next, load)
}

fn judge(runs: &Arc<dyn Runs>, scenario: &Scenario, load: f64) -> Result<Worst, DrillError> {
    let seeds = run::run_all(&**runs, scenario)?;
    let mean = |figures: fn(&run::SeedRun) -> f64| {
        seeds.iter().map(figures).sum::<f64>() / seeds.len().max(1) as f64
    };
    Ok(Worst {
        answered: mean(|run| run.figures.first().map_or(1.0, |figures| figures.answered)),
        without: mean(|run| run.figures.last().map_or(1.0, |figures| figures.answered)),
        story: tell(scenario, load),
    })
}

fn tell(scenario: &Scenario, load: f64) -> String {
    let troubles = scenario.incidents.iter().map(|incident| {
        let (from, to) = (incident.from.as_secs_f64(), incident.to.as_secs_f64());
        format!("{incident} from {from:.1} to {to:.1} s")
    });
    let load = format!("{:.0} % of the load", load * 100.0);
    let parts: Vec<_> = [load].into_iter().chain(troubles).collect();
    parts.join(", ")
}

impl Worst {
    fn harm(&self) -> f64 {
        self.without - self.answered
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answered, {} without a stack: {}",
            Measure::Answered.show(self.answered),
            Measure::Answered.show(self.without),
            self.story
        )
    }
}

const STEPS: usize = 60;
