//! Numbers for people to read.

use std::time::Duration;

use crate::algorithm::Rate;

/// Returns `0.012 %`, with the digits that matter.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.0 => "0 %".into(),
        0.0..0.01 => format!("{percent:.4} %"),
        0.01..1.0 => format!("{percent:.2} %"),
        _ => format!("{percent:.1} %"),
    }
}

/// Returns `1.2 s`, from nanoseconds.
pub(super) fn time(nanos: u64) -> String {
    seconds(nanos as f64 / 1e9)
}

/// Returns `1.2 s`, `35 ms` or `3.1 h`.
pub(super) fn seconds(seconds: f64) -> String {
    let plain = |value: f64, unit: &str| match value {
        0.0 => format!("0 {unit}"),
        100.0.. => format!("{value:.0} {unit}"),
        10.0.. => format!("{value:.1} {unit}"),
        _ => format!("{value:.2} {unit}"),
    };
    match seconds {
        0.0..0.001 => plain(seconds * 1e6, "us"),
        0.001..1.0 => plain(seconds * 1e3, "ms"),
        1.0..120.0 => plain(seconds, "s"),
        120.0..7200.0 => plain(seconds / 60.0, "min"),
        7200.0..172_800.0 => plain(seconds / 3600.0, "h"),
        _ => plain(seconds / 86_400.0, "d"),
    }
}

/// Returns `0.3` or `12`, for how often something happens.
pub(super) fn often(times: f64) -> String {
    match times {
        0.0 => "0".into(),
        0.0..0.005 => "<0.01".into(),
        0.005..10.0 => format!("{times:.2}"),
        _ => format!("{times:.0}"),
    }
}

/// Returns `100/s`, as files write it.
pub(super) fn rate(rate: Rate) -> String {
    format!("{:?}", crate::settings::HumanRate(rate))
}

/// Returns `250ms`, as files write it.
pub(super) fn duration(duration: Duration) -> String {
    format!("{:?}", crate::settings::HumanDuration(duration))
}

/// Returns `1 234 567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut written = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            written.push(' ');
        }
        written.push(digit);
    }
    written
}

/// Returns the next higher duration with two digits.
pub(super) fn rounded_up(nanos: u64) -> Duration {
    let millis = nanos.div_ceil(1_000_000).max(1);
    let scale = 10u64.pow(millis.ilog10().saturating_sub(1));
    Duration::from_millis(millis.div_ceil(scale) * scale)
}

/// Returns text that a page shows unchanged.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}
