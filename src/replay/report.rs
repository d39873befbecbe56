//! Everything that a replay says about a log.

use std::{collections::HashMap, io};

use crate::{
    algorithm::Rate,
    observe::Advice,
    replay::{
        advise,
        bursts::{BurstPoint, burst_curve, rates_for},
        candidates::{
            Candidates, STEPS, circuit_candidates, per_second, place_candidates, rate_candidates,
            retry_candidates, timeout_candidates,
        },
        chance::false_trips,
        engine::{Upstream, replay},
        findings::Findings,
        hedges::{HedgeRow, hedges},
        log::{LineCounts, Log},
        rows::{Question, Row},
        sorted::Calls,
        stack::StackSettings,
        survey::Survey,
        tally::Half,
        thresholds::Thresholds,
    },
};

/// Everything that a replay says about a log.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The question.
    pub question: Question,
    /// The counts of the log's lines.
    pub lines: LineCounts,
    /// The first look at the log.
    pub survey: Survey,
    /// The settings in force.
    pub now: Row,
    /// The others.
    pub against: Option<Row>,
    /// The burst that rejects nobody at each rate.
    pub bursts: Vec<BurstPoint>,
    /// Rate limits.
    pub rates: Vec<Row>,
    /// Circuits.
    pub circuits: Vec<Row>,
    /// Timeouts.
    pub timeouts: Vec<Row>,
    /// Bulkheads.
    pub places: Vec<Row>,
    /// Retry budgets.
    pub retries: Vec<Row>,
    /// Hedges.
    pub hedges: Vec<HedgeRow>,
    /// The settings that should be others.
    pub advice: Vec<Advice>,
    /// The settings with the advice in them that has enough evidence, as a file. `build` accepts
    /// it.
    pub settings: String,
    pub(super) keys: HashMap<u64, String>,
    pub(super) hosts: HashMap<u32, String>,
}

impl Report {
    /// Replays a log: one pass to look at it, one for the bursts, and two over all candidates, with
    /// two threads.
    ///
    /// # Errors
    /// Those of temporary files.
    pub fn of(log: Log, question: Question) -> io::Result<Self> {
        let Log {
            calls,
            lines,
            keys,
            hosts,
        } = log;
        let keys = if question.show_keys {
            keys
        } else {
            HashMap::new()
        };
        let survey = Survey::of(&calls)?;
        let now = question.now.thresholds();
        let against = question.against.as_ref().map(StackSettings::thresholds);
        let bursts = burst_curve(
            &calls,
            &rates_asked(&survey, [Some(&now), against.as_ref()]),
        )?;
        let groups = vec![
            vec![("now".to_owned(), now.clone())],
            against
                .into_iter()
                .map(|other| ("against".to_owned(), other))
                .collect(),
            rate_candidates(&bursts, &now, &survey),
            circuit_candidates(&now, question.now.is_client()),
            timeout_candidates(&survey, &now),
            place_candidates(&survey, &now),
            retry_candidates(&now),
        ];
        let mut rows = answered(&calls, &survey, groups)?.into_iter();
        let mut next = || rows.next().unwrap_or_default();
        let now = next().pop().ok_or_else(|| io::Error::other("no row"))?;
        let (against, rates, circuits) = (next().pop(), next(), next());
        let (timeouts, places, retries) = (next(), next(), next());
        let hedges = hedges(&survey);
        let findings = Findings {
            survey: &survey,
            bursts: &bursts,
            now: &now,
            circuits: &circuits,
            timeouts: &timeouts,
            places: &places,
            rates: &rates,
            hedges: &hedges,
            keys: &keys,
        };
        let (advice, settings) = advise::all(&findings, &question.now)?;
        Ok(Self {
            lines,
            now,
            against,
            bursts,
            rates,
            circuits,
            timeouts,
            places,
            retries,
            hedges,
            advice,
            settings,
            keys,
            hosts,
            survey,
            question,
        })
    }

    /// The name of a key: its text if it may be shown, and else its hash.
    #[must_use]
    pub fn key_name(&self, key: u64) -> String {
        self.keys
            .get(&key)
            .cloned()
            .unwrap_or_else(|| format!("key {key:016x}"))
    }

    /// The name of a host.
    #[must_use]
    pub fn host_name(&self, host: u32) -> String {
        match (self.hosts.get(&host), host) {
            (Some(name), _) => name.clone(),
            (None, 0) => "all".into(),
            (None, host) => format!("host {host:08x}"),
        }
    }
}

/// The rates of the curve: those of the log, and those that are set.
fn rates_asked(survey: &Survey, set: [Option<&Thresholds>; 2]) -> Vec<Rate> {
    let mut rates = rates_for(survey, STEPS);
    let set = set.into_iter().flatten().filter_map(|one| one.rate);
    rates.extend(set.map(|limit| limit.rate));
    rates.sort_by(|one, other| per_second(one).total_cmp(&per_second(other)));
    rates.dedup();
    rates
}

/// The rows of all candidates, replayed under both assumptions.
fn answered(calls: &Calls, survey: &Survey, groups: Vec<Candidates>) -> io::Result<Vec<Vec<Row>>> {
    // Only what depends on the upstream is another if that is relieved.
    let depends = |one: &Thresholds| one.circuit.is_some() || one.retry.is_some();
    let all = || groups.iter().flatten().map(|(_, thresholds)| thresholds);
    let asked: Vec<_> = all().cloned().collect();
    let mut worst = replay(calls, survey, Upstream::AsItWas, &asked)?.into_iter();
    let asked: Vec<_> = all().filter(|one| depends(one)).cloned().collect();
    let mut best = replay(calls, survey, Upstream::Relieved, &asked)?.into_iter();
    let mut row = |(name, thresholds): (String, Thresholds)| {
        let as_it_was = worst.next()?;
        let relieved = match depends(&thresholds) {
            true => best.next()?,
            false => as_it_was.clone(),
        };
        let circuit = thresholds.circuit;
        Some(Row {
            name,
            as_it_was,
            relieved,
            expected: circuit.map(|config| false_trips(survey, &config, Half::Both)),
        })
    };
    let groups = groups.into_iter();
    Ok(groups
        .map(|group| group.into_iter().filter_map(&mut row).collect())
        .collect())
}
