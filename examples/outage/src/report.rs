//! The table at the end, and what must have come out.

use std::{fmt::Write, time::Duration};

use crate::{
    measure::{Drill, Side, ratio},
    options::Options,
};

/// The two clients side by side.
pub(crate) fn table(drill: &Drill, options: &Options) -> String {
    let mut text = String::new();
    line(&mut text, "", drill, |side| side.name.to_owned());
    line(&mut text, "requests asked", drill, |side| {
        side.asked().to_string()
    });
    line(&mut text, "answered in time (goodput)", drill, |side| {
        let good = side.good(options.deadline);
        format!("{good} ({:.0} %)", 100.0 * ratio(good, side.asked()))
    });
    line(&mut text, "calls that reached the server", drill, |side| {
        side.calls.len().to_string()
    });
    line(&mut text, "amplification, overall", drill, |side| {
        format!("{:.2}", side.amplification())
    });
    line(&mut text, "amplification, worst second", drill, |side| {
        format!("{:.2}", side.worst_amplification())
    });
    line(&mut text, "wait for any outcome, p50", drill, |side| {
        millis(side.latency(50))
    });
    line(&mut text, "wait for any outcome, p99", drill, |side| {
        millis(side.latency(99))
    });
    line(&mut text, "failed, or not answered", drill, |side| {
        side.failed().to_string()
    });
    line(&mut text, "rejected before or instead", drill, |side| {
        side.rejections().values().sum::<usize>().to_string()
    });
    line(&mut text, "recovered after the outage", drill, |side| {
        recovered(side, drill, options)
    });
    if [&drill.plain, &drill.keep]
        .into_iter()
        .any(|side| recovered(side, drill, options) == NEVER)
    {
        let watched = drill.script.end().saturating_sub(drill.script.outage_end());
        let _ = writeln!(
            text,
            "  {NEVER}: not in the {:.0} s that were watched",
            watched.as_secs_f64()
        );
    }
    let _ = writeln!(text, "\nrejected by the keep stack");
    for (kind, count) in drill.keep.rejections() {
        let _ = writeln!(text, "  {kind:<42}{count:>14}");
    }
    let _ = writeln!(
        text,
        "\nretries sent by the keep stack {:>27}",
        drill.retries
    );
    let _ = writeln!(
        text,
        "retries that the budget refused {:>26}",
        drill.over_budget
    );
    let _ = writeln!(
        text,
        "times that the circuit opened {:>28}",
        drill.band.opened()
    );
    text
}

fn line(text: &mut String, name: &str, drill: &Drill, value: impl Fn(&Side) -> String) {
    let _ = writeln!(
        text,
        "{name:<30}{:>14}{:>14}",
        value(&drill.plain),
        value(&drill.keep)
    );
}

pub(crate) fn recovered(side: &Side, drill: &Drill, options: &Options) -> String {
    match side.recovery(drill.script.outage_end(), options.deadline) {
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
        None => NEVER.into(),
    }
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// What did not come out as it must with the default settings.
pub(crate) fn differences(drill: &Drill, options: &Options) -> Vec<String> {
    let mut found = Vec::new();
    if drill.band.opened() == 0 {
        found.push("the circuit breaker never opened".to_owned());
    }
    let (plain, keep) = (drill.plain.calls.len(), drill.keep.calls.len());
    if keep >= plain {
        found.push(format!(
            "the keep client sent {keep} calls, the plain one {plain}"
        ));
    }
    let recovery = |side: &Side| {
        side.recovery(drill.script.outage_end(), options.deadline)
            .unwrap_or(Duration::MAX)
    };
    let (plain, keep) = (recovery(&drill.plain), recovery(&drill.keep));
    if keep > RECOVERY || keep > plain {
        found.push(format!(
            "the keep client recovered in {keep:?}, the plain one in {plain:?}"
        ));
    }
    let good = ratio(drill.keep.good(options.deadline), drill.keep.asked());
    if good < GOODPUT {
        found.push(format!(
            "the keep client answered {:.0} % in time",
            100.0 * good
        ));
    }
    found
}

/// What `stack::client()` promises in this drill, whatever the seed.
const RECOVERY: Duration = Duration::from_secs(2);
const GOODPUT: f64 = 0.7;
pub(crate) const NEVER: &str = "never";
