//! A drill as a picture: one seed, the stack and no stack.

use std::{fmt::Write, time::Duration};

use super::{
    DrillError,
    drawing::{KEEP, LEFT, MUTED, PLAIN, Panel, TimeAxis, bold, heading, key, nice, page, text},
    figures::Figures,
    measure::Measure,
    record::Record,
    results::Results,
    scenario::Scenario,
};

/// Draws the results of a seed's calls, how many calls reached the upstreams, and how many circuits
/// were open.
///
/// # Errors
/// A stack does not build.
pub(super) fn draw(results: &Results, seed: u64) -> Result<String, DrillError> {
    let scenario = &results.scenario;
    let none = results.names().len() - 1;
    let stack = results
        .drill
        .run_looking(scenario, 0, seed, Some(bin(scenario)))?;
    let plain = results.drill.run(scenario, none, seed)?;
    let picture = Picture {
        scenario,
        time: TimeAxis {
            end: scenario.lasting,
            bin: bin(scenario),
        },
        stack,
        plain,
    };
    Ok(picture.draw(seed))
}

struct Picture<'a> {
    scenario: &'a Scenario,
    time: TimeAxis,
    stack: Record,
    plain: Record,
}

impl Picture<'_> {
    fn draw(&self, seed: u64) -> String {
        let mut svg = String::new();
        let sides = [
            (KEEP, "the stack", self.summary(&self.stack)),
            (PLAIN, "no stack", self.summary(&self.plain)),
        ];
        heading(
            &mut svg,
            &format!("The same traffic, with and without the stack (seed {seed})"),
            sides,
        );
        key(&mut svg);
        self.phases(&mut svg);
        self.answered(&mut svg);
        self.calls(&mut svg);
        self.circuits(&mut svg);
        self.time.axis(&mut svg, BAND + BAND_HEIGHT);
        page(HEIGHT, "Timeline of a drill", &svg)
    }

    fn summary(&self, record: &Record) -> String {
        let figures = Figures::of(record, self.scenario);
        format!(
            "{} answered in time, {} calls for each asked, back after {}",
            Measure::Answered.show(figures.answered),
            Measure::Sent.show(figures.sent),
            Measure::Recovery.show(figures.recovery),
        )
    }

    fn phases(&self, svg: &mut String) {
        for phase in self.scenario.phases() {
            if !phase.is_well() {
                let span = (phase.from, phase.to);
                self.time.shade(svg, span, BAND + BAND_HEIGHT, TROUBLE);
                self.time
                    .label(svg, span, &escaped(&phase.troubles.join(", ")));
            }
        }
    }

    fn answered(&self, svg: &mut String) {
        let rates = |record: &Record, all: bool| {
            let calls = record.asked.iter().filter(|call| all || call.is_good());
            self.time
                .rates(calls.map(|call| Duration::from_nanos(call.at)))
        };
        let asked = rates(&self.stack, true);
        let panel = Panel {
            base: 282.0,
            height: 134.0,
            most: nice(asked.iter().copied().fold(1.0, f64::max)),
        };
        panel.grid(svg, "Answered in time, calls per second");
        self.time.area(svg, &panel, &asked);
        self.time
            .line(svg, &panel, &rates(&self.plain, false), PLAIN);
        self.time
            .line(svg, &panel, &rates(&self.stack, false), KEEP);
    }

    fn calls(&self, svg: &mut String) {
        let rates = |record: &Record| {
            let sent = record.sent.iter();
            self.time.rates(sent.map(|at| Duration::from_nanos(*at)))
        };
        let (stack, plain) = (rates(&self.stack), rates(&self.plain));
        let upstreams = self.scenario.upstreams.iter();
        let capacity: f64 = upstreams.map(|(_, servers)| servers.per_second()).sum();
        let most = stack.iter().chain(&plain).copied().fold(1.0, f64::max);
        let panel = Panel {
            base: 476.0,
            height: 134.0,
            most: nice(most.max(capacity * 1.1)),
        };
        panel.grid(svg, "Calls that reach the upstreams, per second");
        self.time.capacity(svg, &panel, capacity);
        self.time.line(svg, &panel, &plain, PLAIN);
        self.time.line(svg, &panel, &stack, KEEP);
    }

    /// Draws a band that is redder if more circuits are open.
    fn circuits(&self, svg: &mut String) {
        let most = self.stack.open.iter().copied().max().unwrap_or(0);
        let title = format!("Circuits that are open, at most {most}");
        bold(svg, (LEFT, BAND - 9.0), &title);
        if self.stack.counted.layers.is_empty() {
            text(svg, (LEFT, BAND + 14.0), "start", MUTED, "none was built");
        }
        for (number, open) in (0u32..).zip(&self.stack.open) {
            let (from, to) = (self.time.bin * number, self.time.bin * (number + 1));
            let (from, to) = (self.time.x(from), self.time.x(to));
            let share = *open as f64 / most.max(1) as f64;
            if share > 0.0 {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{from:.1}\" y=\"{BAND}\" width=\"{:.1}\" height=\"{BAND_HEIGHT}\" \
                     fill=\"#cf222e\" fill-opacity=\"{share:.2}\"/>",
                    to - from
                );
            }
        }
    }
}

/// Returns half a second, or a hundredth of a long drill.
fn bin(scenario: &Scenario) -> Duration {
    (scenario.lasting / 100)
        .max(Duration::from_millis(500))
        .min(scenario.lasting)
}

/// Escapes a name, which the user has chosen.
fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}

const HEIGHT: f64 = 570.0;
const BAND: f64 = 514.0;
const BAND_HEIGHT: f64 = 20.0;
const TROUBLE: &str = "#fdebd3";
