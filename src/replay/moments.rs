//! The formats of times in logs.

/// A time in nanoseconds since 1970, and true if the log had only its second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) nanos: u64,
    pub(super) is_coarse: bool,
}

/// Parses `30/Nov/2026:18:08:48 +0000`, nginx's `$time_local`.
pub(super) fn local(text: &str) -> Option<Moment> {
    let (stamp, zone) = text.trim().split_once(' ')?;
    let mut parts = stamp.splitn(4, ['/', ':']);
    let day = digits(parts.next()?)?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)?;
    let year = digits(parts.next()?)?;
    let (seconds, fraction, is_coarse) = clock(parts.next()?)?;
    let date = days(year, i64::try_from(month).ok()? + 1, day)?;
    moment(date * DAY + seconds - offset(zone)?, fraction, is_coarse)
}

/// Parses `2026-11-30T18:08:48.123Z`, with any zone. `zone` is the default zone, in seconds.
pub(super) fn iso(text: &str, zone: i64) -> Option<Moment> {
    let text = text.trim();
    let (date, time) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-');
    let year = digits(parts.next()?)?;
    let month = digits(parts.next()?)?;
    let day = digits(parts.next()?)?;
    let at = time.find(['Z', '+', '-', 'z', ' ']).unwrap_or(time.len());
    let (time, written) = time.split_at_checked(at)?;
    let written = written.trim();
    let zone = match written {
        "" => zone,
        "Z" | "z" => 0,
        other => offset(other)?,
    };
    let (seconds, fraction, is_coarse) = clock(time)?;
    moment(
        days(year, month, day)? * DAY + seconds - zone,
        fraction,
        is_coarse,
    )
}

/// Parses `1764526128.123`, seconds since 1970. The size of a whole number tells milliseconds,
/// microseconds and nanoseconds apart.
pub(super) fn epoch(text: &str) -> Option<Moment> {
    let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if whole.is_empty() || !whole.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = whole.parse().ok()?;
    if text.contains('.') {
        let nanos = number
            .checked_mul(SECOND)?
            .checked_add(fraction(decimals)?)?;
        let is_coarse = false;
        return Some(Moment { nanos, is_coarse });
    }
    let unit = match number {
        0..100_000_000_000 => SECOND,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1000,
        _ => 1,
    };
    Some(Moment {
        nanos: number.checked_mul(unit)?,
        is_coarse: unit == SECOND,
    })
}

/// Parses `0.123` in units of this many nanoseconds.
pub(super) fn decimal(text: &str, unit: u64) -> Option<u64> {
    let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_number = |part: &str| part.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(decimals) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    // In billionths of the unit.
    let part = u128::from(fraction(decimals)?) * u128::from(unit) / u128::from(SECOND);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Parses `+0130`, `+01:30` or `-02`, in seconds.
pub(super) fn offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z" | "UTC") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let plain = text[1..].replace(':', "");
    let (hours, minutes) = match plain.len() {
        2 => (digits(&plain)?, 0),
        4 => (digits(plain.get(..2)?)?, digits(plain.get(2..)?)?),
        _ => return None,
    };
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Parses `18:08:48.123` as seconds of the day, nanoseconds, and whether it has none.
fn clock(text: &str) -> Option<(i64, u64, bool)> {
    let mut parts = text.splitn(3, ':');
    let hours = digits(parts.next()?)?;
    let minutes = digits(parts.next()?)?;
    let seconds = parts.next()?;
    let (whole, decimals) = match seconds.split_once(['.', ',']) {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (seconds, None),
    };
    let whole = digits(whole)?;
    // A leap second is 60.
    if hours > 24 || minutes > 59 || whole > 60 {
        return None;
    }
    let nanos = decimals.map_or(Some(0), fraction)?;
    Some((
        hours * 3600 + minutes * 60 + whole,
        nanos,
        decimals.is_none(),
    ))
}

fn moment(seconds: i64, fraction: u64, is_coarse: bool) -> Option<Moment> {
    let nanos = u64::try_from(seconds)
        .ok()?
        .checked_mul(SECOND)?
        .checked_add(fraction)?;
    Some(Moment { nanos, is_coarse })
}

/// Returns decimals as nanoseconds. Finer digits are cut off.
fn fraction(decimals: &str) -> Option<u64> {
    let mut nanos = 0;
    let mut unit = SECOND / 10;
    for digit in decimals.bytes() {
        if !digit.is_ascii_digit() {
            return None;
        }
        nanos += u64::from(digit - b'0') * unit;
        unit /= 10;
    }
    Some(nanos)
}

fn digits(text: &str) -> Option<i64> {
    let is_short = (1..=4).contains(&text.len());
    (is_short && text.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// Returns the days from 1970 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March, so that a leap day is the last day of one.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leap = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(365 * year + leap + (153 * month + 2) / 5 + day - 1 - 719_468)
}

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const DAY_NANOS: u64 = 86_400 * SECOND;
const DAY: i64 = 86_400;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(moment: Option<Moment>) -> f64 {
        moment.expect("a moment").nanos as f64 / 1e9
    }

    #[test]
    fn zones_and_leap_days_are_honored() {
        // The values are from `date -d .. +%s`.
        assert_eq!(
            seconds(local("30/Nov/2026:18:08:48 +0000")),
            1_796_062_128.0
        );
        assert_eq!(
            seconds(local("30/Nov/2026:19:38:48 +0130")),
            1_796_062_128.0
        );
        assert_eq!(
            seconds(iso("2026-11-30T16:08:48-02:00", 0)),
            1_796_062_128.0
        );
        assert_eq!(seconds(iso("2026-11-30 19:08:48", 3600)), 1_796_062_128.0);
        assert_eq!(seconds(iso("2024-02-29T00:00:00Z", 0)), 1_709_164_800.0);
        assert_eq!(seconds(iso("1970-01-01T00:00:00Z", 0)), 0.0);
    }

    #[test]
    fn whole_seconds_are_coarse() {
        assert!(iso("2026-11-30T18:08:48Z", 0).unwrap().is_coarse);
        assert!(!iso("2026-11-30T18:08:48.5Z", 0).unwrap().is_coarse);
        assert!(epoch("1764526128").unwrap().is_coarse);
        assert!(!epoch("1764526128.000").unwrap().is_coarse);
        assert!(!epoch("1764526128000").unwrap().is_coarse);
    }

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        let expected = epoch("1764526128.5").unwrap().nanos;
        for text in ["1764526128500", "1764526128500000", "1764526128500000000"] {
            assert_eq!(epoch(text).unwrap().nanos, expected, "{text}");
        }
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal("0.123", SECOND), Some(123_000_000));
        assert_eq!(decimal("12", 1_000_000), Some(12_000_000));
        assert_eq!(decimal("1.5", 1_000_000), Some(1_500_000));
        for text in ["", "-", "1e3", "-1", "99999999999999999999"] {
            assert_eq!(decimal(text, SECOND), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}", digits in "[0-9/:TZ.+ -]{0,40}") {
            for text in [&text, &digits] {
                let _ = (local(text), iso(text, -3600), epoch(text), offset(text));
                let _ = (decimal(text, SECOND), decimal(text, 1_000_000));
            }
        }

        #[test]
        fn dates_follow_one_another(day in 0i64..60_000) {
            let (year, rest) = (1970 + day / 366, day % 366);
            let (month, of_month) = (rest / 31 + 1, rest % 31 + 1);
            if of_month <= 28 {
                let (one, next) = (days(year, month, of_month), days(year, month, of_month + 1));
                prop_assert_eq!(one.unwrap() + 1, next.unwrap());
            }
        }
    }
}
