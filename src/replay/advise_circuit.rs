//! Advice on circuits and timeouts.

use std::time::Duration;

use crate::{
    algorithm::{
        BreakerConfig,
        statistics::{poisson_interval, whole},
    },
    observe::Advice,
    replay::{
        chance::{false_trips, usual_window},
        findings::{Advised, FEW, Findings, MANY, QUIET, advice, lost_of, lost_parts},
        rows::Row,
        stack::{Change, StackSettings},
        tally::{Half, Tally},
        words,
    },
};

impl Findings<'_> {
    pub(super) fn circuit(&self) -> Option<Advised> {
        let config = self.now.as_it_was.thresholds.circuit?;
        let rate = config.failure_rate?;
        let (choice, _) = self.halves();
        let mut rows = self.circuits.iter();
        let now = rows.find(|row| circuit_of(row) == Some(config))?;
        let Some(best) = self.best_circuit(&config, now) else {
            let base = words::percent(self.survey.base_rate());
            let advice = Advice {
                reason: format!(
                    "at a base rate of {base} {}, and nothing that was tried is quiet and notices as much",
                    self.trips(now),
                ),
                ..advice("circuit_breaker", "failure_rate", words::percent(rate))
            };
            return (!self.is_quiet(now)).then_some((advice, None));
        };
        let chosen = circuit_of(best)?;
        let finds_more = best.as_it_was.over(choice).detected > now.as_it_was.over(choice).detected;
        if chosen == config || (self.is_quiet(now) && !finds_more) {
            return None;
        }
        Some(self.other_circuit((now, &config), (best, &chosen)))
    }

    /// Returns the candidate that chance does not open, that notices as much as the current config,
    /// and that needs the fewest calls for it. It differs in one setting. Another rate is chosen
    /// only if no number of calls is enough.
    fn best_circuit(&self, config: &BreakerConfig, now: &Row) -> Option<&Row> {
        let usual = usual_window(self.survey, config);
        let (choice, _) = self.halves();
        let of_now = now.as_it_was.over(choice).detected;
        let rate = |one: &BreakerConfig| one.failure_rate.unwrap_or(1.0);
        let fits = self.circuits.iter().filter(|row| {
            // A circuit that never judges is quiet too.
            circuit_of(row).is_some_and(|one| {
                let is_one_step =
                    one.min_calls == config.min_calls || one.failure_rate == config.failure_rate;
                is_one_step && u64::from(one.min_calls) <= usual
            }) && row.as_it_was.over(choice).detected >= of_now
                && self.is_quiet(row)
        });
        fits.min_by_key(|row| {
            circuit_of(row).map(|one| {
                let other = (rate(&one) - rate(config)).abs();
                (whole(other * 1000.0), one.min_calls)
            })
        })
    }

    /// Returns whether neither the log nor the binomial distribution has false trips.
    fn is_quiet(&self, row: &Row) -> bool {
        let (choice, _) = self.halves();
        let seen = row.as_it_was.over(choice).false_trips;
        let expected = circuit_of(row).map(|one| false_trips(self.survey, &one, choice));
        seen == 0 && expected.is_some_and(|(_, most)| most <= QUIET)
    }

    /// Returns the false trips a week, on the half that prices.
    fn trips(&self, row: &Row) -> String {
        let (_, price) = self.halves();
        let weeks = self.weeks(price);
        let expected = circuit_of(row).map(|one| false_trips(self.survey, &one, price));
        let (low, high) = expected.unwrap_or_default();
        let seen = row.as_it_was.over(price).false_trips;
        let (least, most) = poisson_interval(seen);
        let [seen, least, most] = [seen as f64, least, most].map(|one| words::often(one / weeks));
        let [low, high] = [low, high].map(words::often);
        format!("{seen} false trips a week ({least} to {most}, by the binomial {low} to {high})")
    }

    fn other_circuit(
        &self,
        (now, config): (&Row, &BreakerConfig),
        (best, chosen): (&Row, &BreakerConfig),
    ) -> Advised {
        let shares = [config, chosen].map(|one| one.failure_rate.unwrap_or(1.0));
        let [was_at, is_at] = shares.map(words::percent);
        let reason = format!(
            "at a base rate of {} a window of {} calls at {was_at} has {}, one of {} at {is_at} {}",
            words::percent(self.survey.base_rate()),
            config.min_calls,
            self.trips(now),
            chosen.min_calls,
            self.trips(best),
        );
        let (advice, change) = if chosen.failure_rate == config.failure_rate {
            let advice = Advice {
                better: Some(chosen.min_calls.to_string()),
                ..advice("circuit_breaker", "min_calls", config.min_calls.to_string())
            };
            (advice, Change::MinCalls(chosen.min_calls))
        } else {
            let advice = Advice {
                better: Some(is_at),
                ..advice("circuit_breaker", "failure_rate", was_at)
            };
            (advice, Change::FailureRate(shares[1]))
        };
        let price = self.detection_price(now, best);
        let advice = Advice {
            reason,
            price,
            ..advice
        };
        (advice, Some(change))
    }

    pub(super) fn timeout(&self, stack: &StackSettings) -> Option<Advised> {
        let now = self.now.as_it_was.thresholds.timeout?;
        let (choice, price) = self.halves();
        let lost = |row: &Row, half| lost_of(&row.as_it_was.over(half));
        let mut rows = self.timeouts.iter();
        let of_now = rows.find(|row| row.as_it_was.thresholds.timeout == Some(now))?;
        let longest = self.timeouts.last()?.as_it_was.thresholds.timeout?;
        // Twice the time of the slowest in a thousand: a log's very slowest are due to chance.
        let least = Duration::from_nanos(self.survey.good.quantile(0.999).saturating_mul(2));
        let mut fits = self.timeouts.iter().filter(|row| lost(row, choice) <= FEW);
        let first = fits.next()?;
        let is_long_enough = |row: &&Row| row.as_it_was.thresholds.timeout >= Some(least);
        let chosen = if is_long_enough(&first) {
            first
        } else {
            fits.find(is_long_enough).unwrap_or(first)
        };
        let better = chosen.as_it_was.thresholds.timeout?;
        let is_short = lost(of_now, choice) > MANY && better > now;
        let is_long = now >= longest.max(better * 4) && better < now / 2;
        if !(is_short || is_long) {
            return None;
        }
        let slowest = words::time(self.survey.good.quantile(0.999));
        let written = words::duration(now);
        let reason = if is_short {
            let (low, high) = self.interval(of_now, price, lost_parts);
            let [share, low, high] = [lost(of_now, price), low, high].map(words::percent);
            format!(
                "{written} cuts {share} of the good answers ({low} to {high}), the slowest of a thousand \
                 takes {slowest}"
            )
        } else {
            format!(
                "999 of 1000 good answers take {slowest} at most, and a call may wait for {written}"
            )
        };
        let advice = Advice {
            better: Some(words::duration(better)),
            reason,
            price: self.timeout_price(of_now, chosen),
            ..advice("timeout", stack.timeout_name(), written)
        };
        Some((advice, Some(Change::Timeout(better))))
    }

    fn timeout_price(&self, now: &Row, chosen: &Row) -> String {
        let (_, price) = self.halves();
        let (low, high) = self.interval(chosen, price, lost_parts);
        let share = lost_of(&chosen.as_it_was.over(price));
        let [share, low, high] = [share, low, high].map(words::percent);
        let saved = |row: &Row| row.as_it_was.over(Half::Both).saved;
        let more = saved(chosen).saturating_sub(saved(now));
        let price = format!("{} would lose {share} ({low} to {high})", chosen.name);
        if more == 0 {
            return price;
        }
        format!(
            "{price}, and {} less of waiting for what fails or is late",
            words::time(more)
        )
    }
}

