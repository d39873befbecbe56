//! The `Retry-After` field (RFC 9110, section 10.2.3), read and written.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, HeaderValue,
    header::{DATE, RETRY_AFTER},
};

use crate::ambient::clock;

#[cfg(test)]
mod tests;

/// Returns the wait that the upstream asks for, in seconds or as a date, and the longest of several
/// fields. A past date is a wait of zero. Garbage is ignored.
///
/// A date is measured against the response's own `Date` if it has one, so that a wrong clock, here
/// or there, does not change the wait.
pub(super) fn parse(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(RETRY_AFTER).iter();
    values.filter_map(|value| wait(value, headers)).max()
}

fn wait(value: &HeaderValue, headers: &HeaderMap) -> Option<Duration> {
    decimal_seconds(value.as_bytes()).or_else(|| {
        let then = date(value)?;
        Some(match sent_at(headers) {
            Some(sent) => then.duration_since(sent).unwrap_or_default(),
            None => clock::until(then),
        })
    })
}

pub(super) fn sent_at(headers: &HeaderMap) -> Option<SystemTime> {
    headers.get(DATE).and_then(date)
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

/// Parses a number of seconds, with or without decimals, rounded up to whole ones. A number above
/// `u64::MAX` is the longest wait.
pub(super) fn decimal_seconds(value: &[u8]) -> Option<Duration> {
    let value = value.trim_ascii();
    let (whole, decimals) = match value.iter().position(|&byte| byte == b'.') {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &b"0"[..]),
    };
    if ![whole, decimals].iter().all(|digits| is_digits(digits)) {
        return None;
    }
    let more = u64::from(decimals.iter().any(|&digit| digit != b'0'));
    let seconds = whole.iter().try_fold(0_u64, |seconds, digit| {
        let shifted = seconds.checked_mul(10)?;
        shifted.checked_add(u64::from(digit - b'0'))
    });
    let seconds = seconds.and_then(|seconds| seconds.checked_add(more));
    Some(seconds.map_or(Duration::MAX, Duration::from_secs))
}

fn is_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Returns whole seconds, rounded up, and at least 1: a client that waits less is only rejected
/// again.
pub(crate) fn seconds(wait: Duration) -> u64 {
    rounded_up(wait).max(1)
}

pub(super) fn rounded_up(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
}
