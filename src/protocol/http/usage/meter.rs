//! The reading of a body as it passes.

use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use super::{
    events::{Events, Piece},
    json::{Found, Key, Scanner, is_at},
    shape::{Event, Shape, Usage},
};

/// The report on a response, after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageReport {
    /// Units that the response has used, as far as it reported them before its end. `None` if it
    /// reported none: then the estimate that was taken is the best known value.
    pub usage: Option<Usage>,
    /// The kind of its end.
    pub end: End,
    /// Bytes of its body that were passed on.
    pub bytes: u64,
    /// The reason why it was not read, if it was not.
    pub unread: Option<Unread>,
    /// Events that were too long for a closure.
    pub overlong: u64,
}

/// The end of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The last event, or the end of the body.
    Complete,
    /// An error of the provider within the response, whatever its status.
    ErrorEvent,
    /// A failure of the body, or the end of a stream before its last event.
    Cut,
    /// A reader that dropped the body, or a caller that dropped the call before its response.
    Left,
    /// A call that failed, or was rejected further inside, without a response.
    Failed,
}

/// The reason why a response was passed on unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unread {
    /// Compression. Put a layer that decompresses inside, or request none.
    Compressed,
    /// A content type that is neither a stream of events nor JSON.
    OtherType,
}

/// The form that a body is read in.
#[derive(Debug)]
enum Form {
    Stream(Box<Events>),
    Json,
    Unread(Unread),
}

#[derive(Debug)]
pub(super) struct Meter {
    shape: Shape,
    form: Form,
    scanner: Box<Scanner>,
    /// The start of this event's name: enough to recognize the last event and an error.
    name: Start,
    data: Start,
    /// The data of this event, for a closure.
    kept: Vec<u8>,
    is_overlong: bool,
    values: JsonValues,
    bytes: u64,
    overlong: u64,
}

/// The values found in JSON.
#[derive(Debug)]
struct JsonValues {
    usage: Option<Usage>,
    has_failed: bool,
    /// The start of this event's `type`, which is the name of an event that has no other.
    kind: Start,
}

/// The start of a text.
#[derive(Debug, Clone, Copy)]
struct Start {
    bytes: [u8; LONGEST],
    length: usize,
}

impl UsageReport {
    pub(super) fn without_response(end: End) -> Self {
        Self {
            usage: None,
            end,
            bytes: 0,
            unread: None,
            overlong: 0,
        }
    }
}

impl Meter {
    pub(super) fn new(shape: Shape, headers: &HeaderMap) -> Self {
        Self {
            shape,
            form: Form::of(headers),
            scanner: Box::default(),
            name: Start::EMPTY,
            data: Start::EMPTY,
            kept: Vec::new(),
            is_overlong: false,
            values: JsonValues {
                usage: None,
                has_failed: false,
                kind: Start::EMPTY,
            },
            bytes: 0,
            overlong: 0,
        }
    }

