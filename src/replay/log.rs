//! Logs of any format, read as calls.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

use crate::replay::{
    call::{Call, End, folded},
    fields::{self, LogContext},
    lines::{Lines, Parser, detect},
    options::{LogOptions, invalid},
    recording::{Entry, HEAD, is_recording, next_entry},
    sorted::{Calls, Sorter},
};

/// A log that was read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Log {
    /// The calls, in the order of their starts.
    pub calls: Calls,
    /// The counts of its lines.
    pub lines: LineCounts,
    /// The texts of keys, by their hashes: the first twenty thousand.
    pub keys: HashMap<u64, String>,
    /// The texts of hosts, by their hashes.
    pub hosts: HashMap<u32, String>,
}

/// The counts of a log's lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LineCounts {
    /// All lines, except empty ones and comments.
    pub read: u64,
    /// The lines that are not a call.
    pub broken: u64,
    /// The first of these lines.
    pub first_broken: Vec<BrokenLine>,
    /// The calls that were already rejected.
    pub rejected: u64,
    /// The calls with a time of whole seconds.
    pub coarse: u64,
    /// The calls that a recorder has lost.
    pub lost: u64,
    /// The files, and the format of each.
    pub formats: Vec<(String, String)>,
}

/// A line that is not a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokenLine {
    /// The file.
    pub file: String,
    /// The number of the line, from 1.
    pub number: u64,
    /// The reason.
    pub why: String,
    /// The line, or its beginning.
    pub text: String,
}

/// The progress of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The bytes of files that were read.
    pub bytes: u64,
    /// The bytes of all files, or 0 if that is unknown.
    pub of: u64,
    /// The calls so far.
    pub calls: u64,
}

impl Log {
    /// Makes a log of these calls, without texts.
    #[must_use]
    pub fn of(calls: Calls) -> Self {
        let read = calls.count();
        Self {
            calls,
            lines: LineCounts {
                read,
                ..LineCounts::default()
            },
            keys: HashMap::new(),
            hosts: HashMap::new(),
        }
    }

    /// Reads files, in any order. `-` is the standard input. Files may be compressed with gzip.
    ///
    /// ```
    /// use tower_keep::replay::{Log, LogOptions};
    ///
    /// # let path = std::env::temp_dir().join(format!("doc-{}.csv", std::process::id()));
    /// std::fs::write(&path, "start,duration_ms,status\n1796062128.5,20,200\n")?;
    /// let log = Log::read([&path], &LogOptions::default(), &mut |_| {})?;
    /// assert_eq!(log.calls.count(), 1);
    /// # std::fs::remove_file(path)?;
    /// # Ok::<_, std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// A file cannot be opened, a format lacks what a replay needs, or there is no call. The error
    /// says what to add. Lines that cannot be read are no error: they are counted.
    pub fn read(
        paths: impl IntoIterator<Item = impl AsRef<Path>>,
        options: &LogOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> io::Result<Self> {
        let paths: Vec<_> = paths
            .into_iter()
            .map(|path| path.as_ref().to_owned())
            .collect();
        let sizes = paths
            .iter()
            .map(|path| path.metadata().map_or(0, |data| data.len()));
        let mut reader = Reader {
            options,
            progress,
            sorter: Sorter::new(options.in_memory, &options.temporary),
            lines: LineCounts::default(),
            keys: HashMap::new(),
            hosts: HashMap::new(),
            bytes: Arc::default(),
            of: sizes.sum(),
            calls: 0,
        };
        for path in &paths {
            reader.file(path).map_err(|error| named(path, &error))?;
        }
        reader.finish()
    }
}

struct Reader<'a> {
    options: &'a LogOptions,
    progress: &'a mut dyn FnMut(Progress),
    sorter: Sorter,
    lines: LineCounts,
    keys: HashMap<u64, String>,
    hosts: HashMap<u32, String>,
    bytes: Arc<AtomicU64>,
    of: u64,
    calls: u64,
}

