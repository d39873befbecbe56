//! The findings behind the advice, and their certainty.

use std::collections::HashMap;

use crate::{
    algorithm::{Rate, statistics::bootstrap},
    observe::{Advice, Evidence},
    replay::{
        bursts::{BurstPoint, rate_of},
        hedges::HedgeRow,
        rows::Row,
        stack::Change,
        survey::Survey,
        tally::{Half, Tally, share},
    },
};

/// The findings behind the advice.
pub(super) struct Findings<'a> {
    pub(super) survey: &'a Survey,
    pub(super) bursts: &'a [BurstPoint],
    pub(super) now: &'a Row,
    pub(super) circuits: &'a [Row],
    pub(super) timeouts: &'a [Row],
    pub(super) places: &'a [Row],
    pub(super) rates: &'a [Row],
    pub(super) hedges: &'a [HedgeRow],
    /// The texts of keys that may be shown.
    pub(super) keys: &'a HashMap<u64, String>,
}

/// A piece of advice, and its change if a file can make it.
pub(super) type Advised = (Advice, Option<Change>);

/// Returns four times the mean rate that all keys but the greediest stay below: a limit for each
/// key. `None` without keys.
pub(super) fn rate_of_a_key(survey: &Survey) -> Option<Rate> {
    let next = survey.keys.get(1).or(survey.keys.first())?.1;
    let mean = next as f64 / survey.active().as_secs_f64();
    Some(rate_of(mean * 4.0))
}

impl Findings<'_> {
    /// Returns the certainty. It needs at least four days, so that each half has two.
    pub(super) fn evidence(&self) -> Evidence {
        match DAYS.saturating_sub(self.survey.days) {
            0 => Evidence::Enough,
            missing => Evidence::MoreDays(missing),
        }
    }

    /// Returns the half that chooses thresholds, and the half that prices them. Both are the whole
    /// log if it has too few days.
    pub(super) fn halves(&self) -> (Half, Half) {
        match self.evidence() {
            Evidence::Enough => (Half::Choice, Half::Price),
            Evidence::MoreDays(_) => (Half::Both, Half::Both),
        }
    }

    pub(super) fn weeks(&self, half: Half) -> f64 {
        let days = self
            .now
            .as_it_was
            .days
            .iter()
            .filter(|(day, _)| half.has(*day))
            .count();
        (days as f64 / 7.0).min(self.survey.weeks()).max(1e-3)
    }

    /// Returns the interval of a share, by bootstrapping days.
    pub(super) fn interval(
        &self,
        row: &Row,
        half: Half,
        parts: fn(&Tally) -> (u64, u64),
    ) -> (f64, f64) {
        let days = row.as_it_was.days.iter().filter(|(day, _)| half.has(*day));
        let blocks: Vec<_> = days
            .map(|(_, tally)| {
                let (part, total) = parts(tally);
                (part as f64, total as f64)
            })
            .collect();
        bootstrap(&blocks, 24)
    }
}

pub(super) fn advice(layer: &'static str, setting: &'static str, now: String) -> Advice {
    Advice {
        layer,
        name: String::new(),
        setting,
        now,
        better: None,
        reason: String::new(),
        price: String::new(),
        evidence: Evidence::Enough,
        alert: None,
    }
}

pub(super) fn lost_parts(tally: &Tally) -> (u64, u64) {
    (tally.lost_good, tally.good)
}

pub(super) fn rejected_parts(tally: &Tally) -> (u64, u64) {
    (tally.rejected_good, tally.good)
}

pub(super) fn lost_of(tally: &Tally) -> f64 {
    share_of(tally, lost_parts)
}

pub(super) fn rejected_of(tally: &Tally) -> f64 {
    share_of(tally, rejected_parts)
}

pub(super) fn share_of(tally: &Tally, parts: fn(&Tally) -> (u64, u64)) -> f64 {
    let (part, total) = parts(tally);
    share(part, total)
}

/// The numbers of calls that are tried.
pub(super) const MIN_CALLS: [u32; 8] = [10, 20, 30, 50, 75, 100, 200, 400];
/// Two days in each half.
pub(super) const DAYS: u64 = 4;
/// The false trips a week that are acceptable.
pub(super) const QUIET: f64 = 0.1;
/// A share of good calls that counts as small, and one that counts as large.
pub(super) const FEW: f64 = 1e-4;
pub(super) const MANY: f64 = 1e-3;
