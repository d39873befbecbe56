//! Logs with planted truths: what a replay says of them is known by construction.

use std::time::Duration;

use proptest::prelude::*;
use tower_keep::{
    algorithm::{BreakerConfig, Rate},
    observe::Evidence,
    replay::{
        Call, Calls, End, Half, Log, Question, Report, StackSettings, Survey, Thresholds, Upstream,
        burst_curve, false_trips, replay,
    },
};

/// Numbers that look random and follow from a seed.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ word >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
/// Noon of a day.
const START: u64 = 20_000 * DAY + DAY / 2;

/// Poisson calls over some seconds from a moment, each of 20 ms, failing with a probability.
fn calls_over(
    random: &mut Random,
    from: u64,
    seconds: f64,
    rate: f64,
    fails: impl Fn(f64) -> f64,
) -> Vec<Call> {
    let (mut at, mut calls) = (0.0, Vec::new());
    loop {
        at += random.exponential() / rate;
        if at >= seconds {
            return calls;
        }
        let nanos = Duration::from_secs_f64(at).as_nanos();
        let mut call = Call::new(from + u64::try_from(nanos).unwrap(), 20_000_000);
        if random.unit() < fails(at) {
            call.end = End::Failure;
        }
        calls.push(call);
    }
}

/// Eight days: a quiet quarter of an hour, and then five busy minutes, at a base rate of 12 %; on
/// every day half a minute of outage in the busy time.
pub(crate) fn eight_days() -> Calls {
    let mut random = Random(7);
    let mut calls = Vec::new();
    for day in 0..8 {
        let noon = START + day * DAY;
        calls.extend(calls_over(&mut random, noon, 900.0, 1.0, |_| 0.12));
        let busy = noon + 900 * SECOND;
        let fails = |at: f64| {
            if (100.0..130.0).contains(&at) {
                0.9
            } else {
                0.12
            }
        };
        calls.extend(calls_over(&mut random, busy, 300.0, 10.0, fails));
    }
    calls.into_iter().collect()
}

fn report(calls: Calls, toml: &str) -> Report {
    let question = Question::new(StackSettings::read_client(toml).unwrap());
    Report::of(Log::of(calls), question).unwrap()
}

#[test]
fn a_planted_base_rate_and_incident_are_found() {
    let survey = Survey::of(&eight_days()).unwrap();
    let host = &survey.hosts[0];
    assert!((host.base_rate - 0.12).abs() < 0.01, "{}", host.base_rate);
    assert_eq!((host.incidents.len(), survey.days), (8, 8));
    for (day, incident) in (0..).zip(&host.incidents) {
        let planted = START + day * DAY + 1000 * SECOND;
        let off = |one: u64, other: u64| one.abs_diff(other) / SECOND;
        assert!(off(incident.from, planted) <= 3, "{incident:?}");
        assert!(off(incident.to, planted + 30 * SECOND) <= 3, "{incident:?}");
    }
}

#[test]
fn a_window_of_few_calls_is_advised_against() {
    let toml = "circuit_breaker = { min_calls = 5, consecutive_failures = 'off' }";
    let report = report(eight_days(), toml);
    let of_circuit = report
        .advice
        .iter()
        .find(|one| one.layer == "circuit_breaker");
    let advice = of_circuit.unwrap_or_else(|| panic!("{report}"));
    assert_eq!((advice.setting, advice.now.as_str()), ("min_calls", "5"));
    let better: u32 = advice.better.as_ref().unwrap().parse().unwrap();
    assert!((20..=50).contains(&better), "{advice}");
    assert_eq!(advice.evidence, Evidence::Enough);
    // Priced on days that it was not chosen on.
    let find = |calls: u32| {
        let mut rows = report.circuits.iter();
        let config = |row: &&tower_keep::replay::Row| row.as_it_was.thresholds.circuit.unwrap();
        rows.find(|row| config(row).min_calls == calls && config(row).failure_rate == Some(0.5))
            .unwrap()
    };
    let (now, chosen) = (find(5), find(better));
    assert!(now.as_it_was.over(Half::Price).false_trips >= 3);
    assert_eq!(chosen.as_it_was.over(Half::Price).false_trips, 0);
    assert_eq!(chosen.as_it_was.total().detected, 8);
    // The bounds: an upstream that recovers once it is spared is open for less time.
    let (was, relieved) = (chosen.as_it_was.total().open, chosen.relieved.total().open);
    assert!(relieved < was, "{relieved} {was}");
    // The file has it, and builds.
    assert!(
        report.settings.contains(&format!("min_calls = {better}")),
        "{}",
        report.settings
    );
    let advised = StackSettings::read_client(&report.settings).unwrap();
    assert_eq!(advised.thresholds().circuit.unwrap().min_calls, better);
    // Asked again, there is nothing to say of it.
    let again = Question::new(advised);
    let again = Report::of(Log::of(eight_days()), again).unwrap();
    assert!(
        again
            .advice
            .iter()
            .all(|one| one.layer != "circuit_breaker"),
        "{again}"
    );
}

