//! Hosts and ports in the form of the URL standard.
//!
//! A host arrives here as [`http::Uri`] accepts it: ASCII letters, digits and signs, without a
//! percent sign. So neither percent-decoding nor IDNA is needed.

use std::{
    fmt::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
};

/// Returns whether an authority is the canonical form of a name: without a user, a port, upper case
/// or a final dot, and not an address. Most are, and cost this one pass alone.
pub(super) fn is_name(authority: &str) -> bool {
    let (mut starts_part, mut is_number) = (true, false);
    for byte in authority.bytes() {
        match byte {
            b'.' => starts_part = true,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {
                if starts_part {
                    is_number = byte.is_ascii_digit();
                }
                starts_part = false;
            }
            _ => return false,
        }
    }
    // An address has a last part that starts with a digit.
    !(starts_part || is_number)
}

/// Splits an authority without a user into the host and what follows its colon.
pub(super) fn split(authority: &str) -> (&str, Option<&str>) {
    let bracket = authority
        .strip_prefix('[')
        .and_then(|inner| inner.find(']'));
    let (host, rest) = match bracket {
        Some(at) => authority.split_at(at + 2),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    (host, rest.strip_prefix(':'))
}

/// Returns a port without leading zeros, if there is one.
pub(super) fn port(port: Option<&str>) -> Option<&str> {
    let written = port.filter(|port| !port.is_empty())?;
    match written.trim_start_matches('0') {
        "" => Some("0"),
        port => Some(port),
    }
}

/// Returns the canonical form of a host without a final dot, if it differs.
pub(super) fn host(host: &str) -> Option<String> {
    let bracketed = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'));
    if let Some(address) = bracketed.and_then(|inner| inner.parse::<Ipv6Addr>().ok()) {
        return unless_written(host, format_args!("[{address}]"));
    }
    if let Some(address) = ipv4(host) {
        return unless_written(host, format_args!("{address}"));
    }
    let is_lower = !host.bytes().any(|byte| byte.is_ascii_uppercase());
    (!is_lower).then(|| host.to_ascii_lowercase())
}

/// Returns a form as a new string, if it differs from `written`.
fn unless_written(written: &str, form: fmt::Arguments<'_>) -> Option<String> {
    let mut left = Unmatched(Some(written));
    let is_written = left.write_fmt(form).is_ok() && left.0 == Some("");
    (!is_written).then(|| form.to_string())
}

/// The part of a text that has not been matched yet. `None` once something else was written.
struct Unmatched<'a>(Option<&'a str>);

impl fmt::Write for Unmatched<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0 = self.0.and_then(|left| left.strip_prefix(part));
        Ok(())
    }
}

/// Parses an address of up to four numbers. All but the last are one byte each, and the last fills
/// the remaining bytes. Each may be decimal, octal after a `0`, or hexadecimal after `0x`. Clients
/// and resolvers accept all of these.
fn ipv4(host: &str) -> Option<Ipv4Addr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let last = host.rsplit('.').next()?;
    // A host whose last part starts with a digit may be an address, any other cannot.
    if !last.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let mut address = 0_u64;
    let mut bytes_left = 4;
    for (part, is_last) in parts(host) {
        let number = number(part)?;
        let width = if is_last { bytes_left } else { 1 };
        if bytes_left == 0 || number >> (8 * width) != 0 {
            return None;
        }
        address = address << (8 * width) | number;
        bytes_left -= width;
    }
    Some(Ipv4Addr::from(u32::try_from(address).ok()?))
}

fn parts(host: &str) -> impl Iterator<Item = (&str, bool)> {
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    let parts = host.split('.').enumerate();
    parts.map(move |(index, part)| (part, index == dots))
}

fn number(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match (hexadecimal, text.strip_prefix('0')) {
        (Some(""), _) => return Some(0),
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        (None, _) => (text, 10),
    };
    // `from_str_radix` accepts a sign. Too many digits are too large in any case.
    let well_formed = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(digits, radix)
        .ok()
        .filter(|_| well_formed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_told_from_all_else() {
        for name in ["shop", "shop.example", "a-b.c_d.x1", "1.example", "a..b"] {
            assert!(is_name(name), "{name}");
        }
        for other in [
            "", ".", "shop.", "Shop", "shop:80", "me@shop", "[::1]", "127.1", "a.0x7f", "1", "a%2e",
        ] {
            assert!(!is_name(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_its_own_canonical_form(text in "[a-z0-9.A-Z:@_\\[-]{0,9}") {
            if is_name(&text) {
                prop_assert_eq!(split(&text), (&*text, None));
                prop_assert_eq!(host(text.trim_end_matches('.')), None);
                prop_assert!(!text.ends_with('.'));
            }
        }
    }
}
