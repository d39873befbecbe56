//! The table, and what must have come out.

use std::{fmt::Write, time::Duration};

use crate::{PATIENCE, PHASES, Phase, Side, WORKERS, traffic::Answer};

/// Both servers, phase by phase.
pub(crate) fn table(naive: &Side, kept: &Side) -> String {
    let mut text = format!(
        "{:<18}{:<7}{:>8}{:>9}{:>12}{:>10}{:>7}{:>8}{:>8}{:>11}\n",
        "load",
        "",
        "offered",
        "in time",
        "of capacity",
        "rejected",
        "late",
        "p50",
        "p99",
        "in flight"
    );
    for phase in &PHASES {
        for side in [naive, kept] {
            row(&mut text, phase, side);
        }
    }
    let _ = write!(
        text,
        "in time: answered before the caller left, {PATIENCE:?} after it came\n\
         of capacity: the answers in time that were given while this load lasted\n\
         in flight: the most calls that the server had at once and had not done"
    );
    text
}

fn row(text: &mut String, phase: &Phase, side: &Side) {
    let count = |answer| side.count(phase, answer);
    let _ = writeln!(
        text,
        "{:<18}{:<7}{:>8}{:>9}{:>10.0} %{:>10}{:>7}{:>8}{:>8}{:>11}",
        phase.name,
        side.name,
        side.asked(phase).len(),
        count(Answer::InTime),
        100.0 * side.goodput(phase),
        count(Answer::Rejected),
        count(Answer::Late),
        millis(side.latency(phase, 50)),
        millis(side.latency(phase, 99)),
        side.most_in_flight(phase)
    );
}

fn millis(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".into(), |time| format!("{} ms", time.as_millis()))
}

/// What the layer promises, and what is promised without it.
///
/// # Errors
/// Says what did not come out.
pub(crate) fn check(naive: &Side, kept: &Side) -> Result<(), String> {
    let [once, twice, thrice, after] = &PHASES;
    let late: usize = PHASES
        .iter()
        .map(|phase| kept.count(phase, Answer::Late))
        .sum();
    let most = PHASES.iter().map(|phase| kept.most_in_flight(phase)).max();
    let claims = [
        (
            "kept, 1x: 90 % of the requests are answered",
            kept.answered(once) >= 0.9,
        ),
        ("kept, 2x: 90 % of capacity", kept.goodput(twice) >= 0.9),
        ("kept, 3x: 90 % of capacity", kept.goodput(thrice) >= 0.9),
        (
            "kept, afterwards: all but 5 % are answered",
            kept.answered(after) >= 0.95,
        ),
        (
            "kept: hardly anybody waits in vain",
            late * 50 <= kept.requests.len(),
        ),
        (
            "kept: never more in flight than let in",
            most <= Some(2 * WORKERS),
        ),
        (
            "naive, 3x: a quarter of capacity is not reached",
            naive.goodput(thrice) < 0.25,
        ),
        (
            "naive, afterwards: it has not recovered",
            naive.answered(after) < 0.25,
        ),
    ];
    let wrong: Vec<_> = claims
        .iter()
        .filter(|(_, holds)| !holds)
        .map(|(claim, _)| *claim)
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("not so: {}", wrong.join("; ")))
    }
}