    /// Reads a part of the body. Returns the end of the response, if this part has it.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<End> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        match std::mem::replace(&mut self.form, Form::Json) {
            Form::Stream(mut events) => {
                let mut end = None;
                events.feed(bytes, |piece| {
                    if end.is_none() {
                        end = self.piece(piece);
                    }
                });
                self.form = Form::Stream(events);
                end
            }
            Form::Json => {
                self.read(bytes);
                None
            }
            unread => {
                self.form = unread;
                None
            }
        }
    }

    /// Reads the end of a body that has not failed. Returns the end of the response.
    pub(super) fn finish(&mut self) -> End {
        match self.form {
            Form::Json => {
                self.end_text();
                self.end_of(true)
            }
            Form::Stream(_) => {
                // Some servers send no empty line after the last event, or not even a line end. An
                // event whose JSON is cut off is not the last one, whatever its name.
                let is_whole = !self.scanner.is_open();
                let end = self.end_event().filter(|_| is_whole);
                let ends = self.shape.last_data.is_some() || !self.shape.last_events.is_empty();
                end.unwrap_or_else(|| self.end_of(!ends))
            }
            Form::Unread(_) => End::Complete,
        }
    }

    pub(super) fn report(&self, end: End) -> UsageReport {
        UsageReport {
            usage: self.values.usage,
            end,
            bytes: self.bytes,
            unread: match self.form {
                Form::Unread(why) => Some(why),
                _ => None,
            },
            overlong: self.overlong,
        }
    }

    fn end_of(&self, is_complete: bool) -> End {
        match (self.values.has_failed, is_complete) {
            (true, _) => End::ErrorEvent,
            (false, true) => End::Complete,
            (false, false) => End::Cut,
        }
    }

    fn piece(&mut self, piece: Piece<'_>) -> Option<End> {
        match piece {
            Piece::NewName => self.name = Start::EMPTY,
            Piece::Name(bytes) => self.name.push(bytes),
            Piece::Data(bytes) => {
                self.data.push(bytes);
                self.read(bytes);
            }
            Piece::End => return self.end_event(),
        }
        None
    }

    fn end_event(&mut self) -> Option<End> {
        if self.data.length > 0 {
            self.end_text();
        }
        let (name, values) = (self.name(), &mut self.values);
        let is = |text: &Start, other: &str| text.get() == Some(other.as_bytes());
        values.has_failed |= self.shape.error_events.iter().any(|error| is(&name, error));
        let by_name = self.shape.last_events.iter().any(|last| is(&name, last));
        let by_data = self.shape.last_data.iter().any(|last| is(&self.data, last));
        (self.name, self.data, values.kind) = (Start::EMPTY, Start::EMPTY, Start::EMPTY);
        (by_name || by_data || values.has_failed).then(|| self.end_of(true))
    }

    /// Returns the name of this event.
    fn name(&self) -> Start {
        match self.name.length {
            0 => self.values.kind,
            _ => self.name,
        }
    }

    /// Reads a part of a JSON text.
    fn read(&mut self, bytes: &[u8]) {
        if self.shape.closure.is_some() {
            let fits = self.kept.len() + bytes.len() <= self.shape.max_event;
            if fits && !self.is_overlong {
                self.kept.extend_from_slice(bytes);
            } else {
                self.is_overlong = true;
            }
        }
        let (shape, values) = (&self.shape, &mut self.values);
        self.scanner
            .feed(bytes, |path, found| values.note(path, found, shape));
    }

    fn end_text(&mut self) {
        let (shape, values) = (&self.shape, &mut self.values);
        self.scanner
            .finish(|path, found| values.note(path, found, shape));
        self.scanner.reset();
        let kept = std::mem::take(&mut self.kept);
        if std::mem::take(&mut self.is_overlong) {
            self.overlong = self.overlong.saturating_add(1);
            return;
        }
        if let Some(read) = &self.shape.closure {
            let name = self.name.get().unwrap_or_default();
            if let Some(told) = read(Event { name, data: &kept }) {
                values.usage.get_or_insert_default().merge(told);
            }
        }
    }
}

impl JsonValues {
    fn note(&mut self, path: &[Key], found: Found<'_>, shape: &Shape) {
        let is_error = || shape.errors.iter().any(|error| is_at(path, error));
        match found {
            Found::Number(units) => {
                let fields = shape.fields.iter().filter(|(at, _)| is_at(path, at));
                for (_, field) in fields {
                    self.usage.get_or_insert_default().set(*field, units);
                }
            }
            Found::Object => self.has_failed |= is_error(),
            Found::Text(text) => {
                self.has_failed |= text != Some(b"") && is_error();
                if is_at(path, "type") {
                    self.kind = Start::EMPTY;
                    self.kind.push(text.unwrap_or_default());
                }
            }
        }
    }
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let encodings = headers.get_all(CONTENT_ENCODING).iter();
        let plain = |value: &http::HeaderValue| {
            let value = value.as_bytes().trim_ascii();
            value.is_empty() || value.eq_ignore_ascii_case(b"identity")
        };
        if !encodings.into_iter().all(plain) {
            return Self::Unread(Unread::Compressed);
        }
        let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        let kind = kind.unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii().to_ascii_lowercase();
        match &*kind {
            b"text/event-stream" => Self::Stream(Box::default()),
            json if json == b"application/json" || json.ends_with(b"+json") => Self::Json,
            _ => Self::Unread(Unread::OtherType),
        }
    }
}

impl Start {
    const EMPTY: Self = Self {
        bytes: [0; LONGEST],
        length: 0,
    };

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().take(LONGEST + 1) {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
            }
            self.length = self.length.saturating_add(1);
        }
    }

    /// Returns the whole text, if it fits.
    fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

/// The longest name, and the longest data, that can mark an end.
const LONGEST: usize = 40;
