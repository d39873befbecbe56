//! The reading of settings, with errors that name their path.

use std::{error::Error, fmt};

use serde::{Deserialize, Deserializer};

/// An error in settings that were read, with its path.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReadError {
    /// The path: `retry.backoff.base`, say. `.` for the whole.
    pub path: String,
    /// The error of the format's deserializer: the value, and the fix.
    pub source: Box<dyn Error + Send + Sync>,
}

/// Reads settings from any deserializer. An error names its path.
///
/// ```
/// use tower_keep::settings::{self, ClientSettings};
///
/// let toml = "retry.backoff.base = '100'";
/// let error = settings::read::<ClientSettings, _>(toml::Deserializer::parse(toml)?).unwrap_err();
/// assert_eq!(error.path, "retry.backoff.base");
/// let text = error.to_string();
/// assert!(text.contains("`100` has no unit: write 100ms or 100s"), "{text}");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The settings' `Deserialize` fails: unknown fields, or values that cannot be read. Errors that
/// only `build` can find are a [`ConfigError`](crate::ConfigError).
pub fn read<'de, T, D>(deserializer: D) -> Result<T, ReadError>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
    D::Error: Error + Send + Sync + 'static,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| ReadError {
        path: error.path().to_string(),
        source: Box::new(error.into_inner()),
    })
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path, self.source)
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
