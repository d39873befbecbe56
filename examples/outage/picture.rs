//! The timeline, as an SVG that carries its own background.

use std::{fmt::Write, time::Duration};

use tower_keep::circuit_breaker::BreakerState;

use crate::{
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
    plot.time_axis(&mut svg);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         role=\"img\" aria-label=\"Timeline of the outage drill\" font-family=\"{FONT}\" font-size=\"13\" fill=\"{INK}\">\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"10\" fill=\"{PAPER}\" stroke=\"#d0d7de\"/>\n{svg}</svg>\n",
        WIDTH - 1.0,
        HEIGHT - 1.0
    )
}

struct Plot<'a> {
    drill: &'a Drill,
    options: &'a Options,
    end: Duration,
}

/// A panel: where its zero line is, how high it is, and the value at its top.
struct Panel {
    base: f64,
    height: f64,
    most: f64,
}

impl Panel {
    fn y(&self, value: f64) -> f64 {
        self.base - self.height * (value / self.most).min(1.0)
    }

    /// Horizontal lines, with their values.
    fn grid(&self, svg: &mut String, title: &str) {
        let step = step_of(self.most);
        let values = (0..)
            .map(|tick| f64::from(tick) * step)
            .take_while(|value| *value <= self.most);
        for value in values {
            let y = self.y(value);
            rule(
                svg,
                (LEFT, y),
                (RIGHT, y),
                if value == 0.0 { "#8c959f" } else { "#e3e7eb" },
                "",
            );
            text(svg, (LEFT - 8.0, y + 4.0), "end", MUTED, &value.to_string());
        }
        bold(svg, (LEFT, self.base - self.height - 12.0), INK, title);
    }
}

impl<'a> Plot<'a> {
    fn new(drill: &'a Drill, options: &'a Options) -> Self {
        Self {
            drill,
            options,
            end: drill.script.end(),
        }
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * (at.as_secs_f64() / self.end.as_secs_f64()).min(1.0)
    }

