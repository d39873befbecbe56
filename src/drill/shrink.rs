//! The smallest story that still fails: a failing seed with fewer troubles and shorter times.

use std::fmt::Write;

use super::{
    figures::Figures,
    measure::{Measure, Requirement},
    results::{Column, Results},
    scenario::Scenario,
};

/// Returns whether two runs of the seed are equal, and the smallest story that fails.
pub(super) fn story(
    report: &Results,
    (column, seed): (Column, u64),
    (measure, limit): (Measure, Requirement),
) -> String {
    let run = |scenario: &Scenario| {
        let record = report.drill.run(scenario, column.stack, seed).ok()?;
        Some(Figures::of(&record, scenario))
    };
    let known = report.runs.iter().find(|run| run.seed == seed);
    let known = known.map(|run| run.figures[column.stack].digest);
    let again = run(&report.scenario).map(|figures| figures.digest);
    if known != again {
        return "  two runs of this seed differ: something draws at random that no seed decides, such \
                as `select!`, a balancer, or a map's order"
            .into();
    }
    let mut found = report.scenario.clone();
    let mut value = None;
    for _ in 0..MAX_RUNS {
        let smaller = smaller(&found).into_iter().find_map(|smaller| {
            let shown = measure.of(column.figures(&run(&smaller)?));
            (!limit.holds(shown)).then_some((smaller, shown))
        });
        match smaller {
            Some((smaller, shown)) => (found, value) = (smaller, Some(shown)),
            None => break,
        }
    }
    let mut text = "  two runs of this seed are equal\n".to_owned();
    match value {
        Some(value) => {
            let _ = write!(
                text,
                "  smallest:   {} in {}",
                measure.show(value),
                tell(&found)
            );
        }
        None => text.push_str("  smallest:   nothing can be left out"),
    }
    text
}

/// Returns smaller scenarios that may fail too, the smallest first.
fn smaller(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    for number in 0..scenario.incidents.len() {
        let mut fewer = scenario.clone();
        fewer.incidents.remove(number);
        found.push(fewer);
    }
    for number in 0..scenario.incidents.len() {
        let mut shorter = scenario.clone();
        let incident = &mut shorter.incidents[number];
        incident.to = incident.from + (incident.to - incident.from) / 2;
        found.push(shorter);
    }
    let last = scenario.incidents.iter().map(|incident| incident.to).max();
    let mut shorter = scenario.clone();
    shorter.lasting /= 2;
    if last.is_none_or(|last| last <= shorter.lasting) {
        found.push(shorter);
    }
    found.retain(|smaller| smaller.check().is_ok());
    found
}

fn tell(scenario: &Scenario) -> String {
    let mut text = format!("{:?}", scenario.lasting);
    for incident in &scenario.incidents {
        let _ = write!(
            text,
            ", {incident} from {:?} to {:?}",
            incident.from, incident.to
        );
    }
    if scenario.incidents.is_empty() {
        text.push_str(" with no trouble at all");
    }
    text
}

/// The most steps towards a smaller story.
const MAX_RUNS: usize = 12;
