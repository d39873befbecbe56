//! The `Retry-After` field (RFC 9110, section 10.2.3), read and written.

use std::time::Duration;

use http::{HeaderMap, header::RETRY_AFTER};

use crate::time;

/// What the peer asks for, as seconds or as a date; a date that has passed is no wait at all.
/// Garbage is ignored.
pub(super) fn parse(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 has is a wait longer than any.
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    httpdate::parse_http_date(value).ok().map(time::until)
}

/// Whole seconds, rounded up, and at least 1: a client that waits less is only turned away again.
pub(super) fn seconds(wait: Duration) -> u64 {
    rounded_up(wait).max(1)
}

pub(super) fn rounded_up(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parsed(value: &'static str) -> Option<Duration> {
        parse(&HeaderMap::from_iter([(
            RETRY_AFTER,
            HeaderValue::from_static(value),
        )]))
    }

    #[test]
    fn reads_seconds_and_dates_and_ignores_garbage() {
        assert_eq!(parsed("120"), Some(Duration::from_secs(120)));
        assert_eq!(parsed(" 0 "), Some(Duration::ZERO));
        assert_eq!(parsed("99999999999999999999999"), Some(Duration::MAX));
        assert_eq!(
            parsed("Fri, 31 Dec 1999 23:59:59 GMT"),
            Some(Duration::ZERO)
        );
        assert!(parsed("Fri, 31 Dec 9999 23:59:59 GMT").unwrap() > Duration::from_secs(1 << 30));
        for garbage in ["", "soon", "-1", "+5", "1.5", "1e3"] {
            assert_eq!(parsed(garbage), None, "{garbage:?}");
        }
        assert_eq!(parse(&HeaderMap::new()), None);
    }

    #[test]
    fn writes_whole_seconds_rounded_up_and_at_least_one() {
        for (wait, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (30_000, 30)] {
            assert_eq!(super::seconds(Duration::from_millis(wait)), seconds);
        }
        assert_eq!(super::seconds(Duration::MAX), u64::MAX);
    }
}