/// A reader that counts the bytes of a file.
struct CountingReader<R>(R, Arc<AtomicU64>);

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(into)?;
        // Relaxed: for a progress bar.
        self.1.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Reader<'_> {
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let raw: Box<dyn Read> = match path.to_str() {
            Some("-") => Box::new(io::stdin()),
            _ => Box::new(File::open(path)?),
        };
        let mut raw = BufReader::with_capacity(BUFFER, CountingReader(raw, self.bytes.clone()));
        let start = raw.fill_buf()?;
        if start.starts_with(b"\x28\xb5\x2f\xfd") {
            return Err(invalid(
                "is compressed by zstd: `zstd -dc FILE | what_if -`",
            ));
        }
        if start.starts_with(b"\x1f\x8b") {
            let plain = BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw));
            self.plain(path, plain)
        } else {
            self.plain(path, raw)
        }
    }

    fn plain(&mut self, path: &Path, mut file: impl BufRead) -> io::Result<()> {
        let name = path.display().to_string();
        let mut start = Vec::new();
        // A truncated file: the part that was read counts.
        let torn = match file.by_ref().take(SAMPLE).read_to_end(&mut start) {
            Err(error) if !start.is_empty() => Some(error.to_string()),
            Err(error) => return Err(error),
            Ok(_) => None,
        };
        let rest = file.take(if torn.is_some() { 0 } else { u64::MAX });
        let whole = Cursor::new(&start).chain(rest);
        if is_recording(&start) {
            self.lines.formats.push((name.clone(), "recording".into()));
            self.recording(&name, whole)?;
        } else {
            let (parser, format) = detect(self.options, &start)?;
            self.lines.formats.push((name.clone(), format));
            self.text(&name, whole, &parser)?;
        }
        if let Some(error) = torn {
            self.broken(&name, 0, &error, b"");
        }
        Ok(())
    }

    fn recording(&mut self, name: &str, file: impl Read) -> io::Result<()> {
        let mut file = BufReader::with_capacity(BUFFER, file);
        file.read_exact(&mut [0; HEAD.len()])?;
        for number in 1.. {
            match next_entry(&mut file) {
                Ok(None) => return Ok(()),
                Ok(Some(Entry::Call(call))) => {
                    self.lines.read += 1;
                    self.take(call)?;
                }
                Ok(Some(Entry::Lost(count))) => self.lines.lost += count,
                Ok(Some(Entry::Broken)) => {
                    self.lines.read += 1;
                    self.broken(name, number, "an entry that is no call", b"");
                }
                Err(error) => {
                    self.broken(name, number, &error.to_string(), b"");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, name: &str, file: impl BufRead, parser: &Parser) -> io::Result<()> {
        let reading = LogContext {
            zone: self.options.zone,
            upstream_times: self.options.upstream_times,
        };
        let mut lines = Lines::new(file);
        loop {
            let line = match lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                // A truncated file: the part that was read counts.
                Err(error) => {
                    let number = lines.number();
                    self.broken(name, number, &error.to_string(), b"");
                    return Ok(());
                }
            };
            if line.is_head && parser.has_head() || line.is_blank() {
                continue;
            }
            self.lines.read += 1;
            let (number, text) = (line.number, String::from_utf8_lossy(line.bytes));
            let scatter = number ^ fields::hash(Some(name));
            let mut noted = (None, None);
            let call = match line.is_cut {
                true => Err("a line of more than 64 KiB"),
                false => parser.call(&text, reading, scatter, &mut |key, host| {
                    noted = (self.new_key(key), self.new_host(host));
                }),
            };
            match call {
                Ok(call) => {
                    self.keys.extend(noted.0);
                    self.hosts.extend(noted.1);
                    self.take(call)?;
                }
                Err(why) => {
                    let bytes = line.bytes.to_vec();
                    self.broken(name, number, why, &bytes);
                }
            }
        }
    }

    fn new_key(&self, key: Option<&str>) -> Option<(u64, String)> {
        let hash = fields::hash(key);
        let is_new = hash != 0 && self.keys.len() < NAMES && !self.keys.contains_key(&hash);
        is_new.then(|| (hash, key.unwrap_or_default().to_owned()))
    }

    fn new_host(&self, host: Option<&str>) -> Option<(u32, String)> {
        let hash = folded(fields::hash(host));
        let is_new = hash != 0 && self.hosts.len() < NAMES && !self.hosts.contains_key(&hash);
        is_new.then(|| (hash, host.unwrap_or_default().to_owned()))
    }

    fn take(&mut self, call: Call) -> io::Result<()> {
        self.lines.rejected += u64::from(call.end == End::Rejected);
        self.lines.coarse += u64::from(call.is_coarse);
        self.calls += 1;
        if self.calls % 65_536 == 0 {
            (self.progress)(Progress {
                bytes: self.bytes.load(Ordering::Relaxed),
                of: self.of,
                calls: self.calls,
            });
        }
        self.sorter.push(call)
    }

    fn broken(&mut self, file: &str, number: u64, why: &str, text: &[u8]) {
        self.lines.broken += 1;
        if self.lines.first_broken.len() < self.options.show_broken {
            let text = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]);
            // Control characters are removed, so that the text cannot move a terminal's cursor.
            let text = text
                .chars()
                .map(|letter| if letter.is_control() { '?' } else { letter });
            self.lines.first_broken.push(BrokenLine {
                file: file.to_owned(),
                number,
                why: why.to_owned(),
                text: text.collect(),
            });
        }
    }

    fn finish(self) -> io::Result<Log> {
        if self.calls == 0 {
            let mut words = "there is no call in it".to_owned();
            for line in &self.lines.first_broken {
                words = format!("{words}\n  {line}");
            }
            return Err(invalid(&words));
        }
        Ok(Log {
            calls: self.sorter.finish()?,
            lines: self.lines,
            keys: self.keys,
            hosts: self.hosts,
        })
    }
}

impl fmt::Display for BrokenLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            number,
            why,
            text,
        } = self;
        write!(f, "{file}:{number}: {why}: {text}")
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

const BUFFER: usize = 1 << 17;
/// The bytes of a file that are used to detect its format.
const SAMPLE: u64 = 1 << 17;
const SHOWN: usize = 200;
const NAMES: usize = 20_000;
