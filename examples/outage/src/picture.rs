//! The timeline.

use std::{fmt::Write, time::Duration};

use tower_keep::circuit_breaker::BreakerState;

use crate::{
    drawing::{
        KEEP, LEFT, MUTED, PAPER, PLAIN, Panel, RIGHT, TimeAxis, bold, heading, key, nice, page,
        text,
    },
    measure::{Drill, Side},
    options::Options,
    report::{NEVER, recovered},
    script::{Health, Phase},
    state_name,
};

/// Draws a drill.
pub(crate) fn draw(drill: &Drill, options: &Options) -> String {
    let plot = Plot::new(drill, options);
    let mut svg = String::new();
    plot.heading(&mut svg);
    plot.phases(&mut svg);
    plot.goodput(&mut svg);
    plot.calls(&mut svg);
    plot.breaker(&mut svg);
    plot.time.axis(&mut svg, BAND + BAND_HEIGHT);
    page(HEIGHT, "Timeline of the outage drill", &svg)
}

struct Plot<'a> {
    drill: &'a Drill,
    options: &'a Options,
    time: TimeAxis,
}

impl<'a> Plot<'a> {
    fn new(drill: &'a Drill, options: &'a Options) -> Self {
        Self {
            drill,
            options,
            time: TimeAxis {
                end: drill.script.end(),
                bin: BIN,
            },
        }
    }

    fn heading(&self, svg: &mut String) {
        let title = "One outage, the same traffic, two clients";
        let Drill { plain, keep, .. } = self.drill;
        let sides = [
            (KEEP, "tower-keep stack", self.summary(keep)),
            (PLAIN, "naive retries", self.summary(plain)),
        ];
        heading(svg, title, sides);
        key(svg);
    }

    fn summary(&self, side: &Side) -> String {
        let good = 100.0 * side.good(self.options.deadline) as f64 / side.asked().max(1) as f64;
        let recovery = match recovered(side, self.drill, self.options).as_str() {
            NEVER => "never recovers".to_owned(),
            time => format!("recovers in {time}"),
        };
        format!(
            "{recovery}, {good:.0} % answered in time, {:.1} calls per request",
            side.amplification()
        )
    }

    /// Shades what ails the server, over all panels.
    fn phases(&self, svg: &mut String) {
        for phase in &self.drill.script.phases {
            let span = (phase.start, phase.end);
            self.time.shade(svg, span, BAND + BAND_HEIGHT, shade(phase));
        }
        for (name, from, to) in self.labels() {
            self.time.label(svg, (from, to), &name);
        }
    }

    /// The names of the phases and their spans; the two ways to be dead share one.
    fn labels(&self) -> Vec<(String, Duration, Duration)> {
        let mut labels: Vec<(String, Duration, Duration)> = Vec::new();
        for phase in &self.drill.script.phases {
            match (phase.health, labels.last_mut()) {
                (Health::Hanging, Some((name, _, end))) => {
                    *name = format!("dead: {name}, {}", phase.name);
                    *end = phase.end;
                }
                _ => labels.push((phase.name.to_owned(), phase.start, phase.end)),
            }
        }
        labels
    }

    fn goodput(&self, svg: &mut String) {
        let [keep, plain] = [&self.drill.keep, &self.drill.plain];
        let offered = self.time.rates(keep.requests.iter().map(|asked| asked.at));
        let good = |side: &Side| {
            let deadline = self.options.deadline;
            self.time.rates(
                side.requests
                    .iter()
                    .filter(move |asked| asked.is_good(deadline))
                    .map(|asked| asked.at),
            )
        };
        let panel = Panel {
            base: 282.0,
            height: 134.0,
            most: nice(offered.iter().copied().fold(1.0, f64::max)),
        };
        panel.grid(svg, "Answered in time, requests per second");
        self.time.area(svg, &panel, &offered);
        self.time.line(svg, &panel, &good(plain), PLAIN);
        self.time.line(svg, &panel, &good(keep), KEEP);
    }

    fn calls(&self, svg: &mut String) {
        let [keep, plain] = [&self.drill.keep, &self.drill.plain]
            .map(|side| self.time.rates(side.calls.iter().copied()));
        let most = keep.iter().chain(&plain).copied().fold(1.0, f64::max);
        let panel = Panel {
            base: 476.0,
            height: 134.0,
            most: nice(most.max(self.capacity() * 1.1)),
        };
        panel.grid(svg, "Calls that reach the server, per second");
        self.time.capacity(svg, &panel, self.capacity());
        self.time.line(svg, &panel, &plain, PLAIN);
        self.time.line(svg, &panel, &keep, KEEP);
    }

    /// Of a healthy server, in calls a second.
    fn capacity(&self) -> f64 {
        self.options.workers as f64 / self.options.service_time.as_secs_f64()
    }

    fn breaker(&self, svg: &mut String) {
        bold(
            svg,
            (LEFT, BAND - 9.0),
            "Circuit breaker of the tower-keep stack",
        );
        for (key, state) in [
            (RIGHT - 236.0, BreakerState::Closed),
            (RIGHT - 160.0, BreakerState::Open),
            (RIGHT - 92.0, BreakerState::HalfOpen),
        ] {
            let color = paint(state);
            let _ = writeln!(
                svg,
                "<rect x=\"{key}\" y=\"{}\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{color}\"/>",
                BAND - 19.0
            );
            text(
                svg,
                (key + 17.0, BAND - 9.0),
                "start",
                MUTED,
                state_name(state),
            );
        }
        let changes = &self.drill.band.changes;
        let ends = changes
            .iter()
            .skip(1)
            .map(|(at, _)| *at)
            .chain([self.time.end]);
        for ((at, state), end) in changes.iter().zip(ends) {
            let (from, to) = (self.time.x(*at), self.time.x(end));
            // A state too short for a pixel is still a state.
            let width = (to - from).max(1.5);
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{BAND}\" width=\"{width:.1}\" height=\"{BAND_HEIGHT}\" fill=\"{}\"/>",
                paint(*state)
            );
        }
    }
}

fn shade(phase: &Phase) -> &'static str {
    match phase.health {
        Health::Refusing | Health::Hanging => "#fbdcd8",
        Health::Serving { failing, .. } if failing > 0.0 => "#fdebd3",
        Health::Serving { slowness, .. } if slowness > 1.0 => "#fdf6d8",
        Health::Serving { .. } => PAPER,
    }
}

fn paint(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "#57ab8a",
        BreakerState::Open => "#cf222e",
        BreakerState::HalfOpen => "#e0a100",
        _ => "#8c959f",
    }
}

const HEIGHT: f64 = 570.0;
const BAND: f64 = 514.0;
const BAND_HEIGHT: f64 = 20.0;
const BIN: Duration = Duration::from_millis(500);
