//! The course of a drill, as data.

use std::{ops::Range, time::Duration};

use super::{
    DrillError, Servers,
    traffic::Pattern,
    trouble::{Incident, Timeline},
};

/// Everything of a drill except the user's closures.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// The clients of the drilled stack, and those [beside](super::Drill::beside) them.
    pub(super) crowds: Vec<Crowd>,
    pub(super) lasting: Duration,
    pub(super) upstreams: Vec<(String, Servers)>,
    pub(super) incidents: Vec<Incident>,
    /// Each pattern with the index of its crowd.
    pub(super) patterns: Vec<(usize, Pattern)>,
    pub(super) seeds: Range<u64>,
    /// The real time that all seeds together may take.
    pub(super) within: Option<Duration>,
}

/// Clients of one kind.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    pub(super) name: String,
    pub(super) clients: usize,
    /// Set if all of them share one stack, as those of a server do.
    pub(super) is_shared: bool,
    pub(super) patience: Duration,
}

/// A span of a drill in which no trouble begins or ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Phase {
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// The troubles of this span. Empty if there are none.
    pub(super) troubles: Vec<String>,
}

impl Scenario {
    pub(super) fn new(is_shared: bool) -> Self {
        Self {
            crowds: vec![Crowd {
                name: MAIN.into(),
                clients: 1,
                is_shared,
                patience: Duration::from_secs(10),
            }],
            lasting: Duration::from_secs(60),
            upstreams: Vec::new(),
            incidents: Vec::new(),
            patterns: Vec::new(),
            seeds: 0..20,
            within: None,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A setting that is invalid, or missing.
    pub(super) fn check(&self) -> Result<(), DrillError> {
        let rejected = |field, fix: &str| Err(DrillError::setting(field, fix));
        if self.upstreams.is_empty() {
            return rejected("upstream", "name at least one, with its `Servers`");
        }
        if self.patterns.is_empty() {
            return rejected(
                "traffic",
                "say when calls come, such as `Poisson::per_second(200)`",
            );
        }
        if !self.patterns.iter().all(|(_, pattern)| pattern.is_sound()) {
            return rejected("traffic", "use a rate above 0, and finite");
        }
        if self.crowds.iter().any(|crowd| crowd.clients == 0)
            || self
                .upstreams
                .iter()
                .any(|(_, servers)| servers.workers == 0)
        {
            return rejected(
                "clients",
                "use at least one client, and one worker an upstream",
            );
        }
        let is_nothing = |crowd: &Crowd| crowd.patience.is_zero();
        if self.lasting.is_zero() || self.crowds.iter().any(is_nothing) || self.lasting > LONGEST {
            return rejected(
                "lasting",
                "use more than nothing, patience too, and at most a day",
            );
        }
        if self.seeds.is_empty() {
            return rejected("seeds", "use at least one");
        }
        for incident in &self.incidents {
            if let Some(fix) = incident.trouble.fault() {
                return rejected("trouble", fix);
            }
            if incident.from >= incident.to || incident.from >= self.lasting {
                return rejected(
                    "trouble",
                    "let it begin before it ends, and before the drill does",
                );
            }
            if self.number(&incident.upstream).is_none() {
                let fix = format!("there is no upstream of the name `{}`", incident.upstream);
                return rejected("trouble", &fix);
            }
        }
        Ok(())
    }

    pub(super) fn timeline(&self) -> Timeline {
        let mut timeline = Timeline::default();
        for incident in &self.incidents {
            if let Some(upstream) = self.number(&incident.upstream) {
                timeline.add(upstream, incident);
            }
        }
        timeline
    }

    /// Returns the spans between the beginnings and the ends of troubles.
    pub(super) fn phases(&self) -> Vec<Phase> {
        let ends = self.incidents.iter();
        let mut moments: Vec<_> = ends
            .flat_map(|incident| [incident.from, incident.to])
            .chain([Duration::ZERO, self.lasting])
            .filter(|moment| *moment <= self.lasting)
            .collect();
        moments.sort_unstable();
        moments.dedup();
        let spans = moments.windows(2).map(|span| (span[0], span[1]));
        let phases = spans.map(|(from, to)| Phase {
            from,
            to,
            troubles: self.troubles_at(from),
        });
        phases.collect()
    }

    /// Returns the times at which all trouble has ended, each with how long that lasts.
    pub(super) fn all_clear(&self) -> Vec<(Duration, Duration)> {
        let phases = self.phases();
        let pairs = phases.windows(2);
        let clear = pairs.filter(|pair| !pair[0].is_well() && pair[1].is_well());
        clear.map(|pair| (pair[1].from, pair[1].to)).collect()
    }

    /// Returns the calls per second of all sources, without troubles.
    pub(super) fn per_second(&self) -> f64 {
        let patterns = self.patterns.iter();
        patterns.map(|(_, pattern)| pattern.per_second()).sum()
    }

    /// Returns the calls per second that each of the drilled stacks makes.
    pub(super) fn per_second_and_stack(&self) -> f64 {
        let own = self.patterns.iter().filter(|(crowd, _)| *crowd == 0);
        let all: f64 = own.map(|(_, pattern)| pattern.per_second()).sum();
        all / self.main().stacks() as f64
    }

    /// Returns the clients of the drilled stack.
    pub(super) fn main(&self) -> &Crowd {
        &self.crowds[0]
    }

    pub(super) fn main_mut(&mut self) -> &mut Crowd {
        &mut self.crowds[0]
    }

    /// Returns the longest patience of all clients.
    pub(super) fn patience(&self) -> Duration {
        let patience = self.crowds.iter().map(|crowd| crowd.patience);
        patience.max().unwrap_or_default()
    }

    fn troubles_at(&self, at: Duration) -> Vec<String> {
        let active = self.incidents.iter();
        let active = active.filter(|incident| (incident.from..incident.to).contains(&at));
        active.map(Incident::to_string).collect()
    }

    fn number(&self, name: &str) -> Option<usize> {
        let mut names = self.upstreams.iter();
        names.position(|(known, _)| known == name)
    }
}

impl Crowd {
    pub(super) fn stacks(&self) -> usize {
        if self.is_shared { 1 } else { self.clients }
    }
}

impl Phase {
    pub(super) fn is_well(&self) -> bool {
        self.troubles.is_empty()
    }
}

/// The longest drill. Time is virtual, but each of its calls is run.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The name of the drilled stack's clients.
const MAIN: &str = "main";