    fn heading(&self, svg: &mut String) {
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"36\" font-size=\"19\" font-weight=\"600\">One outage, the same traffic, two clients</text>"
        );
        for (y, side, color, what) in [
            (61.0, &self.drill.keep, KEEP, "tower-keep stack"),
            (82.0, &self.drill.plain, PLAIN, "naive retries"),
        ] {
            let summary = self.summary(side);
            let _ = writeln!(
                svg,
                "<rect x=\"{MARGIN}\" y=\"{}\" width=\"22\" height=\"4\" rx=\"2\" fill=\"{color}\"/>\n\
                 <text x=\"{}\" y=\"{y}\"><tspan font-weight=\"600\" fill=\"{color}\">{what}:</tspan> {summary}</text>",
                y - 6.0,
                MARGIN + 30.0
            );
        }
        let (key, words) = (RIGHT - 136.0, RIGHT - 108.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{key}\" y=\"51\" width=\"22\" height=\"12\" rx=\"2\" {AREA}/>"
        );
        text(svg, (words, 61.0), "start", MUTED, "requests asked");
        rule(svg, (key, 78.0), (key + 22.0, 78.0), INK, DOTS);
        text(svg, (words, 82.0), "start", MUTED, "server capacity");
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
            let (from, to) = (self.x(phase.start), self.x(phase.end));
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{PHASES}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>",
                to - from,
                BAND + BAND_HEIGHT - PHASES,
                shade(phase)
            );
        }
        for (name, from, to) in self.labels() {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{MUTED}\">{name}</text>",
                f64::midpoint(self.x(from), self.x(to)),
                PHASES + 17.0
            );
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
        let offered = self.rates(keep.requests.iter().map(|asked| asked.at));
        let good = |side: &Side| {
            let deadline = self.options.deadline;
            self.rates(
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
        let (first, last) = (self.x(Duration::ZERO), self.x(self.end));
        let tops = self.points(&panel, &offered);
        let _ = writeln!(
            svg,
            "<polygon points=\"{first},{} {tops} {last},{0}\" {AREA}/>",
            panel.base
        );
        self.line(svg, &panel, &good(plain), PLAIN);
        self.line(svg, &panel, &good(keep), KEEP);
    }

    fn calls(&self, svg: &mut String) {
        let [keep, plain] = [&self.drill.keep, &self.drill.plain]
            .map(|side| self.rates(side.calls.iter().copied()));
        let most = keep.iter().chain(&plain).copied().fold(1.0, f64::max);
        let panel = Panel {
            base: 476.0,
            height: 134.0,
            most: nice(most.max(self.capacity() * 1.1)),
        };
        panel.grid(svg, "Calls that reach the server, per second");
        let y = panel.y(self.capacity());
        rule(svg, (LEFT, y), (RIGHT, y), INK, DOTS);
        self.line(svg, &panel, &plain, PLAIN);
        self.line(svg, &panel, &keep, KEEP);
    }

    /// Of a healthy server, in calls a second.
    fn capacity(&self) -> f64 {
        self.options.workers as f64 / self.options.service_time.as_secs_f64()
    }

    fn breaker(&self, svg: &mut String) {
        bold(
            svg,
            (LEFT, BAND - 9.0),
            INK,
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
        let ends = changes.iter().skip(1).map(|(at, _)| *at).chain([self.end]);
        for ((at, state), end) in changes.iter().zip(ends) {
            let (from, to) = (self.x(*at), self.x(end));
            // A state too short for a pixel is still a state.
            let width = (to - from).max(1.5);
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{BAND}\" width=\"{width:.1}\" height=\"{BAND_HEIGHT}\" fill=\"{}\"/>",
                paint(*state)
            );
        }
    }

    fn time_axis(&self, svg: &mut String) {
        let seconds = self.end.as_secs();
        for second in (0..=seconds).step_by(if seconds > 30 { 5 } else { 2 }) {
            let x = self.x(Duration::from_secs(second));
            rule(
                svg,
                (x, BAND + BAND_HEIGHT),
                (x, BAND + BAND_HEIGHT + 5.0),
                "#8c959f",
                "",
            );
            let label = if second == 0 {
                "0 s".to_owned()
            } else {
                second.to_string()
            };
            text(svg, (x, BAND + BAND_HEIGHT + 20.0), "middle", MUTED, &label);
        }
    }

    /// Events a second, in bins.
    fn rates(&self, events: impl Iterator<Item = Duration>) -> Vec<f64> {
        let bin =
            |at: Duration| usize::try_from(at.as_millis() / BIN.as_millis()).unwrap_or(usize::MAX);
        let mut rates = vec![0.0; bin(self.end)];
        for at in events {
            if let Some(rate) = rates.get_mut(bin(at)) {
                *rate += 1.0 / BIN.as_secs_f64();
            }
        }
        rates
    }

    fn line(&self, svg: &mut String, panel: &Panel, values: &[f64], color: &str) {
        let points = self.points(panel, values);
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\" stroke-linejoin=\"round\"/>"
        );
    }

    /// Each rate at the middle of its bin, the first and the last drawn out to the edges.
    fn points(&self, panel: &Panel, values: &[f64]) -> String {
        let mut points = String::new();
        for (bin, value) in values.iter().enumerate() {
            let y = panel.y(*value);
            if bin == 0 {
                let _ = write!(points, "{:.1},{y:.1}", self.x(Duration::ZERO));
            }
            let _ = write!(
                points,
                " {:.1},{y:.1}",
                self.x(BIN.mul_f64(bin as f64 + 0.5))
            );
            if bin + 1 == values.len() {
                let _ = write!(points, " {:.1},{y:.1}", self.x(self.end));
            }
        }
        points
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

/// The next round number.
fn nice(value: f64) -> f64 {
    let step = step_of(value);
    (value / step).ceil() * step
}

/// A round distance that divides a range into two to five.
fn step_of(most: f64) -> f64 {
    let scale = 10f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * scale)
        .into_iter()
        .find(|step| most / step <= 5.0)
        .unwrap_or(most)
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, color: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{words}</text>"
    );
}

fn bold(svg: &mut String, (x, y): (f64, f64), color: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-weight=\"600\" fill=\"{color}\">{words}</text>"
    );
}

fn rule(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), color: &str, style: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" {style}/>"
    );
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 570.0;
const MARGIN: f64 = 24.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 836.0;
/// The top of the shaded phases.
const PHASES: f64 = 100.0;
const BAND: f64 = 514.0;
const BAND_HEIGHT: f64 = 20.0;
/// The time over which rates are taken.
const BIN: Duration = Duration::from_millis(500);
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";
const INK: &str = "#1f2328";
const MUTED: &str = "#59636e";
const PAPER: &str = "#ffffff";
const AREA: &str = "fill=\"#59636e\" fill-opacity=\"0.2\"";
const DOTS: &str = "stroke-width=\"1.2\" stroke-dasharray=\"1.5 3\"";
const KEEP: &str = "#0969da";
const PLAIN: &str = "#d1580f";
