//! The `RateLimit-Policy` and `RateLimit` fields, written and read as in
//! draft-ietf-httpapi-ratelimit-headers-11.
//!
//! Both are Lists of Items (RFC 9651): a policy's name, then parameters. `"default";q=100;w=60` is
//! 100 units in 60 seconds. `"default";r=50;t=30` means that 50 of them are left, and that all are
//! back in 30 seconds. `qu` is the unit if it is not requests, and `pk` identifies a partition. The
//! draft has no parameter for a burst that differs from the units of the window, and leaves others
//! to vendors: ours is `tower-keep-burst`.
//!
//! Two older forms are read too, since many servers still send them: `RateLimit: limit=100,
//! remaining=0, reset=30`, a Dictionary, and before that `RateLimit-Remaining: 0` with
//! `RateLimit-Reset: 30`. Fields with an `X-` are not read: the meaning of their numbers differs
//! between servers.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::{
    retry_after::{self, rounded_up},
    structured::{self, dictionary, limits},
};
use crate::{algorithm::Rate, protocol::Quota};

#[cfg(test)]
mod tests;

/// A mark on a response: the last line of each of its `RateLimit` fields is from layers of this
/// crate, after the lines of the service.
#[derive(Debug, Clone, Copy)]
struct Advertised;

/// Adds both fields, in one List with those of other limits of this crate, because many clients
/// read one line.
pub(super) fn write<B>(response: &mut Response<B>, quota: &Quota) {
    let goes_on = response.extensions_mut().insert(Advertised).is_some();
    write_fields(response.headers_mut(), quota, goes_on);
}

fn write_fields(headers: &mut HeaderMap, quota: &Quota, goes_on: bool) {
    add(headers, RATE_LIMIT_POLICY, &policy_item(quota), goes_on);
    add(headers, RATE_LIMIT, &limit_item(quota), goes_on);
}

fn policy_item(quota: &Quota) -> String {
    let name = name_of(quota);
    let allotted = allotted(quota);
    let mut item = format!("{};q={}", Quoted(&name), allotted.units);
    if let Some(unit) = quota.unit {
        item += &format!(";qu={}", Quoted(unit));
    }
    if let Some(window) = allotted.window {
        item += &format!(";w={window}");
    }
    push_partition(&mut item, quota);
    if allotted.units != quota.burst {
        item += &format!(";tower-keep-burst={}", quota.burst.min(LARGEST));
    }
    item
}

fn limit_item(quota: &Quota) -> String {
    let name = name_of(quota);
    let mut item = format!("{};r={}", Quoted(&name), quota.available.min(LARGEST));
    if let Some(reset) = seconds_to_reset(quota) {
        item += &format!(";t={reset}");
    }
    push_partition(&mut item, quota);
    item
}

fn push_partition(item: &mut String, quota: &Quota) {
    if let Some(partition) = quota.partition {
        item.push_str(";pk=");
        byte_sequence(&partition.to_be_bytes(), item);
    }
}

/// Returns the whole seconds until a quota is full, or until it has a unit if it has none now.
pub(super) fn seconds_to_reset(quota: &Quota) -> Option<u64> {
    // A client that reads "nothing left, for 0 seconds" returns at once, and is rejected again.
    let least = u64::from(quota.available == 0);
    let reset = rounded_up(quota.reset?).max(least);
    Some(reset.min(LARGEST))
}

/// Returns the time until an upstream whose quota is used up has units again: the longest wait of
/// all quotas with nothing left. Fields that cannot be parsed are ignored, as the draft demands. So
/// are quotas without a time.
///
/// Quotas that an inner layer of this crate has advertised are left out. They apply to one caller,
/// which reads them itself, and not to all calls through this layer.
pub(super) fn used_up<B>(response: &Response<B>) -> Option<Duration> {
    let own = response.extensions().get::<Advertised>().is_some();
    used_up_in_fields(response.headers(), usize::from(own))
}

/// Reads the newest form that has a meaning.
fn used_up_in_fields(headers: &HeaderMap, own: usize) -> Option<Duration> {
    let lines = headers.get_all(RATE_LIMIT);
    let upstream = lines.iter().count().saturating_sub(own);
    let lines = || lines.iter().take(upstream).map(HeaderValue::as_bytes);
    used_up_in_list(lines())
        .or_else(|| used_up_in_dictionary(lines()))
        .or_else(|| used_up_in_three(headers))
}

fn used_up_in_list<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Duration> {
    let waits = lines.filter_map(|line| {
        limits(line)?
            .into_iter()
            .filter(|limit| limit.remaining == Some(0))
            .filter_map(|limit| limit.reset)
            .max()
    });
    waits.max().map(Duration::from_secs)
}

/// Reads the lines as one Dictionary, in which a later key replaces an earlier one.
fn used_up_in_dictionary<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Duration> {
    let limit =
        lines
            .filter_map(dictionary)
            .fold(structured::RemainingQuota::default(), |all, line| {
                structured::RemainingQuota {
                    remaining: line.remaining.or(all.remaining),
                    reset: line.reset.or(all.reset),
                }
            });
    limit
        .reset
        .filter(|_| limit.remaining == Some(0))
        .map(Duration::from_secs)
}

