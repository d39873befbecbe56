//! CSV with a header line that names the columns.

use std::borrow::Cow;

use crate::replay::fields::{Chosen, Field, TimeFormat, Values};

/// The columns of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// The meanings of each column, and its name.
    columns: Vec<(Vec<Field>, String)>,
    separator: u8,
}

impl Columns {
    /// Reads the header, or `None` if it has no time.
    pub(super) fn new(head: &str, chosen: Chosen<'_>) -> Option<Self> {
        let head = head.trim_start_matches('\u{feff}').trim();
        let separator = [b',', b';', b'\t']
            .into_iter()
            .max_by_key(|separator| head.bytes().filter(|byte| byte == separator).count())?;
        let names = split(head, separator);
        let columns = names.iter().map(|name| {
            let meanings = chosen.meanings(name, field(name));
            (meanings, name.trim().to_owned())
        });
        let columns = Self {
            columns: columns.collect(),
            separator,
        };
        let has_time = columns.has(|field| matches!(field, Field::Time(..)));
        has_time.then_some(columns)
    }

    pub(super) fn lacks(&self) -> Option<&'static str> {
        if !self.has(|field| matches!(field, Field::Duration(_))) {
            Some("a duration")
        } else if !self.has(|field| matches!(field, Field::Status | Field::End)) {
            Some("a status")
        } else {
            None
        }
    }

    fn has(&self, wanted: fn(&Field) -> bool) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|(meanings, _)| meanings.iter().any(wanted))
    }

    /// Returns the names of its columns.
    pub(super) fn names(&self) -> Vec<&str> {
        let names = self.columns.iter().map(|(_, name)| name.as_str());
        names.collect()
    }

    pub(super) fn split<'a>(&self, line: &'a str) -> Vec<Cow<'a, str>> {
        split(line, self.separator)
    }

    /// Reads a line. `None` if it has too few columns.
    pub(super) fn read<'a>(&self, parts: &'a [Cow<'_, str>]) -> Option<Values<'a>> {
        if parts.len() < self.columns.len() {
            return None;
        }
        let mut values = Values::default();
        for ((meanings, _), part) in self.columns.iter().zip(parts) {
            for field in meanings {
                values.set(*field, part.trim());
            }
        }
        Some(values)
    }
}

/// Returns the meaning of a column by its name, whose suffix is the unit.
fn field(name: &str) -> Field {
    let name = name.trim().to_ascii_lowercase();
    let unit = match name.rsplit_once('_') {
        Some((_, "ms")) => 1_000_000,
        Some((_, "us")) => 1000,
        Some((_, "ns")) => 1,
        Some((_, "s" | "seconds")) => 1_000_000_000,
        _ => 0,
    };
    match name.as_str() {
        "start" | "time" | "timestamp" | "ts" | "@timestamp" | "start_time" => {
            Field::Time(TimeFormat::Any, true)
        }
        "end" | "end_time" | "msec" => Field::Time(TimeFormat::Any, false),
        "status" | "code" | "response_code" => Field::Status,
        "outcome" | "result" | "success" => Field::End,
        "cost" | "units" => Field::Cost,
        "key" | "tenant" | "client" | "remote_addr" => Field::Key,
        "host" | "upstream" | "upstream_host" => Field::Host,
        other => {
            let stem = other.rsplit_once('_').map_or(other, |(stem, _)| stem);
            let is_duration = |word: &str| {
                matches!(
                    word,
                    "duration" | "latency" | "elapsed" | "took" | "request"
                )
            };
            match is_duration(other) || (unit != 0 && is_duration(stem)) {
                true => Field::Duration(unit),
                false => Field::Skip,
            }
        }
    }
}

/// Splits a line. Separators within quotes do not split, and two quotes are one.
fn split(line: &str, separator: u8) -> Vec<Cow<'_, str>> {
    let mut parts = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            match rest.find(char::from(separator)) {
                Some(at) => {
                    parts.push(Cow::Borrowed(&rest[..at]));
                    rest = &rest[at + 1..];
                    continue;
                }
                None => {
                    parts.push(Cow::Borrowed(rest));
                    return parts;
                }
            }
        };
        let (value, after) = unquoted(quoted);
        parts.push(Cow::Owned(value));
        match after.find(char::from(separator)) {
            Some(at) => rest = &after[at + 1..],
            None => return parts,
        }
    }
}

fn unquoted(mut rest: &str) -> (String, &str) {
    let mut value = String::new();
    while let Some(at) = rest.find('"') {
        value.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return (value, rest),
        }
    }
    value.push_str(rest);
    (value, "")
}
