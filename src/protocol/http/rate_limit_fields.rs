//! The `RateLimit-Policy` and `RateLimit` fields, written and read as in
//! draft-ietf-httpapi-ratelimit-headers-10.
//!
//! Both are Lists of Items (RFC 9651): a policy's name, then parameters. `"default";q=100;w=60` is
//! 100 units in 60 seconds; `"default";r=50;t=30` is 50 of them left, and all of them back in 30
//! seconds.
//!
//! Two older forms are read too, since many servers still send them: `RateLimit: limit=100,
//! remaining=0, reset=30`, a Dictionary, and before that `RateLimit-Remaining: 0` with
//! `RateLimit-Reset: 30`. Fields with an `X-` are not read: what their numbers mean differs from
//! server to server.

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

/// How many lines of a response's `RateLimit` fields layers of this crate have added to it, which
/// they did behind what the service had sent.
#[derive(Debug, Clone, Copy, Default)]
struct Advertised(usize);

/// Adds both, beside those of other limits: that is what the Lists are for.
pub(super) fn write<B>(response: &mut Response<B>, quota: &Quota) {
    write_fields(response.headers_mut(), quota);
    let extensions = response.extensions_mut();
    extensions.get_or_insert_default::<Advertised>().0 += 1;
}

fn write_fields(headers: &mut HeaderMap, quota: &Quota) {
    let (units, window) = policy(quota.rate, quota.burst);
    // A client that reads "nothing left, for 0 seconds" is back at once, and rejected again.
    let reset = rounded_up(quota.reset).max(u64::from(quota.available == 0));
    let name = policy_name(quota.name, quota.part);
    let name = Quoted(&name);
    append(
        headers,
        RATE_LIMIT_POLICY,
        format_args!("{name};q={units};w={window}"),
    );
    append(
        headers,
        RATE_LIMIT,
        format_args!("{name};r={};t={}", quota.available, reset.min(LARGEST)),
    );
}

/// How long until an upstream whose quota is used up has some again: the longest wait of all quotas
/// that have nothing left. What cannot be parsed is ignored, as the draft demands, and so is a
/// quota that does not tell when.
///
/// What a layer of this crate further in has advertised is left out: its quota is that of one
/// caller, who reads it, and not of all that pass here.
pub(super) fn used_up<B>(response: &Response<B>) -> Option<Duration> {
    let own = response.extensions().get::<Advertised>();
    used_up_in_fields(response.headers(), own.copied().unwrap_or_default().0)
}

/// The newest form that says anything counts.
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

/// The lines make up one Dictionary, of which a later key replaces an earlier one.
fn used_up_in_dictionary<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Duration> {
    let limit = lines
        .filter_map(dictionary)
        .fold(structured::Limit::default(), |all, line| {
            structured::Limit {
                remaining: line.remaining.or(all.remaining),
                reset: line.reset.or(all.reset),
            }
        });
    limit
        .reset
        .filter(|_| limit.remaining == Some(0))
        .map(Duration::from_secs)
}

/// By the fields of old, each of which has one number; a reset may have decimals. Several servers
/// on the way may each have added theirs, so they are read in pairs.
///
/// Some servers send the time of day as the reset, in seconds since 1970: what is longer than a
/// year is no wait.
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

/// The units `q` that come in a window of `w` seconds: the shortest, in whole seconds, in which a
/// burst refills.
///
/// So a sliding window of 100 in 60 s is `q=100;w=60`, and a token bucket of 100/s with a burst of
/// 2 is `q=100;w=1`. Why not the burst as `q` there? A client that believes 2 in a second to be all
/// would use a fiftieth of its limit.
fn policy(rate: Rate, burst: u32) -> (u64, u64) {
    // 64 bits by 94, and 32 by 94, fit; what saturates is above the largest number that the field
    // can hold.
    let (count, per) = (u128::from(rate.count()), rate.per().as_nanos());
    let refill = (u128::from(burst) * per).div_ceil((count * SECOND).max(1));
    let window = u64::try_from(refill).unwrap_or(LARGEST).clamp(1, LARGEST);
    let units = (u128::from(window) * SECOND).saturating_mul(count) / per.max(1);
    (u64::try_from(units).unwrap_or(LARGEST).min(LARGEST), window)
}

fn append(headers: &mut HeaderMap, field: HeaderName, value: fmt::Arguments<'_>) {
    // Reading printable ASCII cannot fail.
    if let Ok(value) = HeaderValue::try_from(value.to_string()) {
        headers.append(field, value);
    }
}

/// What callers know an instance by, and which of its limits: each policy's name is its own.
pub(super) fn policy_name(name: Option<&'static str>, part: usize) -> Cow<'static, str> {
    let name = name.unwrap_or("default");
    if part == 0 {
        name.into()
    } else {
        format!("{name}-{}", part + 1).into()
    }
}

/// A String of RFC 9651, which holds printable ASCII; `?` stands for anything else. As it is
/// written, it is a string of JSON too.
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
const YEAR: Duration = Duration::from_secs(366 * 86_400);
/// The largest Integer of RFC 9651.
const LARGEST: u64 = 999_999_999_999_999;
const SECOND: u128 = 1_000_000_000;
