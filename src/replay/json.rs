//! A report as JSON, written by hand, because it is small and then needs no dependency.

use std::fmt::{self, Write};

use crate::{
    observe::Evidence,
    replay::{
        report::Report,
        rows::Row,
        tally::{Replayed, Tally},
        words,
    },
};

impl Report {
    /// Returns one object. Times are in seconds, shares between 0 and 1.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        // Writing to a string does not fail.
        let _ = self.object(&mut json);
        json
    }

    fn object(&self, json: &mut String) -> fmt::Result {
        let (survey, lines) = (&self.survey, &self.lines);
        write!(
            json,
            "{{\"calls\":{},\"seconds\":{},\"days\":{},\"lines\":{{\"read\":{},\"broken\":{},\"rejected\":{},\"coarse\":{},\"lost\":{},\"first_broken\":",
            survey.calls,
            survey.span().as_secs_f64(),
            survey.days,
            lines.read,
            lines.broken,
            lines.rejected,
            lines.coarse,
            lines.lost,
        )?;
        list(json, &lines.first_broken, |json, line| {
            text(json, &line.to_string())
        })?;
        json.push_str("},\"ends\":{");
        for (place, (end, count)) in survey.ends.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(json, "{comma}\"{}\":{count}", end.as_str())?;
        }
        let good = &survey.good;
        write!(
            json,
            "}},\"good_seconds\":{{\"p50\":{},\"p90\":{},\"p99\":{},\"p999\":{},\"most\":{}}}",
            seconds(good.quantile(0.5)),
            seconds(good.quantile(0.9)),
            seconds(good.quantile(0.99)),
            seconds(good.quantile(0.999)),
            seconds(good.most()),
        )?;
        write!(
            json,
            ",\"in_flight\":{{\"mean\":{},\"busiest_minute\":{},\"most\":{}}},\"hosts\":",
            survey.mean_in_flight,
            survey.peak_in_flight,
            survey.most_in_flight(),
        )?;
        list(json, &survey.hosts, |json, host| {
            json.push_str("{\"name\":");
            text(json, &self.host_name(host.host))?;
            write!(
                json,
                ",\"calls\":{},\"base_rate\":{},\"incidents\":",
                host.calls, host.base_rate
            )?;
            list(json, &host.incidents, |json, one| {
                let (from, to) = (seconds(one.from), seconds(one.to));
                write!(
                    json,
                    "{{\"from\":{from},\"to\":{to},\"calls\":{},\"bad\":{}}}",
                    one.calls, one.bad
                )
            })?;
            json.write_char('}')
        })?;
        self.tables(json)?;
        self.advised(json)
    }

    fn tables(&self, json: &mut String) -> fmt::Result {
        json.push_str(",\"bursts\":");
        list(json, &self.bursts, |json, point| {
            let number =
                |burst: Option<u32>| burst.map_or("null".into(), |burst| burst.to_string());
            json.push_str("{\"rate\":");
            text(json, &words::rate(point.rate))?;
            write!(
                json,
                ",\"burst\":{},\"at_most\":{}}}",
                number(point.burst),
                number(point.at_most)
            )
        })?;
        let now = std::slice::from_ref(&self.now);
        let against: Vec<_> = self.against.iter().collect();
        json.push_str(",\"now\":");
        list(json, now, |json, row| self.row(json, row))?;
        json.push_str(",\"against\":");
        list(json, against, |json, row| self.row(json, row))?;
        for (name, rows) in [
            ("rates", &self.rates),
            ("circuits", &self.circuits),
            ("timeouts", &self.timeouts),
            ("bulkheads", &self.places),
            ("retries", &self.retries),
        ] {
            write!(json, ",\"{name}\":")?;
            list(json, rows, |json, row| self.row(json, row))?;
        }
        json.push_str(",\"hedges\":");
        list(json, &self.hedges, |json, row| {
            write!(
                json,
                "{{\"delay\":{},\"extra\":{},\"p99\":{},\"p99_at_best\":{}}}",
                row.delay.as_secs_f64(),
                row.extra,
                seconds(row.p99),
                seconds(row.p99_at_best),
            )
        })
    }

    fn advised(&self, json: &mut String) -> fmt::Result {
        json.push_str(",\"advice\":");
        list(json, &self.advice, |json, one| {
            write!(
                json,
                "{{\"layer\":\"{}\",\"setting\":\"{}\",\"now\":",
                one.layer, one.setting
            )?;
            text(json, &one.now)?;
            json.push_str(",\"better\":");
            match &one.better {
                Some(better) => text(json, better)?,
                None => json.push_str("null"),
            }
            json.push_str(",\"reason\":");
            text(json, &one.reason)?;
            json.push_str(",\"price\":");
            text(json, &one.price)?;
            let more = match one.evidence {
                Evidence::Enough => 0,
                Evidence::MoreDays(days) => days,
            };
            write!(json, ",\"more_days\":{more}}}")
        })?;
        json.push_str(",\"settings\":");
        text(json, &self.settings)?;
        json.write_char('}')
    }

    fn row(&self, json: &mut String, row: &Row) -> fmt::Result {
        json.push_str("{\"name\":");
        text(json, &row.name)?;
        json.push_str(",\"as_it_was\":");
        replayed(json, &row.as_it_was)?;
        json.push_str(",\"relieved\":");
        replayed(json, &row.relieved)?;
        if let Some((low, high)) = row.expected {
            write!(json, ",\"false_trips_a_week\":[{low},{high}]")?;
        }
        json.push_str(",\"keys\":");
        list(
            json,
            row.as_it_was.keys.iter().take(10),
            |json, (key, count)| {
                json.push_str("{\"key\":");
                text(json, &self.key_name(*key))?;
                write!(json, ",\"rejected\":{count}}}")
            },
        )?;
        json.write_char('}')
    }
}

fn replayed(json: &mut String, one: &Replayed) -> fmt::Result {
    let total: Tally = one.total();
    let Tally {
        calls,
        good,
        bad,
        rejected_good,
        rejected_bad,
        rejected_other,
        lost_good,
        cut_bad,
        saved,
        trips,
        false_trips,
        open,
        detected,
        retries,
        retries_denied,
        ..
    } = total;
    let detection = one
        .detection()
        .map_or("null".into(), |seconds| seconds.to_string());
    write!(
        json,
        "{{\"calls\":{calls},\"good\":{good},\"bad\":{bad},\"rejected_good\":{rejected_good},\"rejected_bad\":{rejected_bad},\
         \"rejected_other\":{rejected_other},\"lost_good\":{lost_good},\"cut_bad\":{cut_bad},\"saved\":{},\"trips\":{trips},\
         \"false_trips\":{false_trips},\"open\":{},\"incidents\":{},\"detected\":{detected},\"detection\":{detection},\
         \"retries\":{retries},\"retries_denied\":{retries_denied}}}",
        seconds(saved),
        seconds(open),
        one.incidents,
    )
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
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
