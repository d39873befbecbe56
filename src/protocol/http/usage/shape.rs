//! Where a usage stands in an answer, as data.

use std::{borrow::Cow, fmt, sync::Arc};

/// The units that an answer has used, as far as it tells. Each is a total so far, of the whole
/// answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The tokens of the prompt, as the provider counts them. OpenAI counts cached ones in,
    /// Anthropic does not.
    pub input: Option<u64>,
    /// The tokens of the answer.
    pub output: Option<u64>,
    /// The tokens of the prompt that were read from a cache.
    pub cached: Option<u64>,
    /// The tokens of the prompt that were written to a cache.
    pub cache_written: Option<u64>,
    /// The tokens of the answer that nobody sees: of its reasoning.
    pub reasoning: Option<u64>,
    /// The cost, in millionths of a unit of money, from a closure. No shape here reads it.
    pub money: Option<u64>,
}

/// A field of a [`Usage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UsageField {
    /// [`Usage::input`].
    Input,
    /// [`Usage::output`].
    Output,
    /// [`Usage::cached`].
    Cached,
    /// [`Usage::cache_written`].
    CacheWritten,
    /// [`Usage::reasoning`].
    Reasoning,
    /// [`Usage::money`].
    Money,
}

/// One event of a stream, or a whole body, as a closure reads it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The event's name, empty if it has none, and of a body that is no stream.
    pub name: &'a [u8],
    /// The event's data, lines joined by line feeds, or the body.
    pub data: &'a [u8],
}

/// The shape of a provider's answers: where a usage stands in them, what is an error, and what is
/// the end of a stream.
///
/// Paths are keys with points between them, at most four. Keys of more than 40 bytes and values
/// within arrays have none.
///
/// ```
/// use tower_keep::protocol::http::usage::{self, UsageField};
///
/// // A server of the same dialect that counts what a cache has saved elsewhere.
/// let shape = usage::openai().field("usage.saved_tokens", UsageField::Cached);
/// # let _ = shape;
/// ```
#[derive(Clone)]
pub struct Shape {
    pub(super) fields: Vec<(Cow<'static, str>, UsageField)>,
    /// Paths at which an object is an error.
    pub(super) errors: Vec<Cow<'static, str>>,
    /// Names of events that are one.
    pub(super) error_events: Vec<Cow<'static, str>>,
    /// Names of events with which a stream is complete.
    pub(super) last_events: Vec<Cow<'static, str>>,
    /// Data with which it is.
    pub(super) last_data: Option<Cow<'static, str>>,
    pub(super) closure: Option<ReadEvent>,
    /// The most bytes of an event that are kept for the closure.
    pub(super) max_event: usize,
}

type ReadEvent = Arc<dyn Fn(Event<'_>) -> Option<Usage> + Send + Sync>;

impl Usage {
    /// Takes over what another says. Totals only rise, so of two the larger is the later one: some
    /// servers send a 0 again in the last event.
    pub fn merge(&mut self, other: Self) {
        for (own, other) in [
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cached, other.cached),
            (&mut self.cache_written, other.cache_written),
            (&mut self.reasoning, other.reasoning),
            (&mut self.money, other.money),
        ] {
            *own = (*own).max(other);
        }
    }

    pub(super) fn set(&mut self, field: UsageField, units: u64) {
        let place = match field {
            UsageField::Input => &mut self.input,
            UsageField::Output => &mut self.output,
            UsageField::Cached => &mut self.cached,
            UsageField::CacheWritten => &mut self.cache_written,
            UsageField::Reasoning => &mut self.reasoning,
            UsageField::Money => &mut self.money,
        };
        *place = (*place).max(Some(units));
    }
}

impl Shape {
    /// A shape of which nothing is known: its answers have no usage, no error and no end but that
    /// of the body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            fields: Vec::new(),
            errors: Vec::new(),
            error_events: Vec::new(),
            last_events: Vec::new(),
            last_data: None,
            closure: None,
            max_event: 64 * 1024,
        }
    }

    /// Reads the usage by a closure, in place of paths: it is asked about each event with data, and
    /// about a body that is no stream at its end. What it says several times is
    /// [merged](Usage::merge).
    ///
    /// Events of up to [`max_event`](Self::max_event) bytes are kept for it. It is not asked about
    /// longer ones, which [`Report::overlong`](super::Report::overlong) counts.
    #[must_use]
    pub fn by<F>(read: F) -> Self
    where
        F: Fn(Event<'_>) -> Option<Usage> + Send + Sync + 'static,
    {
        Self {
            closure: Some(Arc::new(read)),
            ..Self::new()
        }
    }

    /// Sets how many bytes of an event, or of a body that is no stream, are kept for a closure.
    /// Default 64 KiB. Paths need none.
    #[must_use]
    pub fn max_event(mut self, bytes: usize) -> Self {
        self.max_event = bytes;
        self
    }

    /// Adds a path at which a number is a field of the usage.
    #[must_use]
    pub fn field(mut self, path: impl Into<Cow<'static, str>>, field: UsageField) -> Self {
        self.fields.push((path.into(), field));
        self
    }

    /// Adds a path at which an object means that the answer is an error, whatever its status.
    #[must_use]
    pub fn error(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.errors.push(path.into());
        self
    }

    /// Adds the name of an event that means so.
    #[must_use]
    pub fn error_event(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.error_events.push(name.into());
        self
    }

    /// Adds the name of an event with which a stream is complete.
    #[must_use]
    pub fn last_event(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.last_events.push(name.into());
        self
    }

    /// Sets the data with which a stream is complete, of at most 40 bytes.
    #[must_use]
    pub fn last_data(mut self, data: impl Into<Cow<'static, str>>) -> Self {
        self.last_data = Some(data.into());
        self
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shape")
            .field("fields", &self.fields)
            .field("errors", &self.errors)
            .field("closure", &self.closure.is_some())
            .finish_non_exhaustive()
    }
}

