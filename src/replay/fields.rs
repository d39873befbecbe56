//! The fields of a log's line, and the call that they make.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use crate::replay::{
    call::{Call, End, folded},
    moments::{self, Moment, SECOND},
};

/// The meaning of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// A field of no interest.
    Skip,
    /// A time, its format, and true if it is the start.
    Time(TimeFormat, bool),
    /// The duration of the whole call, in units of this many nanoseconds. With 0 the value has its
    /// own unit.
    Duration(u64),
    /// The upstream's duration.
    UpstreamDuration(u64),
    Status,
    /// The upstream's status: `-` if the call did not reach it.
    UpstreamStatus,
    /// nginx's result of its own limits.
    LimitStatus,
    /// Envoy's response flags.
    Flags,
    /// A word for the end, as in CSV.
    End,
    Cost,
    Key,
    Host,
}

/// The format of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeFormat {
    Local,
    Iso,
    Epoch,
    /// Any of the three.
    Any,
}

/// The names of the fields that the user has chosen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chosen<'a> {
    pub(super) key: Option<&'a str>,
    pub(super) host: Option<&'a str>,
}

/// The values of one line.
#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    time: Option<(&'a str, TimeFormat, bool)>,
    duration: Option<(&'a str, u64)>,
    upstream: Option<(&'a str, u64)>,
    status: Option<&'a str>,
    upstream_status: Option<&'a str>,
    limit_status: Option<&'a str>,
    flags: Option<&'a str>,
    end: Option<&'a str>,
    cost: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) host: Option<&'a str>,
}

/// Facts about a log that it does not contain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogContext {
    /// The zone of times without a zone, in seconds.
    pub(super) zone: i64,
    /// If true, upstream durations are used if there are any.
    pub(super) upstream_times: bool,
}

impl Chosen<'_> {
    /// Returns all meanings of a field: the usual one of its name, and those that were chosen.
    pub(super) fn meanings(self, name: &str, usual: Field) -> Vec<Field> {
        let is = |chosen: Option<&str>| chosen.is_some_and(|chosen| same_name(chosen, name));
        let mut meanings = Vec::new();
        if is(self.key) || (usual == Field::Key && self.key.is_none()) {
            meanings.push(Field::Key);
        }
        if is(self.host) || (usual == Field::Host && self.host.is_none()) {
            meanings.push(Field::Host);
        }
        if !matches!(usual, Field::Skip | Field::Key | Field::Host) {
            meanings.push(usual);
        }
        meanings
    }

    /// Checks that a log has the chosen fields, given the names that it has. Without this check a
    /// mistyped key would leave all calls without one.
    ///
    /// # Errors
    /// The flag, its value, and the names to choose from.
    pub(super) fn check(self, names: &[&str]) -> Result<(), String> {
        for (flag, chosen) in [("--key", self.key), ("--host", self.host)] {
            let chosen = chosen.filter(|chosen| !names.iter().any(|name| same_name(chosen, name)));
            if let Some(chosen) = chosen {
                return Err(format!(
                    "{flag} is `{chosen}`, which this log does not have: use one of {}",
                    names.join(", ")
                ));
            }
        }
        Ok(())
    }
}

impl<'a> Values<'a> {
    pub(super) fn set(&mut self, field: Field, value: &'a str) {
        match field {
            Field::Skip => {}
            // The first time counts, except that nginx's `$msec` beside `$time_local` is finer.
            Field::Time(written, is_start) => {
                let finer = written == TimeFormat::Epoch;
                if self.time.is_none() || finer {
                    self.time = Some((value, written, is_start));
                }
            }
            Field::Duration(unit) => self.duration = Some((value, unit)),
            Field::UpstreamDuration(unit) => self.upstream = Some((value, unit)),
            Field::Status => self.status = Some(value),
            Field::UpstreamStatus => self.upstream_status = Some(value),
            // nginx has a status for each kind of limit: a rejection by either of them counts.
            Field::LimitStatus => {
                let other = self.limit_status.filter(|other| *other == REJECTED);
                self.limit_status = Some(other.unwrap_or(value));
            }
            Field::Flags => self.flags = Some(value),
            Field::End => self.end = Some(value),
            Field::Cost => self.cost = Some(value),
            Field::Key => self.key = Some(value),
            Field::Host => self.host = Some(value),
        }
    }

