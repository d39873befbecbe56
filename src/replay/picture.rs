//! The pictures of a report, as SVG within the page, with the page's colors.

use std::fmt::Write;

use crate::replay::words::escaped;

/// The axes of a picture.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) log_x: bool,
    pub(super) log_y: bool,
}

/// A candidate.
#[derive(Debug, Clone)]
pub(super) struct Dot {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) label: String,
    /// If true, it is the current setting.
    pub(super) is_here: bool,
}

/// The ends of an axis.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
}

/// Draws dots, each with its name as a tooltip.
pub(super) fn dots(chart: &Chart<'_>, dots: &[Dot]) -> String {
    drawn(chart, &[], dots)
}

/// Draws lines, with dots on them.
pub(super) fn lines(chart: &Chart<'_>, lines: &[&[(f64, f64)]], dots: &[Dot]) -> String {
    drawn(chart, lines, dots)
}

fn drawn(chart: &Chart<'_>, lines: &[&[(f64, f64)]], dots: &[Dot]) -> String {
    let points = lines.iter().flat_map(|line| line.iter().copied());
    let all: Vec<_> = points
        .chain(dots.iter().map(|dot| (dot.x, dot.y)))
        .collect();
    if all.is_empty() {
        return "<p>There is nothing to draw.</p>".into();
    }
    let across = Axis::over(all.iter().map(|point| point.0), chart.log_x);
    let up = Axis::over(all.iter().map(|point| point.1), chart.log_y);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
         aria-label=\"{}\" font-size=\"12\" fill=\"currentColor\">",
        escaped(chart.title)
    );
    grid(&mut svg, chart, across, up);
    for (line, color) in lines.iter().zip(["var(--one)", "var(--two)"]) {
        let points: Vec<_> = line
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", place_x(across, *x), place_y(up, *y)))
            .collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
    }
    for dot in dots {
        let (x, y) = (place_x(across, dot.x), place_y(up, dot.y));
        let (color, radius) = if dot.is_here {
            ("var(--two)", 7)
        } else {
            ("var(--one)", 4)
        };
        let _ = write!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{color}\"><title>{}</title></circle>",
            escaped(&dot.label)
        );
        if dot.is_here {
            let (anchor, at) = if x > WIDTH * 0.7 {
                ("end", x - 11.0)
            } else {
                ("start", x + 11.0)
            };
            let _ = write!(
                svg,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" font-weight=\"600\">you are here</text>",
                y + 4.0
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

fn grid(svg: &mut String, chart: &Chart<'_>, across: Axis, up: Axis) {
    for value in up.ticks() {
        let y = place_y(up, value);
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--line)\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"var(--soft)\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            short(value)
        );
    }
    for value in across.ticks() {
        let x = place_x(across, value);
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\" stroke=\"var(--line)\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"var(--soft)\">{}</text>",
            BOTTOM + 18.0,
            short(value)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">{}</text><text x=\"{LEFT}\" y=\"{}\">{}</text>",
        BOTTOM + 36.0,
        escaped(chart.x),
        TOP - 10.0,
        escaped(chart.y)
    );
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, is_log: bool) -> Self {
        let values: Vec<_> = values.filter(|value| !is_log || *value > 0.0).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low.is_finite() {
            (low, high)
        } else {
            (0.1, 1.0)
        };
        if is_log {
            let (low, high) = (low.log10().floor(), high.log10().ceil());
            return Self {
                low,
                high: high.max(low + 1.0),
                is_log,
            };
        }
        Self {
            low: low.min(0.0),
            high: if high > low.min(0.0) { high * 1.1 } else { 1.0 },
            is_log,
        }
    }

    /// Returns the position on the axis, from 0 to 1.
    fn share(self, value: f64) -> f64 {
        let value = if self.is_log {
            value.max(1e-12).log10()
        } else {
            value
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<f64> {
        if self.is_log {
            let mut ticks = Vec::new();
            let mut power = self.low;
            while power <= self.high + 1e-9 {
                ticks.push(10f64.powf(power));
                power += ((self.high - self.low) / 8.0).ceil().max(1.0);
            }
            return ticks;
        }
        let span = self.high - self.low;
        let scale = 10f64.powf((span / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * scale);
        let step = step
            .into_iter()
            .find(|step| span / step <= 6.0)
            .unwrap_or(span);
        let mut ticks = Vec::new();
        let mut value = (self.low / step).ceil() * step;
        while value <= self.high {
            ticks.push(value);
            value += step;
        }
        ticks
    }
}

fn place_x(axis: Axis, value: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * axis.share(value)
}

fn place_y(axis: Axis, value: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * axis.share(value)
}

/// Returns `0.001`, `20`, `5k` or `2M`.
fn short(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    match rounded.abs() {
        1e6.. => format!("{}M", rounded / 1e6),
        1e4.. => format!("{}k", rounded / 1e3),
        _ => rounded.to_string(),
    }
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 940.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 270.0;
