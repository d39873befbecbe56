//! The error of a file whose settings were not applied.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use tower::BoxError;

/// A file whose settings were not applied. The last good ones stay.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReloadError {
    /// The file.
    pub path: PathBuf,
    /// The section of the error, in a file with several. `None` for the whole file.
    pub section: Option<String>,
    /// The error: the file or its text could not be read, or its settings were rejected.
    pub source: BoxError,
}

impl ReloadError {
    pub(super) fn new(path: &Path, source: BoxError) -> Self {
        Self {
            path: path.to_owned(),
            section: None,
            source,
        }
    }

    /// Sets the section of the error.
    pub(super) fn of(self, section: &str) -> Self {
        Self {
            section: Some(section.to_owned()),
            ..self
        }
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(section) = &self.section {
            write!(f, "[{section}]: ")?;
        }
        self.source.fmt(f)
    }
}

impl Error for ReloadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
