//! The failure of a store.

use std::{borrow::Cow, error::Error, fmt};

/// A failure of a store to answer, or to answer one ask.
///
/// Its text goes to logs and handles, so it holds no connection string and no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    text: Cow<'static, str>,
    /// If true, asking again cannot help until the store is changed.
    permanent: bool,
}

impl StoreError {
    /// Makes a failure that may be over at the next ask.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.into(),
            permanent: false,
        }
    }

    /// Makes a failure that lasts until the store is changed: its settings, or a key.
    pub fn permanent(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.into(),
            permanent: true,
        }
    }

    /// Returns whether it lasts until the store is changed.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for StoreError {}
