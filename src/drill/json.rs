//! The report as JSON, written by hand, because it is small and then needs no feature.

use std::fmt::{self, Write};

use super::{figures::Figures, measure::Measure, reached::Reached, results::Results};

/// Returns one object: the drill, its phases, and a column for each stack with its seeds.
pub(super) fn write(results: &Results) -> String {
    let mut json = String::new();
    // Writing to a string does not fail.
    let _ = object(&mut json, results);
    json
}

fn object(json: &mut String, results: &Results) -> fmt::Result {
    let scenario = &results.scenario;
    write!(
        json,
        "{{\"seeds\":{},\"seconds\":{},\"clients\":{},\"patience\":{},\"took\":{}",
        results.runs.len(),
        scenario.lasting.as_secs_f64(),
        scenario.main().clients,
        scenario.main().patience.as_secs_f64(),
        number(results.took.as_secs_f64()),
    )?;
    json.push_str(",\"phases\":");
    list(json, scenario.phases(), |json, phase| {
        let (from, to) = (phase.from.as_secs_f64(), phase.to.as_secs_f64());
        write!(json, "{{\"from\":{from},\"to\":{to},\"troubles\":")?;
        list(json, phase.troubles, |json, trouble| text(json, &trouble))?;
        json.write_char('}')
    })?;
    json.push_str(",\"columns\":");
    let columns = results.names().into_iter().enumerate();
    list(json, columns, |json, (stack, name)| {
        column(json, results, (stack, &name))
    })?;
    for (name, lines) in [
        ("not_reached", results.not_reached()),
        ("worse_than_none", results.worse_than_none()),
    ] {
        write!(json, ",\"{name}\":")?;
        list(json, lines, |json, line| text(json, &line))?;
    }
    json.write_char('}')
}

fn column(json: &mut String, results: &Results, (stack, name): (usize, &str)) -> fmt::Result {
    json.push_str("{\"name\":");
    text(json, name)?;
    let counted = results.counted(stack);
    json.push_str(",\"reached\":{");
    for (place, one) in Reached::ALL.into_iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        write!(json, "{comma}\"{one:?}\":{}", one.count(&counted))?;
    }
    json.push_str("},\"retries\":{");
    for (place, (cause, count)) in counted.retries.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        write!(json, "{comma}\"{cause}\":{count}")?;
    }
    json.push_str("},\"rejections\":{");
    for (place, ((layer, kind), count)) in counted.rejected.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        write!(json, "{comma}\"{layer}.{kind}\":{count}")?;
    }
    json.push_str("},\"seeds\":");
    list(json, &results.runs, |json, run| {
        seed(json, run.seed, &run.figures[stack])
    })?;
    json.write_char('}')
}

fn seed(json: &mut String, seed: u64, figures: &Figures) -> fmt::Result {
    write!(json, "{{\"seed\":{seed},\"asked\":{}", figures.asked)?;
    for measure in Measure::ALL {
        write!(json, ",\"{measure:?}\":{}", number(measure.of(figures)))?;
    }
    if !figures.crowds.is_empty() {
        json.push_str(",\"crowds\":");
        list(json, &figures.crowds, |json, crowd| {
            write!(json, "{}", number(crowd.answered))
        })?;
    }
    json.push_str(",\"phases\":");
    list(json, &figures.phases, |json, phase| {
        let (answered, sent) = (number(phase.answered), number(phase.sent));
        write!(json, "{{\"answered\":{answered},\"sent\":{sent}}}")
    })?;
    json.write_char('}')
}

fn list<T>(
    json: &mut String,
    items: impl IntoIterator<Item = T>,
    item: impl Fn(&mut String, T) -> fmt::Result,
) -> fmt::Result {
    json.push('[');
    for (place, one) in items.into_iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        item(json, one)?;
    }
    json.write_char(']')
}

/// Writes a number. JSON has no infinity: what never happened is `null`.
fn number(value: f64) -> String {
    if value.is_finite() {
        value.to_string()
    } else {
        "null".into()
    }
}

fn text(json: &mut String, text: &str) -> fmt::Result {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(json, "\\{letter}")?,
            letter if letter.is_control() => write!(json, "\\u{:04x}", u32::from(letter))?,
            letter => json.push(letter),
        }
    }
    json.write_char('"')
}
