//! The text of values with units, read and written exactly.

use std::time::Duration;

use crate::algorithm::{Rate, Window};

/// Reads "1.5s", "2m" or "1h 30m".
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parsed(text).map_err(|problem| match problem {
        Problem::Empty => "an empty duration: write 250ms, 1.5s, 2m or 1h".to_owned(),
        Problem::NoUnit => unitless(text),
        Problem::UnknownUnit => {
            format!("`{text}` has an unknown unit: use ns, us, ms, s, m, h or d")
        }
        Problem::NoDuration => format!("`{text}` is no duration: write 250ms, 1.5s, 2m or 1h"),
        Problem::TooLong => format!("`{text}` is too long: write at most 200000d, or leave it out"),
    })
}

/// The problem of a text that is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Empty,
    NoUnit,
    UnknownUnit,
    NoDuration,
    TooLong,
}

fn parsed(text: &str) -> Result<Duration, Problem> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(Problem::Empty);
    }
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let (number, after) = split(rest, |letter| letter.is_ascii_digit() || letter == '.');
        let (unit, after) = split(after.trim_start(), char::is_alphabetic);
        let part = match (number.is_empty(), unit.is_empty()) {
            (false, true) => return Err(Problem::NoUnit),
            (true, _) => None,
            (false, false) => in_nanos(number, scale(unit).ok_or(Problem::UnknownUnit)?),
        };
        let sum = part.and_then(|part| nanos.checked_add(part));
        nanos = sum.ok_or(Problem::NoDuration)?;
        rest = after.trim_start();
    }
    from_nanos(nanos).ok_or(Problem::TooLong)
}

/// Returns the error for a duration without a unit. It suggests a fix only if that is valid.
fn unitless(text: &str) -> String {
    let number = text.trim();
    let fixes = [format!("{number}ms"), format!("{number}s")];
    if fixes
        .iter()
        .all(|fix| parsed(fix).is_ok_and(|fixed| !fixed.is_zero()))
    {
        let [millis, seconds] = fixes;
        return format!("`{number}` has no unit: write {millis} or {seconds}");
    }
    format!("`{number}` has no unit: write 250ms, 1.5s, 2m or 1h")
}

/// Writes a duration in the largest unit that needs no fraction.
pub(super) fn write_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let whole = SCALES.iter().find(|(_, scale)| nanos % scale == 0);
    match whole {
        Some((unit, scale)) if nanos > 0 => format!("{}{unit}", nanos / scale),
        _ => "0s".to_owned(),
    }
}

/// Reads "100/s", "1000/h", "1/day" or "500/10s".
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let bad = || format!("`{text}` is no rate: write 100/s, 1000/h or 500/10s");
    let Some((count, per)) = text.split_once('/') else {
        return Err(match text.trim().parse::<u64>() {
            Ok(1..) => format!("`{text}` does not say in how long: write {text}/s or {text}/h"),
            _ => bad(),
        });
    };
    let count = count.trim().parse().map_err(|_| bad())?;
    let per = per.trim();
    let per = match per.chars().next() {
        Some(first) if first.is_ascii_digit() => duration(per)?,
        _ => scale(per).and_then(from_nanos).ok_or_else(bad)?,
    };
    Ok(Rate::new(count, per))
}

pub(super) fn write_rate(rate: Rate) -> String {
    let (count, per) = (rate.count(), rate.per());
    let unit = match per.as_nanos() {
        SECOND => "s",
        MINUTE => "min",
        HOUR => "h",
        DAY => "day",
        _ => return format!("{count}/{}", write_duration(per)),
    };
    format!("{count}/{unit}")
}

/// Reads "10s" or "100 calls".
pub(super) fn window(text: &str) -> Result<Window, String> {
    let Some(calls) = text.trim().strip_suffix("calls") else {
        let fix = |number| {
            format!("`{number}` has no unit: write {number}ms, {number}s or {number} calls")
        };
        return match text.trim().parse::<u32>() {
            Ok(number @ 1..) => Err(fix(number)),
            _ => duration(text).map(Window::Time),
        };
    };
    let calls = calls.trim_end().parse().map(Window::Calls);
    calls.map_err(|_| format!("`{text}` is no window: write 10s or 100 calls"))
}

pub(super) fn write_window(window: Window) -> String {
    match window {
        Window::Time(length) => write_duration(length),
        Window::Calls(calls) => format!("{calls} calls"),
    }
}

/// Reads "50%" or "0.5".
pub(super) fn share(text: &str) -> Result<f64, String> {
    let trimmed = text.trim();
    let (number, whole) = match trimmed.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 100.0),
        None => (trimmed, 1.0),
    };
    let bad = || format!("`{text}` is no share: write 50% or 0.5");
    let number: f64 = number.parse().map_err(|_| bad())?;
    checked_share(number / whole, text)
}

