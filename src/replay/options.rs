//! The options for reading logs.

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
    /// Detected from the first lines of each file: a recording, CSV, Envoy's default format, or
    /// nginx's `combined` with times appended.
    #[default]
    Auto,
    /// nginx's, given the text of its `log_format`.
    Nginx(String),
    /// Envoy's, given the text of its `text_format`.
    Envoy(String),
    /// CSV, whose first line names the columns.
    Csv,
}

/// The options for reading logs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogOptions {
    /// The format. Default [`Format::Auto`].
    pub format: Format,
    /// The zone of times without a zone, in seconds east of Greenwich. Default 0.
    pub zone: i64,
    /// The variable, operator or column that holds a call's key. A log without it is an error.
    /// Default: nginx's `$remote_addr`, Envoy's `REQ(X-FORWARDED-FOR)` or
    /// `DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT`, in CSV `key`, `tenant`, `client` or `remote_addr`.
    /// Of two in a format the last counts.
    pub key: Option<String>,
    /// The variable, operator or column that holds a call's host. A log without it is an error.
    /// Default: nginx's `$upstream_addr` or `$host`, Envoy's `UPSTREAM_HOST` or `UPSTREAM_CLUSTER`,
    /// in CSV `host`, `upstream` or `upstream_host`. Of two in a format the last counts.
    pub host: Option<String>,
    /// If true, upstream durations are used if there are any. Default `false`: durations of the
    /// whole call, for which it holds a permit.
    pub upstream_times: bool,
    /// The number of broken lines that are kept to show. Default 5.
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

    /// Parses `auto`, `csv`, `envoy`, `nginx`, or one of the last two with its format: `nginx:$msec
    /// ..`.
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
    /// Sets the zone of times without a zone, such as `+02:00`.
    ///
    /// # Errors
    /// A text that is not a zone.
    pub fn set_zone(&mut self, text: &str) -> Result<(), String> {
        let zone = moments::offset(text);
        self.zone = zone.ok_or_else(|| format!("`{text}` is no zone: use +02:00, say"))?;
        Ok(())
    }
}

pub(super) fn invalid(words: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, words)
}
