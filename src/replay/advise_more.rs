//! Advice on rate limits, retries and hedges.

use std::time::Duration;

use crate::{
    algorithm::statistics::{bootstrap_of, whole},
    observe::Advice,
    replay::{
        findings::{
            Advised, Findings, MANY, advice, rate_of_a_key, rejected_of, rejected_parts, share_of,
        },
        hedges::{HedgeRow, hedged_quantile},
        histogram::Histogram,
        rows::Row,
        stack::{Change, StackSettings},
        tally::{Tally, share},
        words,
    },
};

impl Findings<'_> {
    pub(super) fn places(&self, stack: &StackSettings) -> Option<Advised> {
        let now = self.now.as_it_was.thresholds.places?;
        let (choice, price) = self.halves();
        let of_now = self
            .places
            .iter()
            .find(|row| row.as_it_was.thresholds.places == Some(now))?;
        let rejected = |row: &Row, half| rejected_of(&row.as_it_was.over(half));
        let most = usize::try_from(self.survey.most_in_flight()).ok()?.max(1);
        let better = most.saturating_mul(3).div_ceil(2);
        let is_small = rejected(of_now, choice) > MANY;
        let is_large = now > most.saturating_mul(8) && now - better > 16;
        if !(is_small || is_large) {
            return None;
        }
        let chosen = if is_large {
            most.saturating_mul(2).max(8)
        } else {
            better
        };
        let row = self
            .places
            .iter()
            .find(|row| row.as_it_was.thresholds.places >= Some(chosen.min(better)))?;
        let interval = self.interval(row, price, rejected_parts);
        let advice = Advice {
            better: Some(chosen.to_string()),
            reason: format!(
                "by Little's law {:.1} calls run on average and {:.1} in the busiest minute, {most} at \
                 most; {now} places reject {} of the good calls",
                self.survey.mean_in_flight,
                self.survey.peak_in_flight,
                words::percent(rejected(of_now, price)),
            ),
            price: format!(
                "{chosen} reject {} ({} to {})",
                words::percent(rejected(row, price)),
                words::percent(interval.0),
                words::percent(interval.1),
            ),
            ..advice("bulkhead", "max_in_flight", now.to_string())
        };
        let change = stack.thresholds().places.map(|_| Change::Places(chosen));
        Some((advice, change))
    }

    pub(super) fn burst(&self) -> Option<Advised> {
        let limit = self.now.as_it_was.thresholds.rate?;
        let (choice, price) = self.halves();
        if limit.per_key || rejected_of(&self.now.as_it_was.over(choice)) <= MANY {
            return None;
        }
        let point = self.bursts.iter().find(|point| point.rate == limit.rate)?;
        let second = crate::rate_limit::one_second_of(limit.rate);
        let rejected = self.now.as_it_was.over(price);
        let interval = self.interval(self.now, price, rejected_parts);
        let seen = format!(
            "{} burst {} rejects {} of the good calls ({} to {})",
            words::rate(limit.rate),
            limit.burst,
            words::percent(rejected_of(&rejected)),
            words::percent(interval.0),
            words::percent(interval.1),
        );
        // More than ten seconds of calls is not a burst but a rate.
        let fits = point
            .burst
            .filter(|burst| *burst <= second.saturating_mul(10));
        let Some(burst) = fits else {
            let enough = self.bursts.iter().find(|point| {
                let second = crate::rate_limit::one_second_of(point.rate);
                point
                    .burst
                    .is_some_and(|burst| burst <= second.saturating_mul(2))
            });
            let advice = Advice {
                better: enough.map(|point| words::rate(point.rate)),
                reason: format!("{seen}: the rate itself is below what comes"),
                price: enough
                    .and_then(|point| point.burst)
                    .map_or_else(String::new, |burst| {
                        format!("with a burst of {burst} it rejects nobody in this log")
                    }),
                ..advice("rate_limit", "rate", words::rate(limit.rate))
            };
            return Some((advice, None));
        };
        let bounds = match point.at_most {
            Some(most) if most != burst => format!(" ({most} if each second's calls come at once)"),
            _ => String::new(),
        };
        let advice = Advice {
            better: Some(burst.to_string()),
            reason: format!("{seen}, though the rate is enough"),
            price: format!(
                "a burst of {burst}{bounds} rejects nobody in this log; the upstream gets so many at \
                 once"
            ),
            ..advice("rate_limit", "burst", limit.burst.to_string())
        };
        Some((advice, Some(Change::Burst(burst))))
    }

    /// Advises on one key that takes what the others need.
    pub(super) fn greedy_key(&self) -> Option<Advised> {
        let (greedy, cost) = *self.survey.keys.first()?;
        let part = cost as f64 / self.survey.cost.max(1) as f64;
        if self.survey.keys.len() < 5 || part < 0.3 {
            return None;
        }
        let limit = rate_of_a_key(self.survey)?;
        let row = self.rates.iter().find(|row| {
            let tried = row.as_it_was.thresholds.rate;
            tried.is_some_and(|tried| tried.per_key && tried.rate == limit)
        })?;
        let total = row.as_it_was.total();
        let of_greedy = row.as_it_was.keys.iter().find(|(key, _)| *key == greedy);
        let others = total.rejected() - of_greedy.map_or(0, |(_, count)| *count);
        // A limit that the other keys feel as much does not help.
        if others * 50 > self.survey.calls {
            return None;
        }
        let (_, price) = self.halves();
        let (low, high) = self.interval(row, price, |tally| (tally.rejected(), tally.calls));
        let advice = Advice {
            better: Some(format!("{} for each key", words::rate(limit))),
            reason: format!(
                "{} makes {} of all calls, the next key {}",
                self.keys
                    .get(&greedy)
                    .cloned()
                    .unwrap_or_else(|| format!("key {greedy:016x}")),
                words::percent(part),
                words::percent(self.survey.keys[1].1 as f64 / self.survey.cost.max(1) as f64),
            ),
            price: format!(
                "a limit for each key rejects {} calls of that one, and {} of all others together: {} of \
                 all calls ({} to {} by day)",
                words::count(total.rejected() - others),
                words::count(others),
                words::percent(share(total.rejected(), total.calls)),
                words::percent(low),
                words::percent(high),
            ),
            ..advice("rate_limit", "keyed_by", "one limit for all".into())
        };
        // Keys are set in code.
        Some((advice, None))
    }

    pub(super) fn retries(&self) -> Option<Advised> {
        let retry = self.now.as_it_was.thresholds.retry?;
        let base = self.survey.base_rate();
        let wanted = base * f64::from(retry.attempts.saturating_sub(1));
        if retry.attempts < 3 || wanted <= retry.ratio || base < 0.01 {
            return None;
        }
        let (_, price) = self.halves();
        let parts = |tally: &Tally| (tally.retries_denied, tally.bad);
        let denied = share_of(&self.now.as_it_was.over(price), parts);
        let (low, high) = self.interval(self.now, price, parts);
        let [denied, low, high] = [denied, low, high].map(words::percent);
        let (least, most) = self.interval(self.now, price, |tally| (tally.bad, tally.calls));
        let advice = Advice {
            better: Some("2".into()),
            reason: format!(
                "at a base rate of {} ({} to {} by day) calls want up to {} retries each, and successes \
                 pay for {}",
                words::percent(base),
                words::percent(least),
                words::percent(most),
                words::percent(wanted),
                words::percent(retry.ratio),
            ),
            price: format!(
                "now the budget is empty for {denied} of the failures ({low} to {high}); how many retries \
                 would have succeeded the log does not tell, between none and all"
            ),
            ..advice("retry", "attempts", retry.attempts.to_string())
        };
        Some((advice, Some(Change::Attempts(2))))
    }

    /// Advises on a hedge. The delay is chosen on one half of the days, and priced on the other.
    pub(super) fn hedge(&self, stack: &StackSettings) -> Option<Advised> {
        let (choice, price) = self.halves();
        let good: Histogram = self.survey.good_of(choice).into_iter().collect();
        let few = |row: &&HedgeRow| good.share_above(nanos(row.delay)) <= 0.06;
        let row = self.hedges.iter().find(few)?;
        if !stack.is_client() || row.p99 < self.survey.good.quantile(0.5).saturating_mul(5) {
            return None;
        }
        let days = self.survey.good_of(price);
        let delay = nanos(row.delay);
        let extra = priced(&days, |good| good.share_above(delay)).map(words::percent);
        let best = priced(&days, |good| hedged_quantile(good, delay, 0.99) as f64);
        let [best, least, most] = best.map(|nanos| words::time(whole(nanos)));
        let advice = Advice {
            better: Some(words::duration(row.delay)),
            reason: format!(
                "one good answer in a hundred takes {}, and one in two {}",
                words::time(row.p99),
                words::time(self.survey.good.quantile(0.5)),
            ),
            price: format!(
                "a hedge sends {} more calls ({} to {}) and brings that to between {best} ({least} to \
                 {most}) and {}; only for calls that may be sent twice",
                extra[0],
                extra[1],
                extra[2],
                words::time(row.p99),
            ),
            ..advice("hedge", "delay", "none".into())
        };
        // A stack hedges in place of retries, which is set in code.
        Some((advice, None))
    }
}

/// Returns what all days have, and its interval by bootstrapping them.
fn priced(days: &[&Histogram], of: impl Fn(&Histogram) -> f64) -> [f64; 3] {
    let all: Histogram = days.iter().copied().collect();
    let (low, high) = bootstrap_of(days, (24, HEDGE_DRAWS), |drawn| {
        of(&drawn.copied().collect::<Histogram>())
    });
    [of(&all), low, high]
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Fewer than for shares: each adds up a histogram for each day.
const HEDGE_DRAWS: usize = 200;