#[test]
fn few_days_are_not_enough_evidence() {
    let mut random = Random(3);
    let calls = calls_over(&mut random, START, 900.0, 1.0, |_| 0.12);
    let busy = calls_over(&mut random, START + 900 * SECOND, 300.0, 10.0, |_| 0.12);
    let toml = "circuit_breaker = { min_calls = 5, consecutive_failures = 'off' }";
    let report = report(calls.into_iter().chain(busy).collect(), toml);
    let of_circuit = report
        .advice
        .iter()
        .find(|one| one.layer == "circuit_breaker");
    let advice = of_circuit.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(advice.evidence, Evidence::MoreDays(3));
    assert!(
        advice
            .to_string()
            .contains("not enough evidence: 3 more days")
    );
    assert!(
        report.settings.contains("min_calls = 5"),
        "{}",
        report.settings
    );
}

#[test]
fn false_trips_agree_with_the_binomial() {
    for (base, min_calls) in [(0.3, 20), (0.35, 20), (0.4, 50)] {
        let mut random = Random(min_calls.into());
        let calls: Calls = calls_over(&mut random, START, 12_000.0, 5.0, |_| base)
            .into_iter()
            .collect();
        let survey = Survey::of(&calls).unwrap();
        assert!((survey.base_rate() - base).abs() < 0.01);
        let mut config = BreakerConfig::default();
        config.min_calls = min_calls;
        config.open_for = Duration::from_secs(1);
        let (low, high) = false_trips(&survey, &config, Half::Both);
        let asked = [Thresholds::circuit(config)];
        let replayed = replay(&calls, &survey, Upstream::AsItWas, &asked).unwrap();
        let total = replayed[0].total();
        assert_eq!(total.trips, total.false_trips);
        let weekly = total.trips as f64 / (survey.span().as_secs_f64() / 604_800.0);
        assert!(
            total.trips >= 3,
            "{base} {min_calls}: {} trips",
            total.trips
        );
        // Three deviations beside what chance does.
        let spread = 3.0 * weekly / (total.trips as f64).sqrt();
        assert!(
            low - spread <= weekly && weekly <= high + spread,
            "{base} {min_calls}: {weekly} a week, not {low} to {high}"
        );
    }
}

#[test]
fn places_follow_from_littles_law() {
    // Ten a second, half a second each, at even distances.
    let calls: Calls = (0..6000)
        .map(|number| Call::new(START + number * SECOND / 10, SECOND / 2))
        .collect();
    let survey = Survey::of(&calls).unwrap();
    assert!(
        (survey.mean_in_flight - 5.0).abs() < 0.01,
        "{}",
        survey.mean_in_flight
    );
    assert_eq!(survey.most_in_flight(), 5);
    let asked = [4, 5].map(Thresholds::places);
    let replayed = replay(&calls, &survey, Upstream::AsItWas, &asked).unwrap();
    let rejected = |number: usize| replayed[number].total().rejected_good;
    assert_eq!((rejected(0), rejected(1)), (1200, 0), "one in five");
}

/// As in a stack, where a later rejection costs the rate limit nothing.
#[test]
fn a_call_without_a_place_leaves_its_units() {
    // The second call finds the only place taken. The third finds the second unit.
    let moments = [(0, 10), (1, 1), (20, 1)];
    let call = |(at, lasts)| Call::new(START + at * SECOND, lasts * SECOND);
    let calls: Calls = moments.into_iter().map(call).collect();
    let survey = Survey::of(&calls).unwrap();
    let rate = Rate::per_minute(1);
    let asked = [Thresholds::rate(rate, 2), Thresholds::rate_per_key(rate, 2)];
    let asked = asked.map(|mut asked| {
        asked.places = Some(1);
        asked
    });
    for replayed in replay(&calls, &survey, Upstream::AsItWas, &asked).unwrap() {
        assert_eq!(replayed.total().rejected_good, 1);
    }
}

#[test]
fn a_greedy_key_is_named() {
    let mut random = Random(5);
    let mut calls = Vec::new();
    for key in 1..=10u64 {
        let rate = if key == 3 { 20.0 } else { 1.0 };
        let own = calls_over(&mut random, START, 300.0, rate, |_| 0.0);
        calls.extend(own.into_iter().map(|mut call| {
            call.key = key;
            call
        }));
    }
    let report = report(calls.into_iter().collect(), "rate = '20/s'\nburst = 20");
    let advice = report.advice.iter().find(|one| one.setting == "keyed_by");
    let advice = advice.unwrap_or_else(|| panic!("{report}"));
    assert!(advice.reason.contains("0000000000000003"), "{advice}");
    // What one limit for all takes from the others, one for each key does not.
    let per_key = report
        .rates
        .iter()
        .find(|row| row.name.contains("each key"))
        .unwrap();
    assert_eq!(per_key.as_it_was.keys[0].0, 3);
    let others: u64 = per_key.as_it_was.keys[1..]
        .iter()
        .map(|(_, count)| count)
        .sum();
    let of_whole = &report.now.as_it_was.keys;
    let before: u64 = of_whole
        .iter()
        .filter(|(key, _)| *key != 3)
        .map(|(_, count)| count)
        .sum();
    assert!(others * 10 < before, "{others} {before}");
}

