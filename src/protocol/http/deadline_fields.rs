//! `grpc-timeout` and `x-envoy-expected-rq-timeout-ms`, read and written.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Reads the caller's timeout: the shortest of all values of `grpc-timeout` and
/// `x-envoy-expected-rq-timeout-ms`. Malformed, negative or empty values are ignored.
pub(in crate::protocol) fn read(headers: &HeaderMap) -> Option<Duration> {
    let values = |name, parse: fn(&str) -> Option<Duration>| {
        let values = headers.get_all(name).into_iter();
        values.filter_map(move |value: &HeaderValue| parse(value.to_str().ok()?.trim()))
    };
    values(GRPC_TIMEOUT, grpc_timeout)
        .chain(values(ENVOY_TIMEOUT, envoy_timeout))
        .min()
}

/// Writes the remaining time for the upstream, in place of the caller's fields: in milliseconds,
/// rounded down, but at least one. Some upstreams read a zero as no limit.
pub(super) fn write(headers: &mut HeaderMap, remaining: Duration) {
    headers.insert(ENVOY_TIMEOUT, whole_millis(remaining).into());
    write_grpc(headers, remaining);
}

/// Shortens an existing `grpc-timeout` to the remaining time.
#[cfg(feature = "tonic-014")]
pub(in crate::protocol) fn shorten_grpc(headers: &mut HeaderMap, remaining: Duration) {
    if headers.contains_key(GRPC_TIMEOUT) {
        write_grpc(headers, remaining);
    }
}

fn write_grpc(headers: &mut HeaderMap, remaining: Duration) {
    // At most eight digits: 27 hours in milliseconds, three years in seconds.
    let millis = whole_millis(remaining);
    let grpc = if millis <= MAX_GRPC_VALUE {
        format!("{millis}m")
    } else {
        format!("{}S", remaining.as_secs().min(MAX_GRPC_VALUE))
    };
    headers.insert(
        GRPC_TIMEOUT,
        grpc.try_into()
            .expect("digits and a letter are a field value"),
    );
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// One to eight digits and a unit.
fn grpc_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().next_back()?;
    let value = digits(&value[..value.len() - unit.len_utf8()], 8)?;
    Some(match unit {
        'H' => Duration::from_secs(value * 3600),
        'M' => Duration::from_secs(value * 60),
        'S' => Duration::from_secs(value),
        'm' => Duration::from_millis(value),
        'u' => Duration::from_micros(value),
        'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

fn envoy_timeout(value: &str) -> Option<Duration> {
    // Envoy writes 0 where there is no timeout.
    let millis = digits(value, 18).filter(|millis| *millis > 0)?;
    Some(Duration::from_millis(millis))
}

fn digits(value: &str, max: usize) -> Option<u64> {
    let well_formed =
        (1..=max).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| value.parse().ok())?
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ENVOY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const MAX_GRPC_VALUE: u64 = 99_999_999;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Deadline;

    fn read_from(fields: &[(&HeaderName, &str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        read(&headers)
    }

    #[test]
    fn reads_every_unit_of_grpc() {
        for (value, nanos) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("00000004m", 4_000_000),
            ("5u", 5_000),
            ("6n", 6),
            ("0S", 0),
        ] {
            let expected = Some(Duration::from_nanos(nanos));
            assert_eq!(read_from(&[(&GRPC_TIMEOUT, value)]), expected, "{value}");
        }
    }

    #[test]
    fn ignores_what_strangers_make_up() {
        for value in [
            "",
            "H",
            "1",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            "1s",
            "1 S",
            "S1",
            "1\u{e9}",
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, value)]);
            assert_eq!(read(&headers), None);
        }
        for value in ["", "0", "-1", "1.5", "1e3", "9999999999999999999999"] {
            assert_eq!(read_from(&[(&ENVOY_TIMEOUT, value)]), None, "{value}");
        }
    }

    #[test]
    fn the_longest_timeout_is_a_deadline() {
        let longest = read_from(&[(&GRPC_TIMEOUT, "99999999H")]).unwrap();
        assert!(Deadline::after(longest).remaining() > Duration::from_secs(1 << 29));
    }

    #[test]
    fn of_several_the_shortest_holds() {
        let several = [
            (&GRPC_TIMEOUT, "2S"),
            (&GRPC_TIMEOUT, "junk"),
            (&ENVOY_TIMEOUT, "1500"),
        ];
        assert_eq!(read_from(&several), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn writes_over_what_was_there() {
        let mut headers = HeaderMap::new();
        headers.append(GRPC_TIMEOUT, HeaderValue::from_static("1H"));
        headers.append(GRPC_TIMEOUT, HeaderValue::from_static("2H"));
        write(&mut headers, Duration::from_micros(1_999));
        assert_eq!(
            (&headers[GRPC_TIMEOUT], &headers[ENVOY_TIMEOUT]),
            (&"1m".parse().unwrap(), &"1".parse().unwrap())
        );
        assert_eq!(headers.get_all(GRPC_TIMEOUT).iter().count(), 1);
        write(&mut headers, Duration::MAX);
        assert_eq!(headers[GRPC_TIMEOUT], "99999999S");
    }

    #[test]
    fn less_than_a_millisecond_is_told_as_one() {
        for micros in [0, 1, 900, 999, 1_000, 1_999] {
            let mut headers = HeaderMap::new();
            write(&mut headers, Duration::from_micros(micros));
            assert_eq!(headers[GRPC_TIMEOUT], "1m", "{micros}");
            assert_eq!(headers[ENVOY_TIMEOUT], "1", "{micros}");
            #[cfg(feature = "tonic-014")]
            {
                headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static("1S"))]);
                shorten_grpc(&mut headers, Duration::from_micros(micros));
                assert_eq!(headers[GRPC_TIMEOUT], "1m", "{micros}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_value_of_a_stranger_panics(value in proptest::collection::vec(32u8..=255, 0..12)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let fields = [(GRPC_TIMEOUT, value.clone()), (ENVOY_TIMEOUT, value)];
                let _ = read(&HeaderMap::from_iter(fields)).map(Deadline::after);
            }
        }

        #[test]
        fn what_is_written_is_read_back(millis in 1u64..100_000_000) {
            let mut headers = HeaderMap::new();
            write(&mut headers, Duration::from_millis(millis));
            prop_assert_eq!(read(&headers), Some(Duration::from_millis(millis)));
        }
    }
}
