//! Numbers with decimals.

use std::time::Duration;

/// Parses a decimal number that is not negative, in units of `unit` nanoseconds. Also returns the
/// rest of the text. Saturates. Digits below a nanosecond round up, so that a wait is never too
/// short.
pub(super) fn decimal(text: &[u8], unit: u64) -> Option<(Duration, &[u8])> {
    let (whole, rest) = digits(text);
    let (decimals, rest) = match rest.split_first() {
        Some((b'.', after)) => digits(after),
        _ => (&[][..], rest),
    };
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    let whole = integer(whole).saturating_mul(unit.into());
    let fraction = fraction(decimals, unit);
    Some((duration(whole.saturating_add(fraction)), rest))
}

/// Parses a whole number that is not negative, and nothing else. Saturates.
pub(super) fn whole(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    let (number, rest) = digits(text);
    if number.is_empty() {
        return None;
    }
    // Some servers write decimals for whole numbers.
    let rest = match rest.split_first() {
        Some((b'.', decimals)) => digits(decimals).1,
        _ => rest,
    };
    let number = u64::try_from(integer(number)).unwrap_or(u64::MAX);
    rest.is_empty().then_some(number)
}

pub(super) fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(length)
}

fn integer(digits: &[u8]) -> u128 {
    digits.iter().fold(0_u128, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u128::from(digit - b'0'))
    })
}

/// Returns the decimals of a unit, in nanoseconds, rounded up.
fn fraction(decimals: &[u8], unit: u64) -> u128 {
    let kept = decimals.len().min(18);
    let (kept, dropped) = decimals.split_at(kept);
    let scale = (0..kept.len()).fold(1_u128, |scale, _| scale * 10);
    // 18 digits are 60 bits, and an hour in nanoseconds is 42.
    let exact = (integer(kept) * u128::from(unit)).div_ceil(scale);
    let more = dropped.iter().any(|&digit| digit != b'0') && exact < u128::from(unit);
    exact + u128::from(more)
}

fn duration(nanos: u128) -> Duration {
    let seconds = u64::try_from(nanos / NANOS).unwrap_or(u64::MAX);
    let below = u32::try_from(nanos % NANOS).unwrap_or(0);
    Duration::new(seconds, below)
}

const NANOS: u128 = 1_000_000_000;
