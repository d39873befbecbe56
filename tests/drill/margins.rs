//! How much both stacks' defaults survive, beside a table that is checked in.
//!
//! A change of a default that moves a margin by over a tenth fails until the table changes with it,
//! in the same commit: `scripts/drill --write` writes it anew.

use std::{env, fmt::Write as _, fs};

use tower::Layer;
use tower_keep::{
    drill::{Drill, Lognormal, Measure, Poisson, Servers, Trouble, ms, secs},
    rate_limit::Rate,
    stack,
};

use crate::to_the_shop;

/// Half a minute of the standard drill's traffic. A trouble takes its middle third.
fn half_a_minute(drill: Drill) -> Drill {
    drill
        .clients(50)
        .patience(secs(1))
        .lasting(secs(30))
        .traffic(Poisson::per_second(200), to_the_shop)
        .upstream("shop", upstream())
        .seeds(0..SEEDS)
}

fn upstream() -> Servers {
    let servers = Servers::new(8).service(Lognormal::median(ms(20)).sigma(0.5));
    servers.queue(200)
}

fn client() -> Drill {
    let stack = |upstream| Ok(stack::client().http().build()?.layer(upstream));
    half_a_minute(Drill::http(stack))
}

/// The upstream does some 350 calls a second.
fn server() -> Drill {
    let stack = |handler| {
        let stack = stack::server().http().rate(Rate::per_second(350));
        Ok(stack.timeout(secs(1)).build()?.layer(handler))
    };
    half_a_minute(Drill::http_server(stack))
}

/// A margin in the table, or a figure of a drill.
struct Line {
    name: String,
    value: f64,
    /// The least difference that means anything.
    step: f64,
}

/// The severity that is survived: seven of eight calls are answered in time while it lasts, and
/// within 5 s after it all are again.
fn edge(name: &str, drill: Drill, trouble: impl Fn(f64) -> Trouble) -> Line {
    let margin = drill.breaking_point_by(trouble, |report| {
        let answered = report.each(Measure::Answered).mean().value();
        let recovery = report.each(Measure::Recovery).value();
        answered >= 1.0 - 1.0 / 24.0 && recovery <= 5.0
    });
    let value = margin.survived.unwrap_or(f64::NAN);
    let name = format!("{name}, survived");
    let step = 0.016; // two steps of the search
    Line { name, value, step }
}

/// What becomes of calls with a trouble in the middle.
fn figures(name: &str, drill: Drill, trouble: Trouble) -> Vec<Line> {
    let report = drill.trouble(secs(10)..secs(20), "shop", trouble).run();
    let measures = [
        ("answered", Measure::Answered, 0.01),
        ("sent", Measure::Sent, 0.01),
        ("seconds to recover", Measure::Recovery, 0.1),
    ];
    let lines = measures.map(|(what, measure, step)| Line {
        name: format!("{name}, {what}"),
        value: report.each(measure).mean().value(),
        step,
    });
    lines.into()
}

fn margins() -> Vec<Line> {
    // A severity between 0 and 1, as a factor: ten times as slow at most, and so on.
    let slow = |severity| Trouble::slow(1.0 + 9.0 * severity);
    let burst = |severity| Trouble::burst(1.0 + 9.0 * severity);
    let sick = |severity| Trouble::one_sick_of(4, 1.0 + 99.0 * severity);
    let mut lines = vec![
        edge("client: share that fails", client(), Trouble::fails),
        edge("client: share refused", client(), Trouble::refuses),
        edge("client: share reset", client(), Trouble::resets),
        edge("client: share that hangs", client(), Trouble::hangs),
        edge("client: capacity left", client(), Trouble::capacity),
        edge("client: slow, of 1 to 10 times", client(), slow),
        edge("client: one of 4 slow, of 1 to 100 times", client(), sick),
        edge("client: calls, of 1 to 10 times", client(), burst),
        edge("server: capacity left", server(), Trouble::capacity),
        edge("server: slow, of 1 to 10 times", server(), slow),
        edge("server: calls, of 1 to 10 times", server(), burst),
    ];
    for (name, trouble) in [
        ("client: 60 % fail", Trouble::fails(0.6)),
        ("client: refused", Trouble::refused()),
        ("client: hangs", Trouble::hang()),
        ("client: half the capacity", Trouble::capacity(0.5)),
        ("client: 10 times the calls", Trouble::burst(10.0)),
    ] {
        lines.extend(figures(name, client(), trouble));
    }
    for (name, trouble) in [
        ("server: half the capacity", Trouble::capacity(0.5)),
        ("server: 3 times as slow", Trouble::slow(3.0)),
        ("server: 10 times the calls", Trouble::burst(10.0)),
    ] {
        lines.extend(figures(name, server(), trouble));
    }
    lines
}