/// Reads the oldest fields, with one number each. A reset may have decimals. Several servers on the
/// path may have added theirs, so the fields are read in pairs.
///
/// Some servers send the time of day as the reset, in seconds since 1970. A value longer than a
/// year is therefore ignored.
fn used_up_in_three(headers: &HeaderMap) -> Option<Duration> {
    let numbers = |field| {
        let lines = headers.get_all(field).iter();
        lines.map(|value| retry_after::decimal_seconds(value.as_bytes()))
    };
    numbers(RATE_LIMIT_REMAINING)
        .zip(numbers(RATE_LIMIT_RESET))
        .filter_map(|(remaining, reset)| reset.filter(|_| remaining == Some(Duration::ZERO)))
        .filter(|reset| *reset <= YEAR)
        .max()
}

/// A quota in the form of the fields.
pub(super) struct Allotted {
    pub(super) units: u64,
    /// In seconds.
    window: Option<u64>,
}

pub(super) fn allotted(quota: &Quota) -> Allotted {
    let of_rate = quota.rate.map(|rate| policy(rate, quota.burst));
    let (units, window) = of_rate.map_or((quota.burst.min(LARGEST), None), |(units, window)| {
        (units, Some(window))
    });
    Allotted { units, window }
}

/// Returns the units `q` of a window of `w` seconds: the shortest window, in whole seconds, in
/// which a burst refills.
///
/// A sliding window of 100 in 60 s is `q=100;w=60`, and a token bucket of 100/s with a burst of 2
/// is `q=100;w=1`. The burst as `q` would be wrong there: a client that believes in 2 a second
/// would use a fiftieth of its limit.
fn policy(rate: Rate, burst: u64) -> (u64, u64) {
    // 64 bits by 94 bits saturate. A saturated value is above the largest number that the field can
    // hold.
    let (count, per) = (u128::from(rate.count()), rate.per().as_nanos());
    let refill = u128::from(burst)
        .saturating_mul(per)
        .div_ceil((count * SECOND).max(1));
    let window = u64::try_from(refill).unwrap_or(LARGEST).clamp(1, LARGEST);
    let units = (u128::from(window) * SECOND).saturating_mul(count) / per.max(1);
    (u64::try_from(units).unwrap_or(LARGEST).min(LARGEST), window)
}

/// Adds an item to a field: to its last line if `goes_on`, else as a new line.
fn add(headers: &mut HeaderMap, field: HeaderName, item: &str, goes_on: bool) {
    let mut lines: Vec<HeaderValue> = headers.get_all(&field).iter().cloned().collect();
    let last = if goes_on { lines.pop() } else { None };
    let list = last.as_ref().and_then(|list| list.to_str().ok());
    let list = list.map_or_else(|| item.into(), |list| format!("{list}, {item}"));
    // Reading printable ASCII cannot fail.
    lines.extend(HeaderValue::try_from(list));
    headers.remove(&field);
    for line in lines {
        headers.append(&field, line);
    }
}

/// Returns the policy's name. The name of a dimension follows that of the instance.
fn name_of(quota: &Quota) -> Cow<'static, str> {
    match (quota.name, quota.dimension) {
        (_, None) => policy_name(quota.name, quota.part, quota.rate.is_none()),
        (name, Some(dimension)) => {
            let name = name.map_or_else(|| dimension.into(), |name| format!("{name}-{dimension}"));
            match quota.part {
                0 => name.into(),
                part => format!("{name}-{}", part + 1).into(),
            }
        }
    }
}

/// Returns the name of one of an instance's limits. Each policy has its own name. With `in_flight`,
/// it is the name of a bound on calls in flight, which differs from that of a rate of the same
/// instance.
pub(super) fn policy_name(
    name: Option<&'static str>,
    part: usize,
    in_flight: bool,
) -> Cow<'static, str> {
    match (name, part) {
        (None, _) if in_flight => "concurrency".into(),
        (Some(name), _) if in_flight => format!("{name}-concurrency").into(),
        (name, 0) => name.unwrap_or("default").into(),
        (name, part) => format!("{}-{}", name.unwrap_or("default"), part + 1).into(),
    }
}

/// Writes a Byte Sequence of RFC 9651: base64, with padding, between colons.
fn byte_sequence(bytes: &[u8], text: &mut String) {
    text.push(':');
    for three in bytes.chunks(3) {
        let word = three
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for place in 0..4 {
            let six = word >> (18 - 6 * place) & 0x3f;
            let padded = place > three.len();
            text.push(if padded {
                '='
            } else {
                BASE64[six as usize].into()
            });
        }
    }
    text.push(':');
}

/// A String of RFC 9651, which has printable ASCII only. `?` replaces anything else. The result is
/// also a JSON string.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                ' '..='~' => f.write_char(character)?,
                _ => f.write_char('?')?,
            }
        }
        f.write_char('"')
    }
}

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const YEAR: Duration = Duration::from_secs(366 * 86_400);
/// The largest Integer of RFC 9651.
const LARGEST: u64 = 999_999_999_999_999;
const SECOND: u128 = 1_000_000_000;
