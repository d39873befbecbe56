//! Parts of the drills' pictures: panels over one time axis, as an SVG with its own background. The
//! examples draw with this file, too.

use std::{fmt::Write, time::Duration};

/// The time axis that all panels of a picture share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeAxis {
    pub(crate) end: Duration,
    /// The time over which rates are computed.
    pub(crate) bin: Duration,
}

/// A panel: the position of its zero line, its height, and the value at its top.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) base: f64,
    pub(crate) height: f64,
    pub(crate) most: f64,
}

/// Returns the whole picture around the drawing.
pub(crate) fn page(height: f64, label: &str, drawn: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"{label}\" font-family=\"{FONT}\" font-size=\"13\" fill=\"{INK}\">\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"10\" fill=\"{PAPER}\" stroke=\"#d0d7de\"/>\n{drawn}</svg>\n",
        WIDTH - 1.0,
        height - 1.0
    )
}

/// Draws the title, and below it a line for each side: its color, its name, and its result.
pub(crate) fn heading(svg: &mut String, title: &str, sides: [(&str, &str, String); 2]) {
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"36\" font-size=\"19\" font-weight=\"600\">{title}</text>"
    );
    for (y, (color, what, summary)) in [61.0, 82.0].into_iter().zip(sides) {
        let _ = writeln!(
            svg,
            "<rect x=\"{MARGIN}\" y=\"{}\" width=\"22\" height=\"4\" rx=\"2\" fill=\"{color}\"/>\n\
             <text x=\"{}\" y=\"{y}\"><tspan font-weight=\"600\" fill=\"{color}\">{what}:</tspan> {summary}</text>",
            y - 6.0,
            MARGIN + 30.0
        );
    }
}

/// Draws the legend of the gray area and the dotted line.
pub(crate) fn key(svg: &mut String) {
    let (key, words) = (RIGHT - 136.0, RIGHT - 108.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{key}\" y=\"51\" width=\"22\" height=\"12\" rx=\"2\" {AREA}/>"
    );
    text(svg, (words, 61.0), "start", MUTED, "requests asked");
    rule(svg, (key, 78.0), (key + 22.0, 78.0), INK, DOTS);
    text(svg, (words, 82.0), "start", MUTED, "server capacity");
}

impl TimeAxis {
    pub(crate) fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * (at.as_secs_f64() / self.end.as_secs_f64()).min(1.0)
    }

    /// Shades a span over all panels, from `PHASES` down to `bottom`.
    pub(crate) fn shade(
        &self,
        svg: &mut String,
        (from, to): (Duration, Duration),
        bottom: f64,
        color: &str,
    ) {
        let (from, to) = (self.x(from), self.x(to));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{PHASES}\" width=\"{:.1}\" height=\"{}\" fill=\"{color}\"/>",
            to - from,
            bottom - PHASES,
        );
    }

    /// Names a span, at the top.
    pub(crate) fn label(&self, svg: &mut String, (from, to): (Duration, Duration), name: &str) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{MUTED}\">{name}</text>",
            f64::midpoint(self.x(from), self.x(to)),
            PHASES + 17.0
        );
    }

    pub(crate) fn axis(&self, svg: &mut String, y: f64) {
        let seconds = self.end.as_secs();
        for second in (0..=seconds).step_by(if seconds > 30 { 5 } else { 2 }) {
            let x = self.x(Duration::from_secs(second));
            rule(svg, (x, y), (x, y + 5.0), "#8c959f", "");
            let label = if second == 0 {
                "0 s".to_owned()
            } else {
                second.to_string()
            };
            text(svg, (x, y + 20.0), "middle", MUTED, &label);
        }
    }

    /// Returns events per second, in bins.
    pub(crate) fn rates(&self, events: impl Iterator<Item = Duration>) -> Vec<f64> {
        let bin = |at: Duration| {
            usize::try_from(at.as_millis() / self.bin.as_millis()).unwrap_or(usize::MAX)
        };
        let mut rates = vec![0.0; bin(self.end)];
        for at in events {
            if let Some(rate) = rates.get_mut(bin(at)) {
                *rate += 1.0 / self.bin.as_secs_f64();
            }
        }
        rates
    }

    pub(crate) fn line(&self, svg: &mut String, panel: &Panel, values: &[f64], color: &str) {
        let points = self.points(panel, values);
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\" stroke-linejoin=\"round\"/>"
        );
    }

    /// Draws the gray area below the values.
    pub(crate) fn area(&self, svg: &mut String, panel: &Panel, values: &[f64]) {
        let (first, last) = (self.x(Duration::ZERO), self.x(self.end));
        let tops = self.points(panel, values);
        let _ = writeln!(
            svg,
            "<polygon points=\"{first},{} {tops} {last},{0}\" {AREA}/>",
            panel.base
        );
    }

    /// Draws the server's capacity, as a dotted line.
    pub(crate) fn capacity(&self, svg: &mut String, panel: &Panel, value: f64) {
        let y = panel.y(value);
        let (first, last) = (self.x(Duration::ZERO), self.x(self.end));
        rule(svg, (first, y), (last, y), INK, DOTS);
    }

    /// Returns each value at the middle of its bin, with the first and the last extended to the
    /// edges.
    fn points(&self, panel: &Panel, values: &[f64]) -> String {
        let mut points = String::new();
        for (bin, value) in values.iter().enumerate() {
            let y = panel.y(*value);
            if bin == 0 {
                let _ = write!(points, "{:.1},{y:.1}", self.x(Duration::ZERO));
            }
            let middle = self.bin.mul_f64(bin as f64 + 0.5);
            let _ = write!(points, " {:.1},{y:.1}", self.x(middle));
            if bin + 1 == values.len() {
                let _ = write!(points, " {:.1},{y:.1}", self.x(self.end));
            }
        }
        points
    }
}

impl Panel {
    pub(crate) fn y(&self, value: f64) -> f64 {
        self.base - self.height * (value / self.most).min(1.0)
    }

    /// Draws horizontal lines with their values.
    pub(crate) fn grid(&self, svg: &mut String, title: &str) {
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
        bold(svg, (LEFT, self.base - self.height - 12.0), title);
    }
}

/// Returns the next round number.
pub(crate) fn nice(value: f64) -> f64 {
    let step = step_of(value);
    (value / step).ceil() * step
}

/// Returns a round distance that divides a range into two to five.
fn step_of(most: f64) -> f64 {
    let scale = 10f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * scale)
        .into_iter()
        .find(|step| most / step <= 5.0)
        .unwrap_or(most)
}

pub(crate) fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, color: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{words}</text>"
    );
}

pub(crate) fn bold(svg: &mut String, (x, y): (f64, f64), words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-weight=\"600\">{words}</text>"
    );
}

fn rule(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), color: &str, style: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" {style}/>"
    );
}

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 24.0;
pub(crate) const LEFT: f64 = 62.0;
pub(crate) const RIGHT: f64 = 836.0;
/// The top of the shaded phases.
const PHASES: f64 = 100.0;
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";
const INK: &str = "#1f2328";
pub(crate) const MUTED: &str = "#59636e";
pub(crate) const PAPER: &str = "#ffffff";
const AREA: &str = "fill=\"#59636e\" fill-opacity=\"0.2\"";
const DOTS: &str = "stroke-width=\"1.2\" stroke-dasharray=\"1.5 3\"";
pub(crate) const KEEP: &str = "#0969da";
pub(crate) const PLAIN: &str = "#d1580f";
