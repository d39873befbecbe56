//! Points in time as RFC 3339 writes them: `2026-03-01T12:00:00Z`.
//!
//! Why no crate? Maintained crates parse into their own types, and only a duration is needed here.
//! Such a crate would be a dependency of every user of `http`.

use std::time::{Duration, SystemTime};

use super::number::digits;

/// Parses a date and a time with its offset. A leap second counts as the second after it.
pub(super) fn parse(text: &[u8]) -> Option<SystemTime> {
    let text = text.trim_ascii();
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = [&date[..4], &date[5..7], &date[8..]].map(number);
    let (separator, rest) = rest.split_first()?;
    let dashes = date[4] == b'-' && date[7] == b'-';
    if !dashes || !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let (time, rest) = rest.split_at_checked(8)?;
    let [hour, minute, second] = [&time[..2], &time[3..5], &time[6..]].map(number);
    if time[2] != b':' || time[5] != b':' {
        return None;
    }
    let (nanos, rest) = fraction(rest)?;
    let offset = offset(rest)?;
    let days = days(year?, month?, day?)?;
    let (hour, minute, second) = (hour?, minute?, second?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    // A time before 1970 is before any response.
    let since = Duration::new(u64::try_from(seconds).unwrap_or(0), nanos);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// Parses a number of a few digits.
fn number(text: &[u8]) -> Option<i64> {
    let all = text.iter().all(u8::is_ascii_digit);
    all.then(|| {
        let digit = |byte: &u8| i64::from(byte - b'0');
        text.iter()
            .fold(0, |number, byte| number * 10 + digit(byte))
    })
}

/// Parses decimals of a second, in nanoseconds. Further digits are dropped.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some((b'.' | b',', rest)) = text.split_first() else {
        return Some((0, text));
    };
    let (decimals, rest) = digits(rest);
    let nine = decimals.iter().chain(&[b'0'; 9]).take(9);
    let nanos = nine.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    (!decimals.is_empty()).then_some((nanos, rest))
}

/// Parses seconds east of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, rest) = text.split_first()?;
    let sign = match sign {
        b'Z' | b'z' => return rest.is_empty().then_some(0),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let [_, _, b':', _, _] = rest else {
        return None;
    };
    let (hours, minutes) = (number(&rest[..2])?, number(&rest[3..])?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Returns the days since 1970, in the Gregorian calendar.
///
/// The year is counted from the first of March. The leap day is then its last day, and the months
/// before it have a regular pattern: 153 days in each five.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let in_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + leaps + in_year - MARCH_0_TO_1970)
}

/// Days from the first of March of the year 0 to the first of January 1970.
const MARCH_0_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        let at = parse(text.as_bytes())?;
        Some(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn reads_what_the_rfc_allows() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-03-01T12:00:00Z", 1_772_366_400),
            ("2026-03-01T12:00:00.123456789012Z", 1_772_366_400),
            ("2026-03-01t14:30:00+02:30", 1_772_366_400),
            ("2026-03-01 07:00:00-05:00", 1_772_366_400),
            ("1969-12-31T23:59:59Z", 0),
            ("9999-12-31T23:59:60Z", 253_402_300_800),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        let nanos = parse(b"1970-01-01T00:00:01.5Z").unwrap();
        let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(nanos, expected);
    }

    #[test]
    fn ignores_what_is_no_date() {
        for text in [
            "",
            "2026-03-01",
            "2026-03-01T12:00:00",
            "2026-02-29T12:00:00Z",
            "1900-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-03-00T12:00:00Z",
            "2026-03-01T24:00:00Z",
            "2026-03-01T12:60:00Z",
            "2026-03-01T12:00:00.Z",
            "2026-03-01T12:00:00+2:00",
            "2026-03-01T12:00:00Zz",
            "2026/03/01T12:00:00Z",
            "+026-03-01T12:00:00Z",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&text);
        }

        #[test]
        fn nothing_of_the_right_letters_panics(
            text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}[.]?[0-9]{0,30}[Z+-]?.{0,6}",
        ) {
            let _ = parse(text.as_bytes());
        }

        /// Against the calendar of the `httpdate` crate.
        #[test]
        fn agrees_with_http_dates(seconds in 0u64..253_402_300_800) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let date = httpdate::HttpDate::from(at).to_string();
            // Sun, 06 Nov 1994 08:49:37 GMT
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = months.find(&date[8..11]).unwrap() / 3 + 1;
            let day = &date[5..7];
            let text = format!("{}-{month:02}-{day}T{}Z", &date[12..16], &date[17..25]);
            prop_assert_eq!(parse(text.as_bytes()), Some(at));
        }
    }
}
