//! The rules for layers of single calls: retries, timeouts, hedges and throttles.

use crate::{
    RejectedKind,
    observe::{
        Advice, BUCKETS, Histogram,
        case::{Case, above, of_outcome},
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
    let was = format!("{now:.0}");
    if now > 2.0 && denied * 100 > all && good * 2 > all {
        return Some(Advice {
            better: Some("2".into()),
            reason: format!(
                "{denied} of {all} calls found the budget empty while most succeed: {} never succeed, and \
                 take the tokens that others need",
                of("exhausted") + denied
            ),
            price: format!(
                "{} calls recovered, some of them at a third attempt",
                of("recovered")
            ),
            alert: Some("RetryBudgetEmpty"),
            ..case.advice("attempts", was)
        });
    }
    if now > 2.0 && again * 5 > all {
        return Some(Advice {
            better: Some("2".into()),
            reason: format!(
                "{again} retries for {all} calls: {:.0} % more load, for {} that recovered",
                again as f64 / all.max(1) as f64 * 100.0,
                of("recovered")
            ),
            price: "what only a third attempt would save is lost".into(),
            alert: Some("RetryStorm"),
            ..case.advice("attempts", was)
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
    // Good answers arrive up to the very end, so more would have arrived after it.
    let near = above(good, now / 4.0);
    if cut * 1000 <= all || cut * 2 > all || near < 0.01 {
        return None;
    }
    let better = BUCKETS.into_iter().find(|bound| *bound > now)?;
    Some(Advice {
        better: Some(format!("{better}s")),
        reason: format!(
            "{cut} of {all} calls were cut at {now} s, and {:.0} % of the good answers take more than a \
             quarter of that: the slow ones among them are cut too",
            near * 100.0
        ),
        price: format!(
            "between none and all {cut} would have been answered, and a call that hangs does so for {:.2} \
             s more",
            better - now
        ),
        alert: None,
        ..case.advice("duration", format!("{now}s"))
    })
}

fn total_timeout(case: &Case<'_>) -> Option<Advice> {
    let now = case.config("total_duration")?;
    let attempt = case.timeout(false)?;
    let mut config = attempt.config.iter();
    let one = config.find(|(name, _)| *name == "duration")?.1;
    // A retry without time left is not sent, so then only attempts are cut.
    let cut_of = |timeout| of_outcome(timeout, "timeout").map_or(0, Histogram::count);
    let cut = cut_of(case.one) + cut_of(attempt);
    if cut == 0 || now >= 2.0 * one {
        return None;
    }
    Some(Advice {
        better: Some(format!("{}s", 2.0 * one + 0.2)),
        reason: format!(
            "{cut} attempts or calls took too long: of {now} s an attempt may take {one} s, and none is left \
             for a retry"
        ),
        price: format!(
            "callers wait up to {:.1} s longer; or an attempt gets {:.2} s",
            2.0 * one + 0.2 - now,
            now / 2.5
        ),
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
    // The first attempt would have answered anyway.
    if sent < 20 || first < 3 * hedged.max(1) {
        return None;
    }
    Some(Advice {
        better: Some(format!("{}s", delay * 2.0)),
        reason: format!(
            "of {sent} hedges {hedged} were of use: the first attempt won {first} times, so they are sent \
             for usual calls"
        ),
        price: "calls that are slow are hedged that much later".into(),
        ..case.advice("delay", format!("{delay}s"))
    })
}

pub(super) fn throttle(case: &Case<'_>, probability: f64) -> Option<Advice> {
    let totals = case.one.totals;
    let rejected = totals.rejected.of(RejectedKind::Throttled);
    let asked = totals.admitted + rejected;
    let accepted = totals.success as f64 / totals.admitted.max(1) as f64;
    if rejected * 100 <= asked || totals.success == 0 || accepted < 0.25 {
        return None;
    }
    let better = 1.5 / accepted;
    Some(Advice {
        better: Some(format!("{:.1}", better.max(2.5))),
        reason: format!(
            "it rejected {rejected} of {asked} calls, now with a probability of {probability:.2}, while the \
             upstream accepts {:.0} % of what it gets",
            accepted * 100.0
        ),
        price: "in an outage the upstream gets that many times what it accepts".into(),
        ..case.advice("multiplier", "below what is usual".into())
    })
}
