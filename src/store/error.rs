//! The failure of a store.

use std::{borrow::Cow, error::Error, fmt};

/// A store that gave no answer, or none to one ask.
///
/// Its text goes to logs and to handles: it bears no connection string and no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    text: Cow<'static, str>,
    /// True if asking again cannot help before somebody has changed the store.
    permanent: bool,
}

impl StoreError {
    /// A failure that may be over at the next ask.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.into(),
            permanent: false,
        }
    }

    /// A failure that lasts until somebody changes the store: its settings, or a key.
    pub fn permanent(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.into(),
            permanent: true,
        }
    }

    /// Returns whether it lasts until somebody changes the store.
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