/// Returns a share if it is from 0 to 1.
fn checked_share(share: f64, text: &str) -> Result<f64, String> {
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(match text.trim().ends_with('%') {
        _ if share.is_nan() || share < 0.0 => format!("`{text}` is no share: write 50% or 0.5"),
        false if share <= 100.0 => {
            format!("`{text}` is more than all: write {text}% or a number up to 1")
        }
        _ => format!("`{text}` is more than all: write at most 100%"),
    })
}

/// Writes a share in percent, unless that would not be exact.
pub(super) fn write_share(share: f64) -> String {
    let percent = (share * 1e8).round() / 1e6;
    if (percent / 100.0).to_bits() == share.to_bits() {
        format!("{percent}%")
    } else {
        share.to_string()
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|letter| !belongs(letter)).unwrap_or(text.len());
    text.split_at(end)
}

/// Reads a decimal number of a unit. `None` if it is not a number, or finer than a nanosecond.
fn in_nanos(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let places = u32::try_from(fraction.len())
        .ok()
        .filter(|&places| places <= 15)?;
    let divisor = 10u128.pow(places);
    let part = fraction.parse::<u128>().ok()? * scale;
    if part % divisor != 0 {
        return None;
    }
    let whole = whole.parse::<u128>().ok()?.checked_mul(scale)?;
    whole.checked_add(part / divisor)
}

fn from_nanos(nanos: u128) -> Option<Duration> {
    let seconds = u64::try_from(nanos / SECOND).ok()?;
    Some(Duration::new(seconds, u32::try_from(nanos % SECOND).ok()?))
}

fn scale(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" | "second" | "seconds" => SECOND,
        "m" | "min" | "minute" | "minutes" => MINUTE,
        "h" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        _ => return None,
    })
}

const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;
const SCALES: [(&str, u128); 7] = [
    ("d", DAY),
    ("h", HOUR),
    ("m", MINUTE),
    ("s", SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_rates_and_shares_are_read_with_units() {
        let millis = |text: &str| duration(text).unwrap().as_millis();
        for (text, expected) in [
            ("250ms", 250),
            ("1.5s", 1500),
            ("2m", 120_000),
            (" 1h 30m ", 5_400_000),
            ("1h30min", 5_400_000),
            ("1 day", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
        assert_eq!(rate("100/s").unwrap(), Rate::per_second(100));
        assert_eq!(rate("1000 / h").unwrap(), Rate::per_hour(1000));
        assert_eq!(rate("1/day").unwrap(), Rate::per_day(1));
        let ten = Duration::from_secs(10);
        assert_eq!(rate("500/10s").unwrap(), Rate::new(500, ten));
        assert_eq!((share("50%"), share("0.125")), (Ok(0.5), Ok(0.125)));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_the_fix() {
        let error = |text: &str| duration(text).unwrap_err();
        assert_eq!(error("100"), "`100` has no unit: write 100ms or 100s");
        let unknown = "`5 weeks` has an unknown unit: use ns, us, ms, s, m, h or d";
        assert_eq!(error("5 weeks"), unknown);
        for text in ["", "s", "1.2.3s", "-1s", "1s,2s", "0.5ns", "1e3s"] {
            assert!(
                error(text).contains("write") || error(text).contains("use"),
                "{text}"
            );
        }
        assert!(error("99999999999999999999999999999999999999999s").contains("no duration"));
        assert!(error("600000000000000000000s").contains("too long"));
        for text in ["100", "x/s", "/s", "5/", "5/x", "-5/s", "1.5/s"] {
            assert!(rate(text).unwrap_err().contains("write 100/s"), "{text}");
        }
        let too_much = "`50` is more than all: write 50% or a number up to 1";
        assert_eq!(share("50").unwrap_err(), too_much);
        for text in ["NaN", "inf", "-1%", "101%", "half", "%"] {
            assert!(share(text).unwrap_err().contains("write"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(
            seconds: u64, nanos in 0u32..1_000_000_000, count: u64, part in 0.0f64..=1.0, percent in 0u32..=1000,
        ) {
            for time in [Duration::new(seconds, nanos), Duration::from_secs(seconds % 1_000_000)] {
                prop_assert_eq!(duration(&write_duration(time)), Ok(time));
                prop_assert_eq!(rate(&write_rate(Rate::new(count, time))), Ok(Rate::new(count, time)));
            }
            for number in [part, f64::from(percent) / 1000.0] {
                prop_assert_eq!(share(&write_share(number)), Ok(number));
            }
        }

        #[test]
        fn any_text_is_a_value_or_an_error(text: String) {
            let _ = (duration(&text), rate(&text), share(&text));
        }
    }
}
