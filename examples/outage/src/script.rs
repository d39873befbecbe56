//! What happens to the servers, and when.

use std::time::Duration;

/// The phases of the drill, in order and without gaps.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) phases: Vec<Phase>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    pub(crate) health: Health,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Health {
    /// Works, each call taking `slowness` times as long as usual, and a share of them failing.
    Serving { slowness: f64, failing: f64 },
    /// The process is gone, and with it connections and backlog: its port refuses.
    Refusing,
    /// The process is back and accepts calls, but no worker moves.
    Hanging,
}

impl Script {
    /// The script stretched to so many seconds.
    pub(crate) fn new(seconds: f64) -> Self {
        let total: f64 = PHASES.iter().map(|(_, length, _)| length).sum();
        let mut start = Duration::ZERO;
        let phases = PHASES.iter().map(|&(name, length, health)| {
            let phase = Phase {
                name,
                start,
                end: start + Duration::from_secs_f64(seconds * length / total),
                health,
            };
            start = phase.end;
            phase
        });
        Self {
            phases: phases.collect(),
        }
    }

    pub(crate) fn end(&self) -> Duration {
        self.phases.last().map_or(Duration::ZERO, |phase| phase.end)
    }

    /// When the servers work again.
    pub(crate) fn outage_end(&self) -> Duration {
        let dead = self
            .phases
            .iter()
            .rfind(|phase| matches!(phase.health, Health::Refusing | Health::Hanging));
        dead.map_or(Duration::ZERO, |phase| phase.end)
    }

    pub(crate) fn at(&self, now: Duration) -> Option<&Phase> {
        self.phases.iter().find(|phase| now < phase.end)
    }
}

/// Names, relative lengths, and health.
const PHASES: [(&str, f64, Health); 7] = [
    (
        "healthy",
        3.0,
        Health::Serving {
            slowness: 1.0,
            failing: 0.0,
        },
    ),
    (
        "slow",
        3.0,
        Health::Serving {
            slowness: 1.35,
            failing: 0.0,
        },
    ),
    (
        "half fail",
        4.0,
        Health::Serving {
            slowness: 1.0,
            failing: 0.5,
        },
    ),
    ("refuses", 2.0, Health::Refusing),
    ("hangs", 3.0, Health::Hanging),
    (
        "recovers",
        3.0,
        Health::Serving {
            slowness: 1.2,
            failing: 0.0,
        },
    ),
    (
        "healthy",
        10.0,
        Health::Serving {
            slowness: 1.0,
            failing: 0.0,
        },
    ),
];
