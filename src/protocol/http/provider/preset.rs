//! Providers, described by data.

use std::borrow::Cow;

/// The fields of a provider: when to come back, and what is left of its quotas.
///
/// A wait is read from the first of [`waits`](Self::waits) in a response. Without one, it is read
/// from `Retry-After`, as every client does. A wait goes before `Retry-After`, because it is more
/// exact.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provider {
    /// The name, for people.
    pub name: Cow<'static, str>,
    /// The page that documents the fields.
    pub source: Cow<'static, str>,
    /// The day of the last check, as year, month and day.
    pub checked: Cow<'static, str>,
    /// The fields with a time to come back, the most exact first.
    pub waits: Vec<(Cow<'static, str>, TimeForm)>,
    /// The quotas.
    pub quotas: Vec<QuotaFields>,
}

/// The three fields of a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaFields {
    /// The name by which a limit [follows](crate::rate_limit::RateLimitBuilder::follow) it.
    pub name: &'static str,
    /// The field with the units of the full quota. Empty if there is none, like the others.
    pub limit: Cow<'static, str>,
    /// The field with the units that are left.
    pub remaining: Cow<'static, str>,
    /// The field with the time until the quota is full.
    pub reset: Cow<'static, str>,
    /// The form of `reset`.
    pub form: TimeForm,
}

/// The form of a time in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeForm {
    /// A number of seconds, with decimals or without.
    Seconds,
    /// A number of milliseconds, with decimals or without.
    Milliseconds,
    /// A length of time as Go writes it: `6m0s`. A number without a unit is in seconds.
    Span,
    /// A point in time of RFC 3339.
    Timestamp,
    /// A point in time in seconds since 1970.
    UnixSeconds,
}

impl Provider {
    /// Creates a provider without fields.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            source: Cow::Borrowed(""),
            checked: Cow::Borrowed(""),
            waits: Vec::new(),
            quotas: Vec::new(),
        }
    }

    /// Sets the page that documents the fields, and the day of the last check.
    #[must_use]
    pub fn source(
        mut self,
        page: impl Into<Cow<'static, str>>,
        checked: impl Into<Cow<'static, str>>,
    ) -> Self {
        (self.source, self.checked) = (page.into(), checked.into());
        self
    }

    /// Adds a field with a time to come back, or replaces its form.
    #[must_use]
    pub fn wait(mut self, field: impl Into<Cow<'static, str>>, form: TimeForm) -> Self {
        let field = field.into();
        self.waits
            .retain(|(other, _)| !other.eq_ignore_ascii_case(&field));
        self.waits.push((field, form));
        self
    }

    /// Adds a quota, and replaces one of the same name.
    #[must_use]
    pub fn quota(mut self, fields: QuotaFields) -> Self {
        self.quotas.retain(|other| other.name != fields.name);
        self.quotas.push(fields);
        self
    }
}

impl QuotaFields {
    /// Creates a quota without fields. `form` is that of the field with the time until it is full.
    #[must_use]
    pub fn new(name: &'static str, form: TimeForm) -> Self {
        let none = Cow::Borrowed("");
        Self {
            name,
            limit: none.clone(),
            remaining: none.clone(),
            reset: none,
            form,
        }
    }

    /// Sets the field with the units of the full quota.
    #[must_use]
    pub fn limit(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.limit = field.into();
        self
    }

    /// Sets the field with the units that are left.
    #[must_use]
    pub fn remaining(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.remaining = field.into();
        self
    }

    /// Sets the field with the time until the quota is full.
    #[must_use]
    pub fn reset(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.reset = field.into();
        self
    }
}

/// Returns the fields of OpenAI's API, which many other servers use too. They are `requests` and
/// `tokens`, as `x-ratelimit-remaining-tokens`, with resets such as `6m0s`, and `retry-after-ms`.
#[must_use]
pub fn openai() -> Provider {
    let fields = |name: &'static str| {
        QuotaFields::new(name, TimeForm::Span)
            .limit(format!("x-ratelimit-limit-{name}"))
            .remaining(format!("x-ratelimit-remaining-{name}"))
            .reset(format!("x-ratelimit-reset-{name}"))
    };
    Provider::new("openai")
        .source(
            "https://platform.openai.com/docs/guides/rate-limits",
            "2026-06-26",
        )
        .wait("retry-after-ms", TimeForm::Milliseconds)
        .quota(fields("requests"))
        .quota(fields("tokens"))
}

/// Returns the fields of Anthropic's API. They are `requests`, `tokens`, `input-tokens` and
/// `output-tokens`, as `anthropic-ratelimit-input-tokens-remaining`, with resets of RFC 3339, and
/// `retry-after-ms`.
#[must_use]
pub fn anthropic() -> Provider {
    let fields = |name: &'static str| {
        QuotaFields::new(name, TimeForm::Timestamp)
            .limit(format!("anthropic-ratelimit-{name}-limit"))
            .remaining(format!("anthropic-ratelimit-{name}-remaining"))
            .reset(format!("anthropic-ratelimit-{name}-reset"))
    };
    Provider::new("anthropic")
        .source(
            "https://docs.anthropic.com/en/api/rate-limits",
            "2025-08-21",
        )
        .wait("retry-after-ms", TimeForm::Milliseconds)
        .quota(fields("requests"))
        .quota(fields("tokens"))
        .quota(fields("input-tokens"))
        .quota(fields("output-tokens"))
}

/// Returns the field of Amazon's services, such as Bedrock: `x-amz-retry-after`, in milliseconds,
/// as Amazon's own clients read it. They report no quotas.
#[must_use]
pub fn aws() -> Provider {
    Provider::new("aws")
        .source("https://github.com/smithy-lang/smithy-rs", "2026-11-30")
        .wait("x-amz-retry-after", TimeForm::Milliseconds)
}