/// OpenAI's shapes, which many servers speak.
///
/// Chat completions tell `usage.prompt_tokens` and `usage.completion_tokens`: in the last event but
/// one if `stream_options.include_usage` was asked for, and from some servers in each. Responses
/// tell `usage.input_tokens` and `response.usage.input_tokens`. An object `error` is an error, and
/// `[DONE]` the end.
#[must_use]
pub fn openai() -> Shape {
    let mut shape = Shape::new()
        .field("usage.prompt_tokens", UsageField::Input)
        .field("usage.completion_tokens", UsageField::Output)
        .field(
            "usage.prompt_tokens_details.cached_tokens",
            UsageField::Cached,
        )
        .field(
            "usage.completion_tokens_details.reasoning_tokens",
            UsageField::Reasoning,
        );
    for usage in ["usage", "response.usage"] {
        shape = shape
            .field(format!("{usage}.input_tokens"), UsageField::Input)
            .field(format!("{usage}.output_tokens"), UsageField::Output)
            .field(
                format!("{usage}.input_tokens_details.cached_tokens"),
                UsageField::Cached,
            )
            .field(
                format!("{usage}.output_tokens_details.reasoning_tokens"),
                UsageField::Reasoning,
            );
    }
    shape
        .error("error")
        .error("response.error")
        .error_event("error")
        .error_event("response.failed")
        .last_event("response.completed")
        .last_event("response.incomplete")
        .last_data("[DONE]")
}

/// Anthropic's shapes.
///
/// In a stream `message.usage` of the first event has the input, and `usage` of later ones the
/// output so far. In a body that is no stream `usage` has both. An event named `error` is an error,
/// also within a 200, and `message_stop` the end.
#[must_use]
pub fn anthropic() -> Shape {
    let mut shape = Shape::new();
    for usage in ["usage", "message.usage"] {
        shape = shape
            .field(format!("{usage}.input_tokens"), UsageField::Input)
            .field(format!("{usage}.output_tokens"), UsageField::Output)
            .field(
                format!("{usage}.cache_read_input_tokens"),
                UsageField::Cached,
            )
            .field(
                format!("{usage}.cache_creation_input_tokens"),
                UsageField::CacheWritten,
            );
    }
    shape
        .error("error")
        .error_event("error")
        .last_event("message_stop")
}
