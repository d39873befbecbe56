//! Mistakes of settings under the alert rules of `examples/observability`: which alert fires first,
//! and when. The guide's page "tuning" has the table.
//!
//! It needs `promtool`, so plain `cargo test` reports it as ignored. `scripts/drill` runs it.

use std::{
    collections::BTreeMap,
    env, fs,
    process::{self, Command},
};

use serde_json::json;

use crate::planted::{self, Planted};

const PAGE: &str = include_str!("../../src/guide/tuning.md");
/// And a quarter: a rule looks at the least value of an hour.
const HOUR: u64 = 75 * 60;

type Mistake = (&'static str, fn() -> Planted);

pub(crate) const MISTAKES: [Mistake; 17] = [
    ("a window of few calls", planted::a_window_of_few_calls),
    (
        "a window that never holds enough",
        planted::a_window_that_never_holds_enough,
    ),
    (
        "a window that is too long",
        planted::a_window_that_is_too_long,
    ),
    (
        "slow calls that are usual",
        planted::slow_calls_that_are_usual,
    ),
    (
        "a bulkhead that is too small",
        planted::a_bulkhead_that_is_too_small,
    ),
    (
        "a bulkhead full of calls that hang",
        planted::a_bulkhead_full_of_calls_that_hang,
    ),
    (
        "a bulkhead that lets the upstream queue",
        planted::a_bulkhead_that_lets_the_upstream_queue,
    ),
    (
        "calls that wait for a place",
        planted::calls_that_wait_for_a_place,
    ),
    (
        "hopeless calls that empty the budget",
        planted::hopeless_calls_that_empty_the_budget,
    ),
    ("retries that are load", planted::retries_that_are_load),
    (
        "a burst that is too small",
        planted::a_burst_that_is_too_small,
    ),
    ("a rate below what comes", planted::a_rate_below_what_comes),
    (
        "an attempt that is cut too soon",
        planted::an_attempt_that_is_cut_too_soon,
    ),
    (
        "no time for a second attempt",
        planted::no_time_for_a_second_attempt,
    ),
    (
        "a hedge that is sent for usual calls",
        planted::a_hedge_that_is_sent_for_usual_calls,
    ),
    (
        "a throttle that rejects too soon",
        planted::a_throttle_that_rejects_too_soon,
    ),
    ("an upstream that hangs", planted::an_upstream_that_hangs),
];

#[test]
#[ignore = "needs promtool"]
fn each_mistake_has_the_alerts_of_the_guide() {
    let rows: Vec<_> = MISTAKES.iter().map(row).collect();
    let rows = rows.join("\n");
    let (_, table) = PAGE
        .split_once("| alerts, in their order |\n|---|---|\n")
        .unwrap();
    let table = table.split("\n\n").next().unwrap();
    assert!(table.trim() == rows, "the guide's table is now\n{rows}");
}

/// A mistake, and the alerts that fire in its first hour, in order.
fn row((name, planted): &Mistake) -> String {
    let planted = Planted {
        seconds: HOUR,
        ..planted()
    };
    let mut fired = fired(&planted.scraped());
    fired.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let fired = fired.iter().map(|(seconds, alert)| match *seconds < 60.0 {
        true => format!("`{alert}` after {seconds} s"),
        false => format!("`{alert}` after {:.0} min", seconds / 60.0),
    });
    format!("| {name} | {} |", fired.collect::<Vec<_>>().join(", "))
}

/// The alerts that fire, each with the seconds after which it does so first.
fn fired(scrapes: &[String]) -> Vec<(f64, String)> {
    let series = series(scrapes).into_iter();
    let series =
        series.map(|(series, values)| json!({ "series": series, "values": values.join(" ") }));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/observability/");
    let rules = ["alerts.yml", "tuning.yml"].map(|file| format!("{folder}{file}"));
    let test = json!({
        "rule_files": rules,
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "input_series": series.collect::<Vec<_>>(),
            // It expects nothing, and so fails and tells what there is.
            "promql_expr_test": [{
                "expr": "min_over_time(timestamp(ALERTS{alertstate='firing'})[3h:15s])",
                "eval_time": format!("{}s", 15 * scrapes.len()),
                "exp_samples": [],
            }],
        }],
    });
    let file = env::temp_dir().join(format!("alerts-{}.yml", process::id()));
    fs::write(&file, test.to_string()).unwrap();
    let mut promtool = Command::new("promtool");
    let ended = promtool.args(["test", "rules"]).arg(&file).output();
    let ended = ended.expect("promtool is installed");
    fs::remove_file(&file).unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let Some((_, got)) = said.split_once("got: ") else {
        assert!(said.contains("SUCCESS"), "{said}");
        return Vec::new();
    };
    let samples = got.split("{alertname=\"").skip(1);
    samples
        .map(|sample| {
            let (alert, rest) = sample.split_once('"').unwrap();
            let (_, value) = rest.split_once("} ").unwrap();
            let value: String = value
                .chars()
                .take_while(|one| "0123456789.eE+-".contains(*one))
                .collect();
            (value.parse().unwrap(), alert.to_owned())
        })
        .collect()
}

/// Each series of some scrapes, with its values as promtool reads them.
fn series(scrapes: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for (at, scrape) in scrapes.iter().enumerate() {
        for line in scrape.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let series = match series.split_once('{') {
                Some((name, labels)) => format!("{name}{{instance=\"a\",{labels}"),
                None => format!("{series}{{instance=\"a\"}}"),
            };
            let values = all.entry(series).or_default();
            values.resize(at, "_".into());
            values.push(value.to_owned());
        }
    }
    all
}