fn circuit_of(row: &Row) -> Option<BreakerConfig> {
    row.as_it_was.thresholds.circuit
}

impl Findings<'_> {
    fn detection_price(&self, now: &Row, best: &Row) -> String {
        let (before, after) = (now.as_it_was.detection(), best.as_it_was.detection());
        let total = |row: &Row| row.as_it_was.total();
        let parts = |tally: &Tally| (tally.detection, tally.detected);
        let (low, high) = self.interval(best, Half::Both, parts);
        let [low, high] = [low, high].map(|nanos| words::seconds(nanos / 1e9));
        match (before, after) {
            (Some(before), Some(after)) => {
                let found = format!(
                    "it notices {} of {} incidents, now {}",
                    total(best).detected,
                    best.as_it_was.incidents,
                    total(now).detected,
                );
                let change = after - before;
                let text = if change.abs() < 0.05 {
                    format!("{found}, as quickly as now (")
                } else if change > 0.0 {
                    format!(
                        "{found}, and takes {} more for it (",
                        words::seconds(change)
                    )
                } else {
                    format!("{found}, and is {} quicker (", words::seconds(-change))
                };
                format!(
                    "{text}{} after their start, {low} to {high})",
                    words::seconds(after)
                )
            }
            (None, Some(after)) => format!(
                "it notices an incident after {} ({low} to {high})",
                words::seconds(after)
            ),
            _ => {
                "the log has no incident that it would notice, so what an outage costs is not known"
                    .into()
            }
        }
    }
}
