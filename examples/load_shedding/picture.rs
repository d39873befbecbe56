//! The timeline.

use std::time::Duration;

use crate::{
    CAPACITY, PHASES, Side,
    drawing::{KEEP, PAPER, PLAIN, Panel, TimeAxis, heading, key, nice, page, text},
    traffic::{Answer, Asked},
};

/// Draws both servers' runs.
pub(crate) fn draw(naive: &Side, kept: &Side) -> String {
    let time = TimeAxis {
        end: PHASES[PHASES.len() - 1].end,
        bin: BIN,
    };
    let mut svg = String::new();
    let sides = [
        (KEEP, "tower-keep stack", summary(kept)),
        (PLAIN, "no limit", summary(naive)),
    ];
    heading(&mut svg, "One server, more load than it can carry", sides);
    key(&mut svg);
    for phase in &PHASES {
        let span = (phase.start, phase.end);
        let shade = if phase.load > 2.0 {
            "#fbdcd8"
        } else if phase.load > 1.0 {
            "#fdebd3"
        } else {
            PAPER
        };
        time.shade(&mut svg, span, BOTTOM, shade);
        time.label(&mut svg, span, phase.name);
    }
    goodput(&mut svg, &time, naive, kept);
    in_flight(&mut svg, &time, naive, kept);
    time.axis(&mut svg, BOTTOM);
    page(HEIGHT, "Timeline of the load shedding example", &svg)
}

fn summary(side: &Side) -> String {
    let [.., thrice, after] = &PHASES;
    format!(
        "{:.0} % of capacity answered in time at 3x, {:.0} % of the requests afterwards",
        100.0 * side.goodput(thrice),
        100.0 * side.answered(after)
    )
}

fn goodput(svg: &mut String, time: &TimeAxis, naive: &Side, kept: &Side) {
    let offered = time.rates(kept.requests.iter().map(|asked| asked.at));
    let good = |side: &Side| {
        let answered = side.requests.iter();
        let answered = answered.filter(|asked| asked.answer == Answer::InTime);
        time.rates(answered.map(Asked::ended))
    };
    let panel = Panel {
        base: 302.0,
        height: 154.0,
        most: nice(offered.iter().copied().fold(1.0, f64::max)),
    };
    panel.grid(svg, "Answered in time, requests per second");
    time.area(svg, &panel, &offered);
    time.capacity(svg, &panel, CAPACITY);
    time.line(svg, &panel, &good(naive), PLAIN);
    time.line(svg, &panel, &good(kept), KEEP);
}

fn in_flight(svg: &mut String, time: &TimeAxis, naive: &Side, kept: &Side) {
    let bins = u32::try_from(time.end.as_millis() / BIN.as_millis()).unwrap_or(u32::MAX);
    let in_flight = |side: &Side| -> Vec<f64> {
        let middles = (0..bins).map(|bin| BIN * bin + BIN / 2);
        middles.map(|now| side.in_flight(now) as f64).collect()
    };
    let most = kept.most_in_flight(&PHASES[2]);
    let [naive, kept] = [naive, kept].map(in_flight);
    let panel = Panel {
        base: BOTTOM,
        height: 134.0,
        most: nice(naive.iter().copied().fold(1.0, f64::max)),
    };
    panel.grid(svg, "Calls that the server has taken on and not done");
    time.line(svg, &panel, &naive, PLAIN);
    time.line(svg, &panel, &kept, KEEP);
    let note = |at, value: f64| (time.x(at), panel.y(value) - 10.0);
    let (middle, left) = (naive.len() / 2, "for callers that have left");
    let at = BIN.mul_f64(middle as f64 - 0.4);
    text(svg, note(at, naive[middle]), "end", PLAIN, left);
    let at = (PHASES[2].start + PHASES[2].end) / 2;
    let bound = format!("never more than {most}");
    text(svg, note(at, 0.0), "middle", KEEP, &bound);
}

const HEIGHT: f64 = 536.0;
/// The lower edge of all panels.
const BOTTOM: f64 = 492.0;
const BIN: Duration = Duration::from_millis(500);
