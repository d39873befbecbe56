//! Lengths of time as Go writes them: `6m0s`, `8.64s`, `20ms`.

use std::time::Duration;

use super::number::decimal;

/// Parses one or more numbers, each with its unit. A number without a unit is in seconds, as some
/// servers of the same dialect send it. A negative length is rejected.
pub(super) fn parse(text: &[u8]) -> Option<Duration> {
    let mut rest = text.trim_ascii();
    if let Some(seconds) = bare(rest) {
        return Some(seconds);
    }
    let mut total = Duration::ZERO;
    loop {
        let (name, unit) = unit_of(rest)?;
        let (part, after) = decimal(rest, unit)?;
        total = total.saturating_add(part);
        rest = after.strip_prefix(name)?;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

fn bare(text: &[u8]) -> Option<Duration> {
    let (seconds, rest) = decimal(text, SECOND)?;
    rest.is_empty().then_some(seconds)
}

/// Returns the unit after the first number: its name, and its length in nanoseconds.
fn unit_of(text: &[u8]) -> Option<(&'static [u8], u64)> {
    let number = text
        .iter()
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
        .count();
    let name = text.get(number..)?;
    let unit = UNITS.iter().find(|(unit, _)| name.starts_with(unit));
    unit.copied()
}

const SECOND: u64 = 1_000_000_000;

/// `ms` before `m`. Unicode has the micro sign twice.
const UNITS: [(&[u8], u64); 9] = [
    (b"ns", 1),
    (b"us", 1000),
    ("\u{b5}s".as_bytes(), 1000),
    ("\u{3bc}s".as_bytes(), 1000),
    (b"ms", 1_000_000),
    (b"s", SECOND),
    (b"m", 60 * SECOND),
    (b"h", 3600 * SECOND),
    (b"d", 86_400 * SECOND),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_providers_send() {
        let millis = |text: &str| parse(text.as_bytes()).map(|span| span.as_millis());
        for (text, expected) in [
            ("6m0s", 360_000),
            ("8.64s", 8640),
            ("20ms", 20),
            ("1s", 1000),
            ("1h2m3.5s", 3_723_500),
            ("2h45m", 9_900_000),
            ("1d", 86_400_000),
            ("0s", 0),
            ("0", 0),
            (" 12 ", 12_000),
            (".5s", 500),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        assert_eq!(parse(b"1.5us"), Some(Duration::from_nanos(1500)));
        assert_eq!(parse("3\u{b5}s".as_bytes()), Some(Duration::from_micros(3)));
        // Rounded up: a wait is never too short.
        assert_eq!(parse(b"0.1ns"), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn ignores_garbage() {
        for text in [
            "", "s", "-1s", "1x", "1s2", "m5", "1..5s", "6m 0s", "1e3s", ".",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_too_long_saturates() {
        let digits = "9".repeat(500);
        let longest = parse(format!("{digits}h").as_bytes());
        assert!(longest.is_some_and(|span| span > Duration::from_secs(1 << 60)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&text);
        }

        #[test]
        fn nothing_of_the_right_letters_panics(text in "[0-9.hmsnu\u{b5}-]{0,64}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn a_span_is_read_back(hours in 0u64..1000, minutes in 0u64..60, millis in 0u64..60_000) {
            let text = format!("{hours}h{minutes}m{}.{:03}s", millis / 1000, millis % 1000);
            let expected = Duration::from_millis((hours * 60 + minutes) * 60_000 + millis);
            prop_assert_eq!(parse(text.as_bytes()), Some(expected));
        }
    }
}