#[test]
#[ignore = "a minute in release: scripts/drill runs it"]
fn the_margins_are_those_of_the_table() {
    let lines = margins();
    let mut text = HEADER.to_owned();
    for Line { name, value, .. } in &lines {
        let _ = writeln!(text, "{name:<56}{value:>8.3}");
    }
    if env::var("DRILL_MARGINS").is_ok_and(|mode| mode == "write") {
        fs::write(TABLE, text).unwrap();
        return;
    }
    let known = fs::read_to_string(TABLE).unwrap();
    let moved = moved(&known, &lines);
    assert!(
        moved.is_empty(),
        "margins have moved by over a tenth: if that is meant, `scripts/drill --write`, and say why \
         in the commit\n{}\nnow:\n{text}",
        moved.join("\n")
    );
}

/// What is not as the table says, and what is missing in either.
fn moved(known: &str, lines: &[Line]) -> Vec<String> {
    let rows = known.lines().filter(|line| !line.starts_with('#'));
    let rows = rows.filter_map(|line| line.rsplit_once(' '));
    let rows: Vec<_> = rows.map(|(name, value)| (name.trim(), value)).collect();
    let mut moved = Vec::new();
    for Line { name, value, step } in lines {
        let row = rows.iter().find(|(known, _)| known == name);
        let known: Option<f64> = row.map(|(_, known)| known.parse().unwrap());
        match known {
            None => moved.push(format!("{name}: {value:.3}, and not in the table")),
            Some(known) if is_moved(known, *value, *step) => {
                moved.push(format!("{name}: {value:.3}, not {known:.3}"));
            }
            Some(_) => {}
        }
    }
    let gone = rows.iter();
    let gone = gone.filter(|(known, _)| lines.iter().all(|line| line.name != *known));
    moved.extend(gone.map(|(name, _)| format!("{name}: in the table, and no margin")));
    moved
}

/// Returns whether a value is another by over a tenth, and by more than chance makes of it.
fn is_moved(known: f64, value: f64, step: f64) -> bool {
    let difference = (known - value).abs();
    // Infinite: it never recovers.
    let same = known == value || (known.is_nan() && value.is_nan());
    let is_small = difference <= step || difference <= 0.1 * known.abs();
    !(same || difference.is_finite() && is_small)
}

#[test]
fn a_margin_that_moves_by_over_a_tenth_is_told() {
    let line = |name: &str, value| Line {
        name: name.into(),
        value,
        step: 0.01,
    };
    let table = "# words\nrefused      0.500\nnever          inf\n";
    let now = |refused, never| [line("refused", refused), line("never", never)];
    assert!(moved(table, &now(0.54, f64::INFINITY)).is_empty());
    assert_eq!(
        moved(table, &now(0.56, f64::INFINITY)),
        ["refused: 0.560, not 0.500"]
    );
    assert_eq!(moved(table, &now(0.5, 7.0)), ["never: 7.000, not inf"]);
    assert_eq!(moved(table, &now(f64::NAN, f64::INFINITY)).len(), 1);
    assert_eq!(
        moved(table, &[line("refused", 0.5), line("new", 1.0)]),
        [
            "new: 1.000, and not in the table",
            "never: in the table, and no margin"
        ]
    );
}

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drill/margins.txt");
const SEEDS: u64 = 4;
const HEADER: &str = "\
# What the defaults of both stacks survive, as tests/drill/margins.rs measures it: half a minute of 200
# calls/s at a load of 57 %, with a trouble in the middle third. A trouble is survived if 7 of 8 calls are
# answered in time while it lasts, and all again within 5 s after it. scripts/drill fails when a line has
# moved by over a tenth. Write it anew with scripts/drill --write, and say in the commit why it moved.
";
