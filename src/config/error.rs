//! The error of an invalid setting.

use std::{error::Error, fmt, ops::RangeInclusive, time::Duration};

/// An invalid setting: its layer and name, its value, and how to fix it.
///
/// Every `build()` returns it, and nothing else in the crate validates: a layer that was built does
/// not fail later because of its configuration.
///
/// ```
/// use tower_keep::algorithm::{Rate, TokenBucket};
///
/// let error = TokenBucket::new(Rate::per_second(100), 0).unwrap_err();
/// assert_eq!(error.to_string(), "`burst` is 0: allow at least 1 call at once");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting, by the name of its setter.
    pub field: &'static str,
    /// The rejected value.
    pub value: String,
    /// The value to set instead.
    pub fix: &'static str,
    /// The pattern that the setting belongs to. `None` if it belongs to an algorithm.
    pub layer: Option<&'static str>,
    /// The instance, as given to `.name(..)`.
    pub name: Option<&'static str>,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, value: impl fmt::Debug, fix: &'static str) -> Self {
        Self {
            field,
            value: plain(value),
            fix,
            layer: None,
            name: None,
        }
    }

    /// Replaces the name `from` of the setting by the one that the stack or the file uses.
    #[cfg(any(feature = "http", all(feature = "layers", feature = "serde")))]
    pub(crate) fn renamed(mut self, from: &str, to: &'static str) -> Self {
        if self.field == from {
            self.field = to;
        }
        self
    }

    /// Adds the layer that the setting belongs to: in a stack of five, `duration` alone means
    /// little.
    #[cfg(feature = "layers")]
    pub(crate) fn of(self, layer: &'static str, name: Option<&'static str>) -> Self {
        Self {
            layer: Some(layer),
            name,
            ..self
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            f.write_str(layer)?;
            if let Some(name) = self.name {
                write!(f, " ({name})")?;
            }
            f.write_str(": ")?;
        }
        write!(f, "`{}` is {}: {}", self.field, self.value, self.fix)
    }
}

impl Error for ConfigError {}

/// Formats a value as it is set. `Some` and `None` are left out, because an `Option` is only the
/// code's way to make a setting optional.
pub(crate) fn plain(value: impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let inner = text
        .strip_prefix("Some(")
        .and_then(|text| text.strip_suffix(')'));
    match inner {
        Some(inner) => inner.to_owned(),
        None if text == "None" => "not set".to_owned(),
        None => text,
    }
}

/// Returns the nanoseconds of a duration, if it is within bounds.
pub(crate) fn nanos_within(
    field: &'static str,
    value: Duration,
    bounds: RangeInclusive<Duration>,
    fix: &'static str,
) -> Result<u64, ConfigError> {
    match u64::try_from(value.as_nanos()) {
        Ok(nanos) if bounds.contains(&value) => Ok(nanos),
        _ => Err(ConfigError::new(field, value, fix)),
    }
}

/// Returns a number, if it is finite and valid.
pub(crate) fn number_within(
    field: &'static str,
    value: f64,
    is_valid: impl FnOnce(f64) -> bool,
    fix: &'static str,
) -> Result<f64, ConfigError> {
    if value.is_finite() && is_valid(value) {
        return Ok(value);
    }
    Err(ConfigError::new(field, value, fix))
}

/// Returns a rate in parts per million, from a fraction above 0 and at most 1.
pub(crate) fn parts_per_million(
    field: &'static str,
    value: f64,
    fix: &'static str,
) -> Result<u32, ConfigError> {
    if !(value > 0.0 && value <= 1.0) {
        return Err(ConfigError::new(field, value, fix));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 < value <= 1, so at most a million"
    )]
    // Rounded down, or 2 of 3 calls would not reach a share of 2/3. The tolerance is for decimal
    // fractions, whose product may be just below a whole number.
    let parts = (value * 1e6 + 1e-7).floor() as u32;
    Ok(parts.max(1))
}
