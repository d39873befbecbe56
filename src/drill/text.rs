//! The report as text.

use std::fmt;

use super::{
    measure::Measure,
    record::{DENIED, HEDGED, NOT_SENT, OPENED, RECOVERED, RETRIED},
    results::Results,
};

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scenario = &self.scenario;
        let asked = scenario.seeds.end.saturating_sub(scenario.seeds.start);
        write!(f, "drill: {} seeds", self.runs.len())?;
        if (self.runs.len() as u64) < asked {
            write!(f, " of {asked}, then the time was up")?;
        }
        writeln!(
            f,
            ", {:?} of virtual time each, {} clients that wait {:?}; took {:.1} s",
            scenario.lasting,
            scenario.main().clients,
            scenario.main().patience,
            self.took.as_secs_f64()
        )?;
        for (name, servers) in &scenario.upstreams {
            let (workers, most) = (servers.workers, servers.per_second());
            writeln!(f, "{name}: {workers} workers, at most {most:.0} calls/s")?;
        }
        writeln!(f, "traffic: {:.0} calls/s in all\n", scenario.per_second())?;
        let names = self.names();
        row(f, "", names.iter().cloned())?;
        for measure in Measure::ALL {
            self.measure(f, measure, names.len())?;
        }
        writeln!(f, "\nanswered in time, by phase, mean of all seeds")?;
        for (number, phase) in scenario.phases().iter().enumerate() {
            let cells = (0..names.len())
                .map(|stack| Measure::Answered.show(self.phase_mean(stack, number)));
            row(f, &format!("  {phase}"), cells)?;
        }
        self.crowds(f, names.len())?;
        self.layers(f)?;
        list(f, "worse than no stack", &self.worse_than_none())?;
        list(f, "not reached", &self.not_reached())
    }
}

impl Results {
    /// Writes the mean of a measure, and its worst seed.
    fn measure(&self, f: &mut fmt::Formatter<'_>, measure: Measure, columns: usize) -> fmt::Result {
        let mean = |stack| measure.show(self.mean(stack, |figures| measure.of(figures)));
        row(f, measure.name(), (0..columns).map(mean))?;
        if self.runs.len() == 1 {
            return Ok(());
        }
        let worst = |stack: usize| {
            let runs = self.runs.iter();
            let values = runs.map(|run| (measure.of(&run.figures[stack]), run.seed));
            let worst = values.max_by(|one, two| {
                let order = one.0.total_cmp(&two.0);
                if measure.is_a_good() {
                    order.reverse()
                } else {
                    order
                }
            });
            worst.map_or_else(String::new, |(value, seed)| {
                format!("{} (seed {seed})", measure.show(value))
            })
        };
        row(f, "  worst seed", (0..columns).map(worst))
    }

    /// Writes the share answered of each kind of clients, if there are several.
    fn crowds(&self, f: &mut fmt::Formatter<'_>, columns: usize) -> fmt::Result {
        if self.scenario.crowds.len() < 2 {
            return Ok(());
        }
        writeln!(f, "\nanswered in time, by clients, mean of all seeds")?;
        for (number, crowd) in self.scenario.crowds.iter().enumerate() {
            let answered = |stack| self.mean(stack, |figures| figures.crowds[number].answered);
            let cells = (0..columns).map(|stack| Measure::Answered.show(answered(stack)));
            row(f, &format!("  {} of {}", crowd.clients, crowd.name), cells)?;
        }
        Ok(())
    }

    /// Writes the counters of the stack's layers, per thousand calls.
    fn layers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.counted(0);
        let asked: u64 = self.runs.iter().map(|run| run.figures[0].asked).sum();
        let per_thousand =
            |count: u64| format!("{:.2}", 1000.0 * count as f64 / asked.max(1) as f64);
        writeln!(f, "\nof the stack's layers, for each 1000 calls asked")?;
        for ((layer, kind), count) in &counted.rejected {
            row(
                f,
                &format!("  rejected by {layer}: {kind}"),
                [per_thousand(*count)],
            )?;
        }
        let events = [
            ("retries sent", RETRIED),
            ("calls that a retry saved", RECOVERED),
            ("retries that the budget refused", DENIED),
            ("hedges sent", HEDGED),
        ];
        for (name, event) in events {
            if counted.of(event) > 0 {
                row(f, &format!("  {name}"), [per_thousand(counted.of(event))])?;
            }
        }
        for (cause, count) in counted.retries.iter().filter(|(_, count)| **count > 0) {
            let name = if *cause == NOT_SENT {
                format!("  of the retries, free: {cause}")
            } else {
                format!("  of the retries, paid by the budget: {cause}")
            };
            row(f, &name, [per_thousand(*count)])?;
        }
        if counted.of(OPENED) > 0 {
            let opened = counted.of(OPENED) as f64 / self.runs.len().max(1) as f64;
            row(
                f,
                "  circuits opened, in each seed",
                [format!("{opened:.1}")],
            )?;
        }
        Ok(())
    }
}

fn row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    cells: impl IntoIterator<Item = String>,
) -> fmt::Result {
    write!(f, "{name:<52}")?;
    for cell in cells {
        write!(f, "{cell:>22}")?;
    }
    writeln!(f)
}

fn list(f: &mut fmt::Formatter<'_>, name: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{name}")?;
    for line in lines {
        writeln!(f, "  {line}")?;
    }
    Ok(())
}
