//! The lines of a text, and the parser that fits them.

use std::io::{self, BufRead, ErrorKind};

use crate::replay::{
    call::Call,
    csv::Columns,
    fields::{Chosen, LogContext, Values},
    options::{Format, LogOptions, invalid},
    template::{COMBINED, ENVOY, Template},
};

/// Lines of bytes, none of which takes more than 64 KiB of memory.
pub(super) struct Lines<R> {
    file: R,
    line: Vec<u8>,
    number: u64,
}

/// One line.
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) number: u64,
    /// If true, it is the first line.
    pub(super) is_head: bool,
    /// If true, it was longer and was cut.
    pub(super) is_cut: bool,
}

/// A reader of lines of one format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parser {
    Template(Template),
    Csv(Columns),
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(file: R) -> Self {
        Self {
            file,
            line: Vec::new(),
            number: 0,
        }
    }

    /// Returns the number of the last line read.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let (mut is_cut, mut is_any) = (false, false);
        loop {
            let part = match self.file.fill_buf() {
                Ok(part) => part,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = part.iter().position(|byte| *byte == b'\n');
            let (taken, used) = match end {
                Some(end) => (&part[..end], end + 1),
                None => (part, part.len()),
            };
            is_any |= used > 0;
            let room = LONGEST.saturating_sub(self.line.len()).min(taken.len());
            is_cut |= room < taken.len();
            self.line.extend_from_slice(&taken[..room]);
            self.file.consume(used);
            if end.is_some() || used == 0 {
                break;
            }
        }
        if !is_any {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Line {
            bytes: self.line.strip_suffix(b"\r").unwrap_or(&self.line),
            number: self.number,
            is_head: self.number == 1,
            is_cut,
        }))
    }
}

impl Line<'_> {
    /// Returns whether the line is empty or a comment.
    pub(super) fn is_blank(&self) -> bool {
        self.bytes.iter().all(u8::is_ascii_whitespace) || self.bytes.starts_with(b"#")
    }
}

impl Parser {
    pub(super) fn has_head(&self) -> bool {
        matches!(self, Self::Csv(_))
    }

    /// Returns the call of a line. `note` receives its key and its host.
    pub(super) fn call(
        &self,
        line: &str,
        reading: LogContext,
        number: u64,
        note: &mut dyn FnMut(Option<&str>, Option<&str>),
    ) -> Result<Call, &'static str> {
        let mut make = |values: Values<'_>| {
            let call = values.call(reading, number)?;
            note(values.key, values.host);
            Ok(call)
        };
        match self {
            Self::Template(template) => {
                make(template.read(line).ok_or("a line of another format")?)
            }
            Self::Csv(columns) => {
                let parts = columns.split(line);
                make(columns.read(&parts).ok_or("too few columns")?)
            }
        }
    }
}

/// Returns the parser for a file that begins like this, and its name.
///
/// # Errors
/// The format lacks something, also a key or a host that was chosen, or is unknown.
pub(super) fn detect(options: &LogOptions, start: &[u8]) -> io::Result<(Parser, String)> {
    let chosen = Chosen {
        key: options.key.as_deref(),
        host: options.host.as_deref(),
    };
    let text = String::from_utf8_lossy(start);
    let head = text.lines().next().unwrap_or_default();
    let found = match &options.format {
        Format::Nginx(format) => checked(Template::nginx(format, chosen), "nginx"),
        Format::Envoy(format) => checked(Template::envoy(format, chosen), "envoy"),
        Format::Csv => match Columns::new(head, chosen) {
            Some(columns) => csv(columns),
            None => Err(invalid(&format!("its first line names no time: {CSV}"))),
        },
        Format::Auto => match Columns::new(head, chosen) {
            Some(columns) => csv(columns),
            None => guessed(&text, chosen),
        },
    };
    let (parser, name) = found?;
    let names = match &parser {
        Parser::Template(template) => template.names(),
        Parser::Csv(columns) => columns.names(),
    };
    match chosen.check(&names) {
        Ok(()) => Ok((parser, name)),
        Err(error) => Err(invalid(&error)),
    }
}

fn csv(columns: Columns) -> io::Result<(Parser, String)> {
    match columns.lacks() {
        Some(what) => Err(invalid(&format!(
            "its first line names no {}: {CSV}",
            &what[2..]
        ))),
        None => Ok((Parser::Csv(columns), "csv".into())),
    }
}

fn checked(template: Template, name: &str) -> io::Result<(Parser, String)> {
    match (template.lacks(), name) {
        (None, _) => Ok((Parser::Template(template), name.into())),
        (Some(what), "nginx") => Err(invalid(&format!("its format lacks {what}. {NGINX}"))),
        (Some(what), _) => Err(invalid(&format!("its format lacks {what}. {ENVOY_LACKS}"))),
    }
}

/// Returns the known format that reads most of the first lines.
fn guessed(text: &str, chosen: Chosen<'_>) -> io::Result<(Parser, String)> {
    let mut known = vec![("envoy".to_owned(), Template::envoy(ENVOY, chosen))];
    for tail in TAILS {
        let format = format!("{COMBINED}{tail}");
        let name = format!("nginx: combined{tail}");
        known.push((name, Template::nginx(&format, chosen)));
    }
    let lines: Vec<_> = text.lines().take(200).collect();
    let reads = |template: &Template| {
        let calls = lines.iter().filter(|line| {
            let values = template.read(line);
            values.is_some_and(|values| values.call(LogContext::default(), 0).is_ok())
        });
        calls.count()
    };
    let scores = known
        .into_iter()
        .map(|(name, template)| (reads(&template), name, template));
    // Of equal scores the last format wins, which has more fields.
    let best = scores.max_by_key(|(score, ..)| *score);
    if let Some((1.., name, template)) = best {
        return Ok((Parser::Template(template), name));
    }
    let combined = Template::nginx(COMBINED, chosen);
    if lines.iter().any(|line| combined.read(line).is_some()) {
        return Err(invalid(&format!("its lines have no duration. {NGINX}")));
    }
    if text.trim_start().starts_with('{') {
        return Err(invalid(JSON));
    }
    Err(invalid(UNKNOWN))
}

const LONGEST: usize = 1 << 16;
/// The fields often appended to nginx's `combined`. Later entries have more of them.
const TAILS: [&str; 6] = [
    " $request_time",
    " \"$http_x_forwarded_for\" $request_time",
    " $request_time $upstream_response_time",
    " \"$http_x_forwarded_for\" $request_time $upstream_response_time",
    " $request_time $upstream_response_time $upstream_addr $upstream_status",
    " rt=$request_time urt=$upstream_response_time",
];
const CSV: &str = "it should be like `start,duration_ms,status,key,host,cost`";
const NGINX: &str = "In nginx, add what is missing to `log_format`: a time (`$msec` is the finest), \
    `$request_time`, `$status`, and best also `$upstream_status`, which tells rejections from \
    answers, and `$upstream_addr`. Then give that text: --format 'nginx:$msec $request_time ..'";
const ENVOY_LACKS: &str = "In Envoy, use %START_TIME%, %DURATION%, %RESPONSE_CODE% and, to tell \
    rejections from answers, %RESPONSE_FLAGS%. Then give that text: --format 'envoy:%START_TIME% ..'";
const JSON: &str = "it is JSON: make CSV of it, such as by \
    jq -r '[.time, .duration, .status] | @csv', with a first line `start,duration_s,status`";
const UNKNOWN: &str = "its format is not known: give nginx's or Envoy's own text of it, as \
    --format 'nginx:$remote_addr [$time_local] $status $request_time', or CSV with a head line";