    /// Returns the call, or why there is none. `number` is that of the line: it places a call
    /// within its second if the log has no finer time.
    pub(super) fn call(&self, reading: LogContext, number: u64) -> Result<Call, &'static str> {
        let (text, written, is_start) = self.time.ok_or("no time")?;
        let time = time_of(text, written, reading.zone).ok_or("a time that cannot be read")?;
        let duration = self.duration(reading)?;
        let end = self.end()?;
        let at = if time.is_coarse {
            time.nanos.saturating_add(scattered(number) % SECOND)
        } else {
            time.nanos
        };
        let start = if is_start {
            at
        } else {
            at.saturating_sub(duration)
        };
        let cost = match self.cost {
            None | Some("" | "-") => 1,
            Some(cost) => cost
                .trim()
                .parse()
                .map_err(|_| "a cost that is no number")?,
        };
        Ok(Call {
            end,
            cost,
            key: hash(self.key),
            host: folded(hash(self.host)),
            is_coarse: time.is_coarse,
            ..Call::new(start, duration)
        })
    }

    fn duration(&self, reading: LogContext) -> Result<u64, &'static str> {
        let upstream = self.upstream.filter(|(text, _)| *text != "-");
        let chosen = if reading.upstream_times {
            upstream.or(self.duration)
        } else {
            self.duration.or(upstream)
        };
        let Some((text, unit)) = chosen else {
            // A call that nginx itself answered has no upstream time.
            return self.upstream.map(|_| 0).ok_or("no duration");
        };
        if text == "-" {
            return Ok(0);
        }
        // nginx lists a time for each upstream that it tried.
        let mut total = 0u64;
        for part in text.split([',', ':']).map(str::trim) {
            let one = match part {
                "-" | "" => 0,
                _ if unit == 0 => human(part).ok_or("a duration that cannot be read")?,
                part => moments::decimal(part, unit).ok_or("a duration that cannot be read")?,
            };
            total = total.saturating_add(one);
        }
        Ok(total)
    }

    fn end(&self) -> Result<End, &'static str> {
        if let Some(word) = self.end.filter(|word| !word.trim().is_empty()) {
            return end_of(word.trim()).ok_or("an outcome that is none");
        }
        if self.limit_status.is_some_and(|status| status == REJECTED) {
            return Ok(End::Rejected);
        }
        if let Some(end) = self.flags.and_then(end_of_flags) {
            return Ok(end);
        }
        let Some(status) = self.status else {
            return Err("no status and no outcome");
        };
        let status: u16 = status
            .trim()
            .parse()
            .map_err(|_| "a status that is no number")?;
        let unsent = self.upstream_status == Some("-");
        Ok(match status {
            // nginx: the client has left.
            499 | 0 => End::Cancelled,
            429 | 503 if unsent => End::Rejected,
            429 | 529 => End::Overload,
            501 | 505 => End::Success,
            500..=599 => End::Failure,
            100..=499 => End::Success,
            _ => return Err("a status that is none"),
        })
    }
}

/// Returns whether two names mean the same field, with the signs of nginx or Envoy or without.
fn same_name(one: &str, other: &str) -> bool {
    let bare = |name: &str| name.trim().trim_matches(['$', '{', '}', '%']).to_owned();
    bare(one).eq_ignore_ascii_case(&bare(other))
}

fn time_of(text: &str, written: TimeFormat, zone: i64) -> Option<Moment> {
    match written {
        TimeFormat::Local => moments::local(text),
        TimeFormat::Iso => moments::iso(text, zone),
        TimeFormat::Epoch => moments::epoch(text),
        TimeFormat::Any => moments::epoch(text)
            .or_else(|| moments::iso(text, zone))
            .or_else(|| moments::local(text)),
    }
}

/// Parses `12ms`, `1.5s` or a number of seconds.
fn human(text: &str) -> Option<u64> {
    let at = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.'));
    let (number, unit) = text.split_at_checked(at.unwrap_or(text.len()))?;
    let unit = match unit.trim() {
        "" | "s" => SECOND,
        "ms" => 1_000_000,
        "us" | "µs" => 1000,
        "ns" => 1,
        "m" => 60 * SECOND,
        _ => return None,
    };
    moments::decimal(number, unit)
}

fn end_of(word: &str) -> Option<End> {
    let known = End::ALL
        .into_iter()
        .find(|end| word.eq_ignore_ascii_case(end.as_str()));
    known.or_else(|| {
        let word = word.to_ascii_lowercase();
        Some(match word.as_str() {
            "ok" | "true" => End::Success,
            "error" | "err" | "false" | "timeout" => End::Failure,
            "ignored" | "ignore" => End::Rejected,
            status => Values {
                status: Some(status.parse::<u16>().ok().map(|_| status)?),
                ..Values::default()
            }
            .end()
            .ok()?,
        })
    })
}

/// Returns the end by Envoy's flags: its own limits, a full pool, no available upstream, or a
/// client that has left.
fn end_of_flags(flags: &str) -> Option<End> {
    flags.split(',').find_map(|flag| match flag.trim() {
        "RL" | "UO" | "NR" | "UH" | "RLSE" | "OM" => Some(End::Rejected),
        "DC" => Some(End::Cancelled),
        "UT" | "UF" | "UC" | "UR" | "LR" | "UMSDR" | "UPE" => Some(End::Failure),
        _ => None,
    })
}

/// Returns a hash that is the same for equal texts, in any program: 0 without a text.
pub(super) fn hash(text: Option<&str>) -> u64 {
    match text {
        None | Some("" | "-") => 0,
        Some(text) => {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish().max(1)
        }
    }
}

/// Returns a number that is the same for a line in every run, and uniform over a second.
fn scattered(number: u64) -> u64 {
    let word = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word ^ word >> 27
}

/// nginx's status of a limit that rejected the call. In a dry run it is `REJECTED_DRY_RUN`.
const REJECTED: &str = "REJECTED";
