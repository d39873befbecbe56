//! The way in which logs are read.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
    str::FromStr,
};

use crate::replay::moments;

/// The format of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// Found out from the first lines of each file: a recording, CSV, Envoy's own format, or
    /// nginx's `combined` with times after it.
    #[default]
    Auto,
    /// nginx's, by the text of its `log_format`.
    Nginx(String),
    /// Envoy's, by the text of its `text_format`.
    Envoy(String),
    /// CSV, whose first line names the columns.
    Csv,
}

/// The way in which logs are read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogOptions {
    /// The format. Default [`Format::Auto`].
    pub format: Format,
    /// The zone of times that have none, in seconds east of Greenwich. Default 0.
    pub zone: i64,
    /// The variable, or operator, that is a call's key. Default: the client's address.
    pub key: Option<String>,
    /// The variable, or operator, that is a call's host. Default: the upstream's address.
    pub host: Option<String>,
    /// If true, durations are those of the upstream alone, where there are any. Default `false`:
    /// those of the whole call, for as long as it holds a place.
    pub upstream_times: bool,
    /// The number of broken lines that are kept to be shown. Default 5.
    pub show_broken: usize,
    /// The number of calls that are sorted in memory. Default 1 048 576, of 40 bytes.
    pub in_memory: usize,
    /// The folder of temporary files. Default: the system's.
    pub temporary: PathBuf,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            zone: 0,
            key: None,
            host: None,
            upstream_times: false,
            show_broken: 5,
            in_memory: 1 << 20,
            temporary: std::env::temp_dir(),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    /// `auto`, `csv`, `envoy`, `nginx`, or one of the latter with its format: `nginx:$msec ..`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, format) = text.split_once(':').unwrap_or((text, ""));
        match (kind, format) {
            ("auto", "") | ("envoy" | "nginx", "") => Ok(Self::Auto),
            ("csv", "") => Ok(Self::Csv),
            ("nginx", format) => Ok(Self::Nginx(format.to_owned())),
            ("envoy", format) => Ok(Self::Envoy(format.to_owned())),
            _ => Err(format!(
                "`{text}` is no format: use auto, csv, nginx:LOG_FORMAT or envoy:TEXT_FORMAT"
            )),
        }
    }
}

impl LogOptions {
    /// Sets the zone of times that have none, such as `+02:00`.
    ///
    /// # Errors
    /// A text that is no zone.
    pub fn set_zone(&mut self, text: &str) -> Result<(), String> {
        let zone = moments::offset(text);
        self.zone = zone.ok_or_else(|| format!("`{text}` is no zone: use +02:00, say"))?;
        Ok(())
    }
}

pub(super) fn invalid(words: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, words)
}
