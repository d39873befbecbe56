//! What was seen, and the figures made of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tower_keep::{RejectedKind, circuit_breaker::BreakerState};

use crate::{
    script::Script,
    traffic::{Answer, Asked},
};

/// A drill that is over.
#[derive(Debug)]
pub(crate) struct Drill {
    pub(crate) script: Script,
    pub(crate) plain: Side,
    pub(crate) keep: Side,
    pub(crate) band: Band,
    pub(crate) retries: u64,
    pub(crate) over_budget: u64,
}

/// One client and its server.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) name: &'static str,
    /// By the moment they were asked.
    pub(crate) requests: Vec<Asked>,
    /// When calls reached the server.
    pub(crate) calls: Vec<Duration>,
}

/// The breaker's states, each from its start to the next one's.
#[derive(Debug, Default)]
pub(crate) struct Band {
    pub(crate) changes: Vec<(Duration, BreakerState)>,
}

impl Side {
    pub(crate) fn new(
        name: &'static str,
        requests: Arc<Mutex<Vec<Asked>>>,
        calls: Vec<Duration>,
    ) -> Self {
        let mut requests = requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        requests.sort_by_key(|asked| asked.at);
        Self {
            name,
            requests,
            calls,
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn good(&self, deadline: Duration) -> usize {
        self.requests
            .iter()
            .filter(|asked| asked.is_good(deadline))
            .count()
    }

    /// Calls that reached the server for each request asked.
    pub(crate) fn amplification(&self) -> f64 {
        ratio(self.calls.len(), self.asked())
    }

    /// The largest second's calls at the server, for each request asked in the same second.
    pub(crate) fn worst_amplification(&self) -> f64 {
        let end = self.requests.last().map_or(0, |asked| asked.at.as_secs());
        let second = |at: u64| Duration::from_secs(at)..Duration::from_secs(at + 1);
        let worst = (0..end).map(|at| {
            ratio(
                self.calls
                    .iter()
                    .filter(|call| second(at).contains(call))
                    .count(),
                self.between(second(at)).count(),
            )
        });
        worst.fold(0.0, f64::max)
    }

    /// How long callers waited for an answer, of whatever kind.
    pub(crate) fn latency(&self, percent: usize) -> Duration {
        let mut sorted: Vec<_> = self.requests.iter().map(|asked| asked.took).collect();
        sorted.sort_unstable();
        let rank = sorted.len() * percent / 100;
        sorted
            .get(rank.min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// How long after `end` two seconds begin, of each of which 95 % of the requests were answered
    /// in time.
    pub(crate) fn recovery(&self, end: Duration, deadline: Duration) -> Option<Duration> {
        let last = self.requests.last()?.at;
        let mut starts = (0..)
            .map(|step| end + STEP * step)
            .take_while(|start| *start + 2 * SECOND <= last);
        let holds = |start: Duration| self.goodput(start..start + SECOND, deadline) >= RECOVERED;
        starts
            .find(|start| holds(*start) && holds(*start + SECOND))
            .map(|start| start - end)
    }

    fn goodput(&self, span: std::ops::Range<Duration>, deadline: Duration) -> f64 {
        let asked = self.between(span.clone()).count();
        ratio(
            self.between(span)
                .filter(|asked| asked.is_good(deadline))
                .count(),
            asked,
        )
    }

    fn between(&self, span: std::ops::Range<Duration>) -> impl Iterator<Item = &Asked> {
        let from = self.requests.partition_point(|asked| asked.at < span.start);
        let to = self.requests.partition_point(|asked| asked.at < span.end);
        self.requests[from..to].iter()
    }

    pub(crate) fn failed(&self) -> usize {
        self.requests
            .iter()
            .filter(|asked| asked.answer == Answer::Failed)
            .count()
    }

    /// Rejections, by kind and by the name of the layer.
    pub(crate) fn rejections(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for asked in &self.requests {
            if let Answer::Rejected(kind, name) = asked.answer {
                *kinds.entry(label(kind, name)).or_default() += 1;
            }
        }
        kinds
    }
}

impl Band {
    pub(crate) fn see(&mut self, now: Duration, state: BreakerState) {
        if self.changes.last().is_none_or(|(_, last)| *last != state) {
            self.changes.push((now, state));
        }
    }

    pub(crate) fn opened(&self) -> usize {
        self.changes
            .iter()
            .filter(|(_, state)| *state == BreakerState::Open)
            .count()
    }
}

fn label(kind: RejectedKind, name: Option<&str>) -> String {
    let kind = match kind {
        RejectedKind::CircuitOpen => "circuit open",
        RejectedKind::RateLimited => "rate limited",
        RejectedKind::BulkheadFull => "bulkhead full",
        RejectedKind::TimedOut => "timed out",
        _ => "other",
    };
    name.map_or_else(|| kind.to_owned(), |name| format!("{kind} ({name})"))
}

pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

const RECOVERED: f64 = 0.95;
const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);
