//! Reads a provider's fields.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::{
    number::{decimal, whole},
    preset::{Provider, QuotaFields, TimeForm},
    span, timestamp,
};
use crate::{
    ambient::clock,
    protocol::{Hint, QuotaHint, http::retry_after::sent_at},
};

impl Provider {
    /// Reads the fields of a response. `None` if none of them has a meaning.
    ///
    /// Points in time are measured against the response's own `Date`, if it has one, so that a
    /// wrong clock, here or there, does not change the wait.
    #[must_use]
    pub fn read(&self, headers: &HeaderMap) -> Option<Hint> {
        let waits = self.waits.iter();
        let retry_after = waits
            .filter_map(|(field, form)| time(headers, field, *form))
            .next();
        let quotas = self.quotas.iter().filter_map(|fields| fields.read(headers));
        let hint = Hint {
            retry_after,
            quotas: quotas.collect(),
        };
        (!hint.is_empty()).then_some(hint)
    }
}

impl QuotaFields {
    fn read(&self, headers: &HeaderMap) -> Option<QuotaHint> {
        let units = |field: &str| values(headers, field).find_map(whole);
        let hint = QuotaHint {
            name: self.name,
            limit: units(&self.limit),
            remaining: units(&self.remaining),
            full_in: time(headers, &self.reset, self.form),
        };
        let says = hint.limit.is_some() || hint.remaining.is_some() || hint.full_in.is_some();
        says.then_some(hint)
    }
}

/// Reads a time: the longest, if there are several values.
fn time(headers: &HeaderMap, field: &str, form: TimeForm) -> Option<Duration> {
    let until = |then: SystemTime| match sent_at(headers) {
        Some(sent) => then.duration_since(sent).unwrap_or_default(),
        None => clock::until(then),
    };
    let number = |value: &[u8], unit| {
        let (time, rest) = decimal(value.trim_ascii(), unit)?;
        rest.is_empty().then_some(time)
    };
    values(headers, field)
        .filter_map(|value| match form {
            TimeForm::Seconds => number(value, 1_000_000_000),
            TimeForm::Milliseconds => number(value, 1_000_000),
            TimeForm::Span => span::parse(value),
            TimeForm::Timestamp => timestamp::parse(value).map(until),
            TimeForm::UnixSeconds => {
                let since = number(value, 1_000_000_000)?;
                SystemTime::UNIX_EPOCH.checked_add(since).map(until)
            }
        })
        .max()
}

/// Returns the values of a field, none if its name is not valid.
fn values<'a>(headers: &'a HeaderMap, field: &str) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(field).iter();
    values.map(http::HeaderValue::as_bytes)
}
