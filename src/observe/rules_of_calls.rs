//! The rules for layers of single calls: retries, timeouts, hedges and throttles.

use crate::{
    RejectedKind,
    algorithm::statistics::count_interval,
    observe::{
        Advice, BUCKETS, Histogram,
        case::{Case, above_of, config_of, of_outcome},
    },
};

pub(super) fn retry(
    case: &Case<'_>,
    calls: &[(&'static str, u64)],
    attempts: &[(&'static str, u64)],
) -> Option<Advice> {
    let of = |outcome: &str| -> u64 {
        let found = calls.iter().filter(|(name, _)| *name == outcome);
        found.map(|(_, count)| count).sum()
    };
    let all: u64 = calls.iter().map(|(_, count)| count).sum();
    let again: u64 = attempts.iter().map(|(_, count)| count).sum();
    let now = case.config("attempts")?;
    let (denied, good) = (of("budget_denied"), of("first_try") + of("recovered"));
    let [empty, succeed, load] = [
        case.seen((denied, all), 0.01),
        case.seen((good, all), 0.5),
        case.seen((again.min(all), all), 0.2),
    ];
    let advice = Advice {
        better: Some("2".into()),
        ..case.advice("attempts", format!("{now:.0}"))
    };
    if now > 2.0 && empty.share > 0.01 && succeed.share > 0.5 {
        return Some(Advice {
            reason: format!(
                "{denied} of {all} calls, {empty}, found the budget empty while {succeed} succeed: {} never \
                 succeed, and take the tokens that others need",
                of("exhausted") + denied
            ),
            price: format!(
                "between none and all of the {} calls that recovered did so at a third attempt or later",
                of("recovered")
            ),
            evidence: empty.evidence.and(succeed.evidence),
            alert: Some("RetryBudgetEmpty"),
            ..advice
        });
    }
    if now > 2.0 && again * 5 > all {
        let (low, high) = count_interval(again);
        let [more, low, high] =
            [again as f64, low, high].map(|again| again / all.max(1) as f64 * 100.0);
        return Some(Advice {
            reason: format!(
                "{again} retries for {all} calls: {more:.0} % more load ({low:.0} to {high:.0}), for {} \
                 that recovered",
                of("recovered")
            ),
            price: format!(
                "between none and all of the {} are lost, those that only a third attempt would save",
                of("recovered")
            ),
            evidence: load.evidence,
            alert: Some("RetryStorm"),
            ..advice
        });
    }
    None
}

pub(super) fn timeout(case: &Case<'_>, total: bool) -> Option<Advice> {
    if total {
        return total_timeout(case);
    }
    let now = case.config("duration")?;
    let cut = of_outcome(case.one, "timeout").map_or(0, Histogram::count);
    let good = of_outcome(case.one, "success")?;
    let all = cut + good.count();
    let [share, most] = [0.001, 0.5].map(|bound| case.seen((cut, all), bound));
    // Good answers arrive up to the very end, so more would have arrived after it.
    let near = case.seen(above_of(good, now / 4.0), 0.01);
    if share.share <= 0.001 || share.share > 0.5 || near.share < 0.01 {
        return None;
    }
    let better = BUCKETS.into_iter().find(|bound| *bound > now)?;
    Some(Advice {
        better: Some(format!("{better}s")),
        reason: format!(
            "{cut} of {all} calls, {share}, were cut at {now} s, and {near} of the good answers take more \
             than a quarter of that: the slow ones among them are cut too"
        ),
        price: format!(
            "between none and all {cut} would have been answered, and a call that hangs does so for {:.2} \
             s more",
            better - now
        ),
        evidence: share.evidence.and(most.evidence).and(near.evidence),
        alert: Some("AttemptTimeoutCutsGoodCalls"),
        ..case.advice("duration", format!("{now}s"))
    })
}

fn total_timeout(case: &Case<'_>) -> Option<Advice> {
    let now = case.config("total_duration")?;
    let attempt = case.timeout(false)?;
    let one = config_of(attempt, "duration")?;
    // A retry without time left is not sent, so then only attempts are cut.
    let cut_of = |timeout| of_outcome(timeout, "timeout").map_or(0, Histogram::count);
    let cut = cut_of(case.one) + cut_of(attempt);
    let retries = case.attempts().is_some_and(|attempts| attempts > 1.0);
    if cut == 0 || now >= 2.0 * one || !retries {
        return None;
    }
    let sent: u64 = attempt.histograms.iter().map(Histogram::count).sum();
    let share = case.seen((cut.min(sent), sent), 0.001);
    Some(Advice {
        better: Some(format!("{}s", 2.0 * one + 0.2)),
        reason: format!(
            "{cut} attempts or calls, {share}, took too long: of {now} s an attempt may take {one} s, and \
             none is left for a retry"
        ),
        price: format!(
            "callers wait up to {:.1} s longer; or an attempt gets {:.2} s",
            2.0 * one + 0.2 - now,
            now / 2.5
        ),
        evidence: share.evidence,
        alert: Some("NoTimeForRetry"),
        ..case.advice("total_duration", format!("{now}s"))
    })
}

pub(super) fn hedge(
    case: &Case<'_>,
    sent: u64,
    wins: &[(&'static str, u64)],
    delay: Option<f64>,
) -> Option<Advice> {
    let of = |winner: &str| -> u64 {
        let found = wins.iter().filter(|(name, _)| *name == winner);
        found.map(|(_, count)| count).sum()
    };
    let (first, hedged) = (of("first"), of("hedge"));
    let delay = delay?;
    let useless = case.seen((first, first + hedged), 0.75);
    // The first attempt would have answered anyway.
    if sent < 20 || first < 3 * hedged.max(1) {
        return None;
    }
    Some(Advice {
        better: Some(format!("{}s", delay * 2.0)),
        reason: format!(
            "of {sent} hedges {hedged} were of use: the first attempt won {first} times, {useless}, so they \
             are sent for usual calls"
        ),
        price: format!(
            "calls that are slow are hedged that much later: between none and all {hedged} that a hedge won"
        ),
        evidence: useless.evidence,
        alert: Some("HedgesUsualCalls"),
        ..case.advice("delay", format!("{delay}s"))
    })
}

pub(super) fn throttle(case: &Case<'_>, probability: f64) -> Option<Advice> {
    let now = case.config("multiplier")?;
    let totals = case.one.totals;
    let rejected = totals.rejected.of(RejectedKind::Throttled);
    let asked = totals.admitted + rejected;
    let share = case.seen((rejected, asked), 0.01);
    let accepts = case.seen((totals.success.min(totals.admitted), totals.admitted), 0.25);
    if share.share <= 0.01 || totals.success == 0 || accepts.share < 0.25 {
        return None;
    }
    let better = |accepts: f64| (1.5 / accepts).max(now * 1.25);
    Some(Advice {
        better: Some(format!("{:.1}", better(accepts.share))),
        reason: format!(
            "it rejected {rejected} of {asked} calls, {share}, now with a probability of \
             {probability:.2}, while the upstream accepts {accepts} of what it gets"
        ),
        price: format!(
            "in an outage the upstream gets that many times what it accepts ({:.1} to {:.1})",
            better(accepts.high),
            better(accepts.low)
        ),
        evidence: share.evidence.and(accepts.evidence),
        alert: Some("ThrottleRejectsGoodCalls"),
        ..case.advice("multiplier", format!("{now:.1}"))
    })
}
