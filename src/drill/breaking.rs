//! The margin: the severest trouble that a stack survives.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Drill, DrillError, Report,
    caller::Kind,
    measure::Measure,
    results::Results,
    run::{self, Runs},
    scenario::Scenario,
    times::ms,
    trouble::{Incident, Trouble},
};
use crate::ambient::clock::Stopwatch;

/// The edge between the troubles that a stack survives and those that break it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Margin {
    /// The severest trouble that the stack survived. `None` if it did not survive the mildest.
    pub survived: Option<f64>,
    /// The mildest trouble that it did not survive. `None` if it survived the severest.
    pub broke: Option<f64>,
    /// The troubles at these two, as text.
    words: [Option<String>; 2],
}

impl<K: Kind> Drill<K> {
    /// Searches the severity between 0 and 1 at which a trouble of the first upstream breaks the
    /// stack, to a hundredth. The trouble lasts for the middle third of the drill, and replaces the
    /// troubles that were set.
    ///
    /// A stack survives if in each seed 95 % of the calls are answered in time during the trouble,
    /// and it recovers within 5 s. [`breaking_point_by`](Self::breaking_point_by) takes another
    /// measure. The search finds by trial which end is harmless: 1 for [`Trouble::capacity`], 0 for
    /// [`Trouble::fails`].
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[must_use]
    pub fn breaking_point(self, trouble: impl Fn(f64) -> Trouble) -> Margin {
        self.breaking_point_by(trouble, |report| {
            let answered = report.least_in_phase(1);
            answered >= 0.95 && report.each(Measure::Recovery).value() <= 5.0
        })
    }

    /// Searches the severity between 0 and 1 at which a drill no longer `survives`, to a
    /// hundredth, as [`breaking_point`](Self::breaking_point) does.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[must_use]
    pub fn breaking_point_by(
        self,
        trouble: impl Fn(f64) -> Trouble,
        survives: impl Fn(&Report) -> bool,
    ) -> Margin {
        let (runs, scenario) = self.into_parts();
        let found = search(|severity| {
            let scenario = with_trouble(&scenario, trouble(severity));
            let report = report(&runs, scenario)?;
            Ok(survives(&report))
        });
        let margin = found.unwrap_or_else(|error: DrillError| panic!("{error}"));
        let words = [margin.0, margin.1].map(|severity| Some(trouble(severity?).to_string()));
        Margin {
            survived: margin.0,
            broke: margin.1,
            words,
        }
    }
}

/// Returns the severities on both sides of the edge.
fn search(
    survives: impl Fn(f64) -> Result<bool, DrillError>,
) -> Result<(Option<f64>, Option<f64>), DrillError> {
    let (mut good, mut bad) = match (survives(0.0)?, survives(1.0)?) {
        (true, true) => return Ok((Some(1.0), None)),
        (false, false) => return Ok((None, Some(0.0))),
        (true, false) => (0.0, 1.0),
        (false, true) => (1.0, 0.0),
    };
    while f64::abs(good - bad) > RESOLUTION {
        let middle = f64::midpoint(good, bad);
        if survives(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok((Some(good), Some(bad)))
}

fn with_trouble(scenario: &Scenario, trouble: Trouble) -> Scenario {
    let third = scenario.lasting / 3;
    let upstream = scenario.upstreams.first().map(|(name, _)| name.clone());
    Scenario {
        incidents: vec![Incident {
            // A trouble from the start would hide what the stack learns before.
            from: third.max(ms(1)),
            to: 2 * third.max(Duration::from_millis(1)),
            upstream: upstream.unwrap_or_default(),
            trouble,
        }],
        ..scenario.clone()
    }
}

fn report(runs: &Arc<dyn Runs>, scenario: Scenario) -> Result<Report, DrillError> {
    scenario.check()?;
    let watch = Stopwatch::start();
    let seeds = run::run_all(&**runs, &scenario)?;
    Ok(Report(Results {
        drill: Arc::clone(runs),
        scenario,
        runs: seeds,
        took: watch.elapsed(),
    }))
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.words {
            [Some(survived), Some(broke)] => write!(f, "survives {survived}, not {broke}"),
            [Some(survived), None] => write!(f, "survives all, {survived} too"),
            [None, _] => f.write_str("survives none"),
        }
    }
}

const RESOLUTION: f64 = 0.01;
