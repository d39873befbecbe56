//! Advice: thresholds chosen on one half of the days, and priced on the other.

use std::io;

use crate::{
    observe::{Advice, Evidence},
    replay::{findings::Findings, stack::StackSettings},
};

/// Returns all advice, and the settings changed by the advice that is certain.
pub(super) fn all(
    findings: &Findings<'_>,
    now: &StackSettings,
) -> io::Result<(Vec<Advice>, String)> {
    let found = [
        findings.circuit(),
        findings.timeout(now),
        findings.places(now),
        findings.burst(),
        findings.greedy_key(),
        findings.retries(),
        findings.hedge(now),
    ];
    let mut settings = now.clone();
    let mut advice = Vec::new();
    for (mut one, change) in found.into_iter().flatten() {
        if one.better.is_some() && one.evidence == Evidence::Enough {
            one.evidence = findings.evidence();
        }
        if let (Some(change), Evidence::Enough) = (change, one.evidence) {
            let mut changed = settings.clone();
            changed.change(change);
            match changed.check() {
                Ok(()) => settings = changed,
                // A server without any limit did not build before either.
                Err(_) if settings.check().is_err() => settings = changed,
                Err(error) => {
                    one.price = format!("{}; `build` refuses it here: {error}", one.price);
                }
            }
        }
        advice.push(one);
    }
    let mut text = String::new();
    for one in &advice {
        text.push_str(&commented(&one.to_string()));
    }
    match settings.check() {
        Ok(()) => text.push_str(&settings.to_toml()?),
        Err(error) => text.push_str(&commented(&format!("no settings: {error}"))),
    }
    Ok((advice, text))
}

fn commented(text: &str) -> String {
    text.lines().map(|line| format!("# {line}\n")).collect()
}
