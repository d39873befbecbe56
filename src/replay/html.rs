//! A report as one self-contained page: no script, no font, no network.

use std::fmt::Write;

use crate::replay::{
    picture::{self, Chart, Dot},
    report::Report,
    rows::Row,
    text::{rejected, summary},
    words::{self, escaped},
};

impl Report {
    /// Returns one HTML page with pictures. It loads nothing, and runs nothing.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut page = String::from(HEAD);
        self.head(&mut page);
        self.advice_part(&mut page);
        self.frontier(&mut page);
        self.bursts(&mut page);
        self.durations(&mut page);
        self.running(&mut page);
        let _ = writeln!(
            page,
            "<h2>All figures</h2><pre>{}</pre></main></body></html>",
            escaped(&self.to_string())
        );
        page
    }

    fn head(&self, page: &mut String) {
        let survey = &self.survey;
        let _ = write!(
            page,
            "<h1>What if</h1><p>{} calls in {} on {} days, {:.1} a second. Base rate of failures {}, {} \
             incidents.</p>",
            words::count(survey.calls),
            words::seconds(survey.span().as_secs_f64()),
            survey.days,
            survey.mean_rate(),
            words::percent(survey.base_rate()),
            self.now.as_it_was.incidents,
        );
        if self.lines.broken > 0 {
            let _ = write!(
                page,
                "<p class=\"warn\">{} of {} lines could not be read.</p>",
                words::count(self.lines.broken),
                words::count(self.lines.read)
            );
        }
        page.push_str("<table><tr><th>settings</th><th>upstream</th><th>outcome</th></tr>");
        for row in [Some(&self.now), self.against.as_ref()]
            .into_iter()
            .flatten()
        {
            for (upstream, replayed) in [
                ("as it was", &row.as_it_was),
                ("well once it is spared", &row.relieved),
            ] {
                let _ = write!(
                    page,
                    "<tr><td>{}</td><td>{upstream}</td><td>{}</td></tr>",
                    escaped(&row.name),
                    summary(&replayed.total())
                );
            }
        }
        page.push_str("</table>");
    }

    fn advice_part(&self, page: &mut String) {
        page.push_str("<h2>Advice</h2>");
        if self.advice.is_empty() {
            page.push_str("<p>None: what is set fits what came.</p>");
        }
        for one in &self.advice {
            let class = if one.is_certain() {
                "advice"
            } else {
                "advice unsure"
            };
            let _ = write!(
                page,
                "<p class=\"{class}\">{}</p>",
                escaped(&one.to_string())
            );
        }
        let _ = write!(
            page,
            "<details><summary>The settings, to paste</summary><pre>{}</pre></details>",
            escaped(&self.settings)
        );
    }

    /// Draws good calls that are rejected against bad ones that are spared.
    fn frontier(&self, page: &mut String) {
        if self.circuits.is_empty() {
            return;
        }
        page.push_str(
            "<h2>Circuit breaker: the frontier</h2><p>Further up is more protection, further left fewer \
             good calls rejected.</p>",
        );
        let dots = self.circuits.iter().map(|row| {
            let total = row.as_it_was.total();
            Dot {
                x: rejected(&total) * 100.0,
                y: total.bad_spared() * 100.0,
                label: row.name.clone(),
                is_here: self.is_here(row),
            }
        });
        let chart = Chart {
            title: "good calls rejected against bad calls spared",
            x: "good calls rejected, %",
            y: "bad calls spared, %",
            log_x: false,
            log_y: false,
        };
        page.push_str(&picture::dots(&chart, &dots.collect::<Vec<_>>()));
        page.push_str(
            "<table><tr><th>circuit</th><th>trips</th><th>false</th><th>false, a week, by the \
             binomial</th><th>noticed</th><th>after</th><th>open</th><th>good rejected</th><th>bad \
             spared</th></tr>",
        );
        for row in &self.circuits {
            self.circuit_row(page, row);
        }
        page.push_str("</table>");
    }

    fn circuit_row(&self, page: &mut String, row: &Row) {
        let (was, relieved) = (row.as_it_was.total(), row.relieved.total());
        let (low, high) = row.expected.unwrap_or_default();
        let class = if self.is_here(row) {
            " class=\"here\""
        } else {
            ""
        };
        let here = if self.is_here(row) {
            " (you are here)"
        } else {
            ""
        };
        let _ = write!(
            page,
            "<tr{class}><td>{}{here}</td><td>{}</td><td>{}</td><td>{} to {}</td><td>{} of {}</td><td>{}</td>\
             <td>{} to {}</td><td>{}</td><td>{}</td></tr>",
            escaped(&row.name),
            was.trips,
            was.false_trips,
            words::often(low),
            words::often(high),
            was.detected,
            row.as_it_was.incidents,
            row.as_it_was.detection().map_or("-".into(), words::seconds),
            words::time(relieved.open),
            words::time(was.open),
            words::percent(rejected(&was)),
            words::percent(was.bad_spared()),
        );
    }

    fn is_here(&self, row: &Row) -> bool {
        row.as_it_was.thresholds.circuit == self.now.as_it_was.thresholds.circuit
    }

    fn bursts(&self, page: &mut String) {
        page.push_str(
            "<h2>Rate limit: the burst that rejects nobody</h2><p>Exactly, at each rate. What is above \
             the line rejects no call of this log.</p>",
        );
        let now = self.now.as_it_was.thresholds.rate;
        let seconds = |rate: crate::algorithm::Rate| rate.count() as f64 / rate.per().as_secs_f64();
        let line: Vec<_> = self
            .bursts
            .iter()
            .filter_map(|point| Some((seconds(point.rate), f64::from(point.burst?))))
            .collect();
        let upper: Vec<_> = self
            .bursts
            .iter()
            .filter(|point| point.at_most != point.burst)
            .filter_map(|point| Some((seconds(point.rate), f64::from(point.at_most?))))
            .collect();
        let here = now.map(|limit| Dot {
            x: seconds(limit.rate),
            y: f64::from(limit.burst),
            label: "you are here".into(),
            is_here: true,
        });
        let chart = Chart {
            title: "the burst that rejects nobody, by rate",
            x: "rate, a second",
            y: "burst",
            log_x: true,
            log_y: true,
        };
        page.push_str(&picture::lines(&chart, &[&line, &upper], here.as_slice()));
        page.push_str("<table><tr><th>limit</th><th>good calls rejected</th><th>felt by</th></tr>");
        for row in &self.rates {
            let total = row.as_it_was.total();
            let keys = row.as_it_was.keys.iter().take(3);
            let keys: Vec<_> = keys
                .map(|(key, count)| format!("{} ({})", self.key_name(*key), words::count(*count)))
                .collect();
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(&row.name),
                words::percent(rejected(&total)),
                escaped(&keys.join(", "))
            );
        }
        page.push_str("</table>");
    }

    fn durations(&self, page: &mut String) {
        page.push_str(
            "<h2>Timeout: good answers that take longer</h2><p>The share of good answers that a timeout \
             loses.</p>",
        );
        let good = &self.survey.good;
        let line: Vec<_> = good
            .buckets()
            .map(|(end, _)| (end as f64 / 1e9, good.share_above(end) * 100.0))
            .filter(|(_, share)| *share > 0.0)
            .collect();
        let here = self.now.as_it_was.thresholds.timeout.map(|timeout| Dot {
            x: timeout.as_secs_f64(),
            y: good.share_above(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)) * 100.0,
            label: "you are here".into(),
            is_here: true,
        });
        let chart = Chart {
            title: "good answers that take longer, by duration",
            x: "timeout, seconds",
            y: "good answers lost, %",
            log_x: true,
            log_y: true,
        };
        page.push_str(&picture::lines(&chart, &[&line], here.as_slice()));
    }

    fn running(&self, page: &mut String) {
        let survey = &self.survey;
        let _ = write!(
            page,
            "<h2>Bulkhead: calls in flight</h2><p>By Little's law {:.1} on average, {:.1} in the busiest \
             minute, {} at most.</p>",
            survey.mean_in_flight,
            survey.peak_in_flight,
            survey.most_in_flight()
        );
        let total: u64 = survey.in_flight.iter().sum();
        let mut above = total;
        let mut line = Vec::new();
        for (places, count) in survey.in_flight.iter().enumerate() {
            above -= count;
            if places > 0 && above > 0 {
                line.push((places as f64, above as f64 / total as f64 * 100.0));
            }
        }
        // At most 400 points, because a page should not hold a million.
        let step = line.len().div_ceil(400).max(1);
        let line: Vec<_> = line.into_iter().step_by(step).collect();
        let chart = Chart {
            title: "calls that met more in flight",
            x: "calls in flight",
            y: "calls that met more, %",
            log_x: true,
            log_y: true,
        };
        page.push_str(&picture::lines(&chart, &[&line], &[]));
    }
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"Content-Security-Policy\" \
content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>What if</title><style>\
:root{color-scheme:light dark;--ink:#1f2328;--paper:#fff;--line:#d0d7de;--soft:#59636e;--one:#0969da;--two:#d1580f}\
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d;--soft:#9198a1;--one:#58a6ff;--two:#f0883e}}\
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}\
main{max-width:1000px;margin:0 auto;padding:16px}h1{font-size:26px}h2{font-size:19px;margin-top:32px}\
table{border-collapse:collapse;display:block;overflow-x:auto;font-size:13px}\
td,th{border-bottom:1px solid var(--line);padding:3px 10px 3px 0;text-align:left;white-space:nowrap}\
tr.here td{font-weight:600;color:var(--two)}pre{overflow-x:auto;font-size:12px}svg{max-width:100%;height:auto}\
.advice{border-left:4px solid var(--one);padding-left:12px}.unsure{border-left-style:dashed}.warn{color:var(--two)}\
</style></head><body><main>";
