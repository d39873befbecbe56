//! The reading of a file that may be replaced by anything at any time.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Read},
    path::Path,
    time::SystemTime,
};

/// A file's content, or the reason why it could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    Text { stamp: Stamp, text: String },
    Failed(String),
}

/// The identity of a file and its last change, as far as the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// The device and the number of the file, to detect that another one replaced it.
    number: Option<(u64, u64)>,
}

impl Reading {
    /// Reads the file, if it is a regular one: a pipe would block the watch until it is written to.
    pub(super) fn of(path: &Path) -> Self {
        match read(path) {
            Ok((stamp, text)) => Self::Text { stamp, text },
            Err(error) => Self::Failed(error.to_string()),
        }
    }

    /// Returns whether another reading means the same. For texts, whenever they were written.
    pub(super) fn means(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text { text, .. }, Self::Text { text: other, .. }) => text == other,
            (Self::Failed(error), Self::Failed(other)) => error == other,
            _ => false,
        }
    }

    pub(super) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Text { stamp, .. } => Some(*stamp),
            Self::Failed(_) => None,
        }
    }
}

impl Stamp {
    /// Returns the stamp of the file now.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path)
            .ok()
            .map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let number = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let number = None;
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            number,
        }
    }
}

fn read(path: &Path) -> io::Result<(Stamp, String)> {
    // Checked before the file is opened, because opening a pipe waits for its writer.
    checked(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    checked(&metadata)?;
    let mut bytes = Vec::new();
    file.take(MAX_LENGTH + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LENGTH {
        return Err(too_long());
    }
    let no_text = |_| io::Error::new(ErrorKind::InvalidData, "it is no UTF-8 text");
    let text = String::from_utf8(bytes).map_err(no_text)?;
    Ok((Stamp::from(&metadata), text))
}

/// Checks what kind of file it is.
///
/// # Errors
/// It is not a regular file, or longer than settings may be.
fn checked(metadata: &Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        let error = "it is no regular file, but a folder, a pipe or a device";
        return Err(io::Error::new(ErrorKind::InvalidInput, error));
    }
    if metadata.len() > MAX_LENGTH {
        return Err(too_long());
    }
    Ok(())
}

fn too_long() -> io::Error {
    let error = "it is longer than 1 MiB, which no settings are";
    io::Error::new(ErrorKind::InvalidInput, error)
}

/// Returns whether a text holds nothing. An editor that empties a file before it writes it leaves
/// such a text for a moment. Formats begin their comments with `#`, `;` or `//`, and YAML documents
/// with `---`.
pub(super) fn is_blank(text: &str) -> bool {
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    lines.all(|line| {
        line.is_empty() || line == "---" || ["#", ";", "//"].iter().any(|at| line.starts_with(at))
    })
}

/// The longest file: far more than settings need, and cheap to hold twice.
const MAX_LENGTH: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_comments_alone_is_blank() {
        for blank in [
            "",
            " \n\t\n",
            "# a\n\n  # b",
            "---\n",
            "; a",
            "// a\r\n",
            "\u{feff}# a",
        ] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for text in ["a = 1", "# a\nb: 2", "{}", "[retry]", "--- a"] {
            assert!(!is_blank(text), "{text:?}");
        }
    }
}
