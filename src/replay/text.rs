//! A report as text.

use std::fmt;

use crate::replay::{report::Report, rows::Row, tally::Tally, words};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log(f)?;
        self.settings(f)?;
        self.limits(f)?;
        self.rest(f)?;
        if self.advice.is_empty() {
            return writeln!(f, "\nAdvice: none. What is set fits what came.");
        }
        writeln!(f, "\nAdvice")?;
        for one in &self.advice {
            writeln!(f, "- {one}")?;
        }
        Ok(())
    }
}

impl Report {
    fn log(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survey = &self.survey;
        writeln!(
            f,
            "{} calls of {} on {} days, {:.1} a second on average, {} in the busiest second",
            words::count(survey.calls),
            words::seconds(survey.span().as_secs_f64()),
            survey.days,
            survey.mean_rate(),
            words::count(survey.peak_second),
        )?;
        for (end, count) in &survey.ends {
            writeln!(f, "  {:<9} {:>14}", end.as_str(), words::count(*count))?;
        }
        let good = &survey.good;
        let times = [0.5, 0.9, 0.99, 0.999].map(|share| words::time(good.quantile(share)));
        writeln!(
            f,
            "good answers take {} (median), {} (90 %), {} (99 %), {} (99.9 %), {} at most",
            times[0],
            times[1],
            times[2],
            times[3],
            words::time(good.most()),
        )?;
        self.lines_read(f)
    }

    fn lines_read(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survey = &self.survey;
        let lines = &self.lines;
        for (file, format) in &lines.formats {
            writeln!(f, "{file}: {format}")?;
        }
        if lines.lost > 0 {
            writeln!(
                f,
                "{} calls were lost while recording",
                words::count(lines.lost)
            )?;
        }
        if lines.broken > 0 {
            writeln!(
                f,
                "{} of {} lines are broken:",
                words::count(lines.broken),
                words::count(lines.read)
            )?;
            for line in &lines.first_broken {
                writeln!(f, "  {line}")?;
            }
        }
        if survey.coarse > 0 {
            writeln!(
                f,
                "of {} calls only the second is known: bursts have a lower and an upper bound",
                words::count(survey.coarse)
            )?;
        }
        for host in survey.hosts.iter().take(HOSTS) {
            let out: u64 = host.incidents.iter().map(|one| one.to - one.from).sum();
            writeln!(
                f,
                "{}: {} answers, base rate {}, {} incidents ({})",
                self.host_name(host.host),
                words::count(host.calls),
                words::percent(host.base_rate),
                host.incidents.len(),
                words::time(out),
            )?;
        }
        Ok(())
    }

    fn settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nSettings, as it was | if the upstream recovers once it is spared"
        )?;
        for row in [Some(&self.now), self.against.as_ref()]
            .into_iter()
            .flatten()
        {
            writeln!(f, "  {:<9} {}", row.name, summary(&row.as_it_was.total()))?;
            writeln!(f, "  {:<9} {}", "", summary(&row.relieved.total()))?;
        }
        Ok(())
    }

    fn limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nRate limit: the burst that rejects nobody")?;
        for point in &self.bursts {
            let number = |burst: Option<u32>| {
                burst.map_or("none".into(), |burst| words::count(burst.into()))
            };
            write!(
                f,
                "  {:>10}  {:>10}",
                words::rate(point.rate),
                number(point.burst)
            )?;
            if point.at_most != point.burst {
                write!(f, " to {}", number(point.at_most))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "  good calls rejected by")?;
        for row in &self.rates {
            let total = row.as_it_was.total();
            if total.rejected() == 0 {
                continue;
            }
            let felt = row.as_it_was.keys.iter().take(3);
            let keys: Vec<_> = felt
                .map(|(key, count)| format!("{} {}", self.key_name(*key), words::count(*count)))
                .collect();
            writeln!(
                f,
                "  {:<36} {:>9}  {}",
                row.name,
                words::percent(rejected(&total)),
                keys.join(", ")
            )?;
        }
        writeln!(
            f,
            "\nBulkhead: by Little's law {:.1} calls run on average, {:.1} in the busiest minute; {} at most",
            self.survey.mean_in_flight,
            self.survey.peak_in_flight,
            self.survey.most_in_flight(),
        )?;
        for row in &self.places {
            let total = row.as_it_was.total();
            writeln!(
                f,
                "  {:>8} places reject {} of good calls",
                row.name,
                words::percent(rejected(&total))
            )?;
        }
        Ok(())
    }

    fn rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.circuits.is_empty() {
            writeln!(
                f,
                "\nCircuit breaker                 trips  false  binomial, a week  noticed  after      open                 good rejected  bad spared"
            )?;
        }
        for row in &self.circuits {
            self.circuit(f, row)?;
        }
        writeln!(f, "\nTimeout: good answers lost, and waiting spared")?;
        for row in &self.timeouts {
            let total = row.as_it_was.total();
            let lost = total.lost_good as f64 / total.good.max(1) as f64;
            writeln!(
                f,
                "  {:>8}  {:>9}  {}",
                row.name,
                words::percent(lost),
                words::time(total.saved)
            )?;
        }
        writeln!(
            f,
            "\nRetry budget: extra load, and failures it does not pay for"
        )?;
        for row in &self.retries {
            let sides = [&row.relieved, &row.as_it_was].map(|replayed| {
                let total = replayed.total();
                let load = total.retries as f64 / total.calls.max(1) as f64;
                let denied = total.retries_denied as f64 / total.bad.max(1) as f64;
                (words::percent(load), words::percent(denied))
            });
            writeln!(
                f,
                "  {:<40} load {} to {}, unpaid {} to {}",
                row.name, sides[0].0, sides[1].0, sides[0].1, sides[1].1
            )?;
        }
        if !self.hedges.is_empty() {
            writeln!(f, "\nHedge: extra calls, and the 99th percentile")?;
        }
        for row in &self.hedges {
            writeln!(
                f,
                "  after {:>7}  {:>7} more calls  {} to {}, now {}",
                words::duration(row.delay),
                words::percent(row.extra),
                words::time(row.p99_at_best),
                words::time(row.p99),
                words::time(row.p99),
            )?;
        }
        Ok(())
    }

    fn circuit(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        let (was, relieved) = (row.as_it_was.total(), row.relieved.total());
        let (low, high) = row.expected.unwrap_or_default();
        let here = self.now.as_it_was.thresholds.circuit == row.as_it_was.thresholds.circuit;
        writeln!(
            f,
            "  {:<27} {:>7} {:>6}  {:>7} to {:<7} {:>4}/{:<3} {:>9}  {:>9} to {:<9} {:>9}  {:>9} {}",
            row.name,
            was.trips,
            was.false_trips,
            words::often(low),
            words::often(high),
            was.detected,
            row.as_it_was.incidents,
            row.as_it_was.detection().map_or("-".into(), words::seconds),
            words::time(relieved.open),
            words::time(was.open),
            words::percent(rejected(&was)),
            words::percent(was.bad_spared()),
            if here { "<- you are here" } else { "" },
        )
    }
}

pub(super) fn summary(total: &Tally) -> String {
    format!(
        "good calls rejected {}, cut {}, bad spared {}, {} trips ({} false), open {}",
        words::percent(rejected(total)),
        words::percent(total.lost_good as f64 / total.good.max(1) as f64),
        words::percent(total.bad_spared()),
        total.trips,
        total.false_trips,
        words::time(total.open),
    )
}

pub(super) fn rejected(total: &Tally) -> f64 {
    total.rejected_good as f64 / total.good.max(1) as f64
}

const HOSTS: usize = 10;
