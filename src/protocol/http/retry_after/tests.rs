use proptest::prelude::*;

use super::*;

fn headers(fields: &[(http::HeaderName, &str)]) -> HeaderMap {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
    fields.collect()
}

fn parsed(value: &str) -> Option<Duration> {
    parse(&headers(&[(RETRY_AFTER, value)]))
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
    for garbage in [
        "", "soon", "-1", "+5", "1e3", ".", "1.", ".5", "1.2.3", "1,5", "1.-2",
    ] {
        assert_eq!(parsed(garbage), None, "{garbage:?}");
    }
    assert_eq!(parse(&HeaderMap::new()), None);
}

#[test]
fn decimals_are_rounded_up_to_a_second() {
    for (value, seconds) in [
        ("299.997", 300),
        ("0.503", 1),
        ("1.5", 2),
        ("7.000", 7),
        ("0.0", 0),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(parsed(value), Some(Duration::from_secs(seconds)), "{value}");
    }
    assert_eq!(parsed("18446744073709551615.1"), Some(Duration::MAX));
}

#[test]
fn a_date_is_measured_against_the_responses_own() {
    let wait = |date: &str| {
        parse(&headers(&[
            (RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (DATE, date),
        ]))
    };
    assert_eq!(
        wait("Sun, 06 Nov 1994 08:49:07 GMT"),
        Some(Duration::from_secs(30))
    );
    assert_eq!(wait("Sun, 06 Nov 1994 08:50:00 GMT"), Some(Duration::ZERO));
    // Without a readable `Date`, the date is long past: it is of 1994.
    assert_eq!(wait("yesterday"), Some(Duration::ZERO));
}

#[test]
fn seconds_are_not_measured_against_a_date() {
    let fields = headers(&[(RETRY_AFTER, "5"), (DATE, "Sun, 06 Nov 1994 08:49:07 GMT")]);
    assert_eq!(parse(&fields), Some(Duration::from_secs(5)));
}

#[test]
fn the_larger_of_two_fields_counts() {
    for values in [["5", "30"], ["30", "5"], ["soon", "30"], ["30", "soon"]] {
        let fields = headers(&values.map(|value| (RETRY_AFTER, value)));
        assert_eq!(parse(&fields), Some(Duration::from_secs(30)), "{values:?}");
    }
}

#[test]
fn writes_whole_seconds_rounded_up_and_at_least_one() {
    for (wait, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (30_000, 30)] {
        assert_eq!(super::seconds(Duration::from_millis(wait)), seconds);
    }
    assert_eq!(super::seconds(Duration::MAX), u64::MAX);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        value in prop::collection::vec(any::<u8>(), 0..60),
        date in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut fields = HeaderMap::new();
        for (name, bytes) in [(RETRY_AFTER, &value), (DATE, &date)] {
            if let Ok(value) = HeaderValue::from_bytes(bytes) {
                fields.append(name, value);
            }
        }
        parse(&fields);
    }

    #[test]
    fn no_text_of_digits_and_points_makes_it_panic(value in "[0-9. ]{0,40}") {
        parsed(&value);
    }

    #[test]
    fn what_is_written_is_read(nanos in 0..u64::MAX) {
        let written = super::seconds(Duration::from_nanos(nanos));
        prop_assert_eq!(parsed(&written.to_string()), Some(Duration::from_secs(written)));
    }

    #[test]
    fn any_decimal_is_its_ceiling(whole in 0..1_000_000_u64, decimals in "[0-9]{1,30}") {
        let more = u64::from(decimals.bytes().any(|digit| digit != b'0'));
        let wait = Duration::from_secs(whole + more);
        prop_assert_eq!(parsed(&format!("{whole}.{decimals}")), Some(wait));
    }
}