#[test]
fn a_burst_that_is_too_small_gets_the_exact_one() {
    // Eight at once each second, on five days.
    let calls: Calls = (0..5u64)
        .flat_map(|day| {
            (0..800).map(move |number| Call::new(START + day * DAY + number / 8 * SECOND, 1000))
        })
        .collect();
    let report = report(calls, "rate = '10/s'\nburst = 4");
    let advice = report.advice.iter().find(|one| one.setting == "burst");
    let advice = advice.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(advice.better.as_deref(), Some("8"), "{advice}");
    assert!(report.settings.contains("burst = 8"), "{}", report.settings);
    assert_eq!(report.now.as_it_was.total().rejected_good, 5 * 400);
}

#[test]
fn coarse_times_make_two_bounds() {
    let calls: Calls = (0..100u64)
        .map(|number| {
            let mut call = Call::new(START + number * SECOND / 10, 1000);
            call.is_coarse = true;
            call
        })
        .collect();
    let point = burst_curve(&calls, &[Rate::per_second(10)]).unwrap()[0];
    assert_eq!((point.burst, point.at_most), (Some(1), Some(10)));
}

#[test]
fn a_short_timeout_is_advised_to_be_longer() {
    let calls: Calls = (0..5u64)
        .flat_map(|day| {
            (0..1000u64).map(move |number| {
                let slow = if number % 50 == 0 {
                    3 * SECOND / 2
                } else {
                    SECOND / 10
                };
                Call::new(START + day * DAY + number * SECOND, slow)
            })
        })
        .collect();
    let report = report(calls, "attempt_timeout = '1s'");
    let advice = report.advice.iter().find(|one| one.layer == "timeout");
    let advice = advice.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(advice.better.as_deref(), Some("3s"), "{advice}");
    assert!(advice.reason.contains("2.0 %"), "{advice}");
    assert!(
        report.settings.contains("attempt_timeout = \"3s\""),
        "{}",
        report.settings
    );
}

#[test]
fn two_files_are_compared_over_one_log() {
    let mut question = Question::new(StackSettings::read_client("rate = '1/s'").unwrap());
    question.against = Some(StackSettings::read_client("rate = '100/s'").unwrap());
    let calls: Calls = (0..500u64)
        .map(|number| Call::new(START + number * SECOND / 10, 1))
        .collect();
    let report = Report::of(Log::of(calls), question).unwrap();
    let against = report.against.as_ref().unwrap();
    assert!(report.now.as_it_was.total().rejected_good > 400);
    assert_eq!(against.as_it_was.total().rejected_good, 0);
    // It is what is about to be deployed that is asserted about.
    "rejected_good < 0.01%"
        .parse::<tower_keep::replay::Assertion>()
        .unwrap()
        .check(&report)
        .unwrap();
    let error = "rejected_good > 1%"
        .parse::<tower_keep::replay::Assertion>()
        .unwrap()
        .check(&report);
    assert!(error.unwrap_err().contains("does not hold: it is 0.000000"));
}

#[test]
fn a_report_is_text_json_and_a_page_of_its_own() {
    let mut calls = Vec::new();
    let mut random = Random(1);
    calls.extend(calls_over(&mut random, START, 200.0, 10.0, |_| 0.05));
    let mut log = Log::of(calls.into_iter().collect());
    log.hosts.insert(0, "</script><b>shop\"".into());
    let question = Question::new(StackSettings::client());
    let report = Report::of(log, question).unwrap();
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["calls"], report.survey.calls);
    assert!(json["circuits"].as_array().unwrap().len() > 10);
    let page = report.to_html();
    assert!(page.contains("you are here") && page.contains("<svg"));
    for foreign in ["http:", "https:", "<script", "src=", "url(", "<b>shop"] {
        let found = page.replace("http://www.w3.org", "");
        assert!(!found.contains(foreign), "{foreign}");
    }
    let text = report.to_string();
    assert!(
        text.contains("base rate") && text.contains("<- you are here"),
        "{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is in a log, and whatever is set, a report can be made of it.
    #[test]
    fn no_log_makes_a_report_panic(
        calls in prop::collection::vec((any::<u64>(), 0u64..1 << 48, 0usize..5, any::<u32>(), 0u64..4, 0u32..3, any::<bool>()), 1..60),
        near in any::<bool>(),
    ) {
        let calls: Calls = calls
            .into_iter()
            .map(|(start, duration, end, cost, key, host, is_coarse)| {
                let start = if near { START + start % (3 * DAY) } else { start };
                let mut call = Call::new(start, duration);
                (call.end, call.cost, call.key) = (End::ALL[end], cost, key);
                (call.host, call.is_coarse) = (host, is_coarse);
                call
            })
            .collect();
        let toml = "rate = '10/s'\nmax_in_flight = 3\nattempt_timeout = '1s'";
        let report = report(calls, toml);
        let _ = (report.to_string(), report.to_html());
        prop_assert!(serde_json::from_str::<serde_json::Value>(&report.to_json()).is_ok());
    }
}
