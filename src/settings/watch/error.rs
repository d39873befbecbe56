//! The error of a file that did not become settings.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use tower::BoxError;

/// A file that did not become settings. The last good ones stay.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReloadError {
    /// The file.
    pub path: PathBuf,
    /// The error: the file or its text could not be read, or its settings were rejected.
    pub source: BoxError,
}

impl ReloadError {
    pub(super) fn new(path: &Path, source: BoxError) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

impl Error for ReloadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
