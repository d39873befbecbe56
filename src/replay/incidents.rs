//! Incidents: times in which a host failed more than it usually does.
//!
//! The calls of a host are cut into cells of whole seconds with at least fifty calls. The base rate
//! is that of the usual cells. An incident is a cell whose failures chance does not explain: less
//! likely than one in a million, and at least a tenth above the base. The base is computed again
//! without these cells until nothing changes. A fixed threshold would call a bad host's normal
//! state an incident, and miss a good host's outage of a tenth.

use crate::{algorithm::statistics::binomial_tail, replay::moments::SECOND};

/// A time in which a host failed unusually often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incident {
    /// The start, in nanoseconds since 1970, precise to a second.
    pub from: u64,
    /// The end.
    pub to: u64,
    /// The calls in it.
    pub calls: u64,
    /// The bad answers in it.
    pub bad: u64,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    first: usize,
    past: usize,
    calls: u64,
    bad: u64,
}

/// Returns the base rate, and the incidents, of a host's seconds.
pub(super) fn find(seconds: &[(u64, u32, u32)]) -> (f64, Vec<Incident>) {
    let cells = cells_of(seconds);
    let mut shares: Vec<f64> = cells.iter().map(Cell::share).collect();
    shares.sort_by(f64::total_cmp);
    let mut base = shares.get(shares.len() / 2).copied().unwrap_or(0.0);
    for _ in 0..8 {
        let usual = cells.iter().filter(|cell| !cell.is_unusual(base));
        let (bad, calls) = usual.fold((0, 0), |(bad, calls), cell| {
            (bad + cell.bad, calls + cell.calls)
        });
        if calls == 0 {
            break;
        }
        base = bad as f64 / calls as f64;
    }
    let mut incidents: Vec<Incident> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.is_unusual(base)) {
        let found = cell.incident(seconds, base);
        match incidents.last_mut() {
            Some(last) if found.from.saturating_sub(last.to) <= GAP => {
                last.to = found.to;
                last.calls += found.calls;
                last.bad += found.bad;
            }
            _ => incidents.push(found),
        }
    }
    (base, incidents)
}

impl Cell {
    fn share(&self) -> f64 {
        self.bad as f64 / self.calls.max(1) as f64
    }

    fn is_unusual(&self, base: f64) -> bool {
        self.share() >= base + MORE
            && binomial_tail(self.calls, self.bad, base.max(LEAST)) < UNLIKELY
    }

    /// Returns the incident from its first unusual second to its last.
    fn incident(&self, seconds: &[(u64, u32, u32)], base: f64) -> Incident {
        let own = &seconds[self.first..self.past];
        let fails =
            |second: &&(u64, u32, u32)| f64::from(second.2) >= (base + MORE) * f64::from(second.1);
        let first = own.iter().find(fails).or(own.first());
        let last = own.iter().rev().find(fails).or(own.last());
        let (from, to) = (
            first.map_or(0, |second| second.0),
            last.map_or(0, |second| second.0),
        );
        let within = own.iter().filter(|second| (from..=to).contains(&second.0));
        let (calls, bad) = within.fold((0, 0), |(calls, bad), second| {
            (calls + u64::from(second.1), bad + u64::from(second.2))
        });
        Incident {
            from: from * SECOND,
            to: (to + 1).saturating_mul(SECOND),
            calls,
            bad,
        }
    }
}

fn cells_of(seconds: &[(u64, u32, u32)]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut open = Cell {
        first: 0,
        past: 0,
        calls: 0,
        bad: 0,
    };
    for (place, (_, calls, bad)) in seconds.iter().enumerate() {
        open.past = place + 1;
        open.calls += u64::from(*calls);
        open.bad += u64::from(*bad);
        if open.calls >= ENOUGH {
            cells.push(open);
            open = Cell {
                first: place + 1,
                past: place + 1,
                calls: 0,
                bad: 0,
            };
        }
    }
    // The rest is too small to be judged by itself.
    match cells.last_mut() {
        Some(last) => {
            last.past = open.past.max(last.past);
            last.calls += open.calls;
            last.bad += open.bad;
        }
        None if open.calls > 0 => cells.push(open),
        None => {}
    }
    cells
}

/// The fewest calls in a cell.
const ENOUGH: u64 = 50;
const UNLIKELY: f64 = 1e-6;
/// The excess over the base rate that makes an incident.
const MORE: f64 = 0.1;
/// The base rate assumed for a host that never failed.
const LEAST: f64 = 1e-4;
/// Two incidents that are closer than this are one.
const GAP: u64 = 30 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns seconds with a hundred calls each, some of them bad.
    fn seconds(bad: impl Fn(u64) -> u32) -> Vec<(u64, u32, u32)> {
        (0..1000).map(|second| (second, 100, bad(second))).collect()
    }

    #[test]
    fn a_bad_hosts_everyday_is_no_incident() {
        let (base, incidents) = find(&seconds(|second| 10 + u32::try_from(second % 5).unwrap()));
        assert!((base - 0.12).abs() < 1e-9, "{base}");
        assert_eq!(incidents, []);
    }

    #[test]
    fn an_outage_is_found_to_the_second() {
        let (base, incidents) = find(&seconds(|second| match second {
            300..330 | 340..350 => 60,
            700..705 => 100,
            second => u32::try_from(second % 3).unwrap(),
        }));
        assert!((base - 0.01).abs() < 0.001, "{base}");
        let times: Vec<_> = incidents
            .iter()
            .map(|incident| (incident.from / SECOND, incident.to / SECOND))
            .collect();
        assert_eq!(times, [(300, 350), (700, 705)], "what is 30 s apart is one");
        assert_eq!((incidents[1].calls, incidents[1].bad), (500, 500));
    }

    #[test]
    fn few_calls_and_none_are_no_incident() {
        assert_eq!(find(&[]), (0.0, vec![]));
        let (base, incidents) = find(&[(1, 3, 1), (5, 2, 0)]);
        assert!(base > 0.0 && incidents.is_empty());
    }
}
