//! The assertions of `--assert` on the settings in force.

use std::str::FromStr;

use crate::replay::{report::Report, tally::share};

/// A bound on a figure, such as `rejected_good < 0.01%`, for a test or for CI.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    text: String,
    figure: Figure,
    below: bool,
    or_equal: bool,
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    RejectedGood,
    LostGood,
    GoodLost,
    SparedBad,
    FalseTrips,
    Trips,
    Missed,
    Detection,
    Open,
    Denied,
    Broken,
}

const FIGURES: [(&str, Figure); 11] = [
    ("rejected_good", Figure::RejectedGood),
    ("lost_good", Figure::LostGood),
    ("good_lost", Figure::GoodLost),
    ("spared_bad", Figure::SparedBad),
    ("false_trips", Figure::FalseTrips),
    ("trips", Figure::Trips),
    ("missed_incidents", Figure::Missed),
    ("detection", Figure::Detection),
    ("open", Figure::Open),
    ("retries_denied", Figure::Denied),
    ("broken_lines", Figure::Broken),
];

impl FromStr for Assertion {
    type Err = String;

    /// Parses `FIGURE < BOUND`, also with `<=`, `>` and `>=`. Shares have a `%`, times an `s` or
    /// `ms`.
    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or_else(|| help(text))?;
        let (name, rest) = text.split_at(at);
        let below = rest.starts_with('<');
        let rest = &rest[1..];
        let or_equal = rest.starts_with('=');
        let bound = rest.trim_start_matches('=').trim();
        let known = FIGURES.into_iter().find(|(known, _)| *known == name.trim());
        let (_, figure) = known.ok_or_else(|| help(text))?;
        let (number, factor) = if let Some(number) = bound.strip_suffix('%') {
            (number, 0.01)
        } else if let Some(number) = bound.strip_suffix("ms") {
            (number, 0.001)
        } else {
            (bound.strip_suffix('s').unwrap_or(bound), 1.0)
        };
        let number: f64 = number.trim().parse().map_err(|_| help(text))?;
        if !number.is_finite() {
            return Err(help(text));
        }
        Ok(Self {
            text: text.trim().to_owned(),
            figure,
            below,
            or_equal,
            bound: number * factor,
        })
    }
}

fn help(text: &str) -> String {
    let names: Vec<_> = FIGURES.into_iter().map(|(name, _)| name).collect();
    format!(
        "`{text}` is no assertion: write `rejected_good < 0.01%`, say. The figures are {}",
        names.join(", ")
    )
}

impl Assertion {
    /// Checks it for the settings in force, or for the compared ones if there are any, because
    /// those will be deployed.
    ///
    /// # Errors
    /// It does not hold. The error has the actual figure.
    pub fn check(&self, report: &Report) -> Result<(), String> {
        let row = report.against.as_ref().unwrap_or(&report.now);
        let replayed = &row.as_it_was;
        let total = replayed.total();
        let weeks = report.survey.weeks();
        let value = match self.figure {
            Figure::RejectedGood => share(total.rejected_good, total.good),
            Figure::LostGood => share(total.lost_good, total.good),
            Figure::GoodLost => total.good_lost(),
            Figure::SparedBad => total.bad_spared(),
            Figure::FalseTrips => total.false_trips as f64 / weeks,
            Figure::Trips => total.trips as f64,
            Figure::Missed => (replayed.incidents - total.detected.min(replayed.incidents)) as f64,
            Figure::Detection => replayed.detection().unwrap_or(0.0),
            Figure::Open => total.open as f64 / 1e9,
            Figure::Denied => share(total.retries_denied, total.bad),
            Figure::Broken => share(report.lines.broken, report.lines.read),
        };
        let holds = match (self.below, self.or_equal) {
            (true, false) => value < self.bound,
            (true, true) => value <= self.bound,
            (false, false) => value > self.bound,
            (false, true) => value >= self.bound,
        };
        if holds {
            Ok(())
        } else {
            Err(format!("`{}` does not hold: it is {value:.6}", self.text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_times_have_units() {
        let bound = |text: &str| text.parse::<Assertion>().map(|one| one.bound);
        assert_eq!(bound("rejected_good < 0.01%"), Ok(0.0001));
        assert_eq!(bound("detection<=500ms"), Ok(0.5));
        assert_eq!(bound("false_trips < 1"), Ok(1.0));
        for text in ["", "x < 1", "trips", "trips < x", "trips < NaN%", "<"] {
            assert!(
                bound(text).unwrap_err().contains("rejected_good < 0.01%"),
                "{text}"
            );
        }
    }
}
