//! The results of a replay.

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

/// The results of a replay of a log.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The question.
    pub question: Question,
    /// The counts of the log's lines.
    pub lines: LineCounts,
    /// The content of the log.
    pub survey: Survey,
    /// The results of the settings in force.
    pub now: Row,
    /// The results of the settings compared with them.
    pub against: Option<Row>,
    /// The smallest burst without rejections, at each rate.
    pub bursts: Vec<BurstPoint>,
    /// The rate limits.
    pub rates: Vec<Row>,
    /// The circuits.
    pub circuits: Vec<Row>,
    /// The timeouts.
    pub timeouts: Vec<Row>,
    /// The bulkheads.
    pub places: Vec<Row>,
    /// The retry budgets.
    pub retries: Vec<Row>,
    /// The hedges.
    pub hedges: Vec<HedgeRow>,
    /// The settings that should be changed.
    pub advice: Vec<Advice>,
    /// The settings changed by the advice that has enough evidence, as a file. `build` accepts it.
    pub settings: String,
    pub(super) keys: HashMap<u64, String>,
    pub(super) hosts: HashMap<u32, String>,
}

impl Report {
    /// Replays a log: one pass to survey it, one for the bursts, and two over all candidates, on
    /// two threads.
    ///
    /// # Errors
    /// Temporary files fail.
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
            rate_candidates(&bursts, &survey, &now),
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

    /// Returns the name of a key: its text if that may be shown, or else its hash.
    #[must_use]
    pub fn key_name(&self, key: u64) -> String {
        self.keys
            .get(&key)
            .cloned()
            .unwrap_or_else(|| format!("key {key:016x}"))
    }

    /// Returns the name of a host.
    #[must_use]
    pub fn host_name(&self, host: u32) -> String {
        match (self.hosts.get(&host), host) {
            (Some(name), _) => name.clone(),
            (None, 0) => "all".into(),
            (None, host) => format!("host {host:08x}"),
        }
    }
}

/// Returns the rates of the curve: those of the log, and those that are set.
fn rates_asked(survey: &Survey, set: [Option<&Thresholds>; 2]) -> Vec<Rate> {
    let mut rates = rates_for(survey, STEPS);
    let set = set.into_iter().flatten().filter_map(|one| one.rate);
    rates.extend(set.map(|limit| limit.rate));
    rates.sort_by(|one, other| per_second(one).total_cmp(&per_second(other)));
    rates.dedup();
    rates
}

/// Returns the rows of all candidates, replayed under both assumptions.
fn answered(calls: &Calls, survey: &Survey, groups: Vec<Candidates>) -> io::Result<Vec<Vec<Row>>> {
    // Only candidates that depend on the upstream change if it recovers.
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
