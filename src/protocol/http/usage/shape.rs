//! The places of a usage in a response, described by data.

use std::{borrow::Cow, fmt, sync::Arc};

/// Units that a response has used, as far as it reports them. Each is a total so far, for the whole
/// response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The tokens of the prompt, as the provider counts them. OpenAI includes cached ones,
    /// Anthropic does not.
    pub input: Option<u64>,
    /// The tokens of the answer.
    pub output: Option<u64>,
    /// The tokens of the prompt that were read from a cache.
    pub cached: Option<u64>,
    /// The tokens of the prompt that were written to a cache.
    pub cache_written: Option<u64>,
    /// The hidden tokens of the answer, used for its reasoning.
    pub reasoning: Option<u64>,
    /// The cost, in millionths of a currency unit, from a closure. No ready-made shape reads it.
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
    /// The event's name. Empty if it has none, and for a body that is not a stream.
    pub name: &'a [u8],
    /// The event's data, with its lines joined by line feeds, or the body.
    pub data: &'a [u8],
}

/// The shape of a provider's responses: the places of a usage, an error, and the end of a stream.
///
/// Paths are keys joined by dots, at most four. Keys of more than 40 bytes and values within arrays
/// have no path.
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
    /// Paths at which an object or a text is an error.
    pub(super) errors: Vec<Cow<'static, str>>,
    /// Names of events that are errors.
    pub(super) error_events: Vec<Cow<'static, str>>,
    /// Names of events that end a stream.
    pub(super) last_events: Vec<Cow<'static, str>>,
    /// Data that ends a stream.
    pub(super) last_data: Option<Cow<'static, str>>,
    pub(super) closure: Option<ReadEvent>,
    /// The most bytes of an event that are kept for the closure.
    pub(super) max_event: usize,
}

type ReadEvent = Arc<dyn Fn(Event<'_>) -> Option<Usage> + Send + Sync>;

impl Usage {
    /// Merges another report into this one. Totals only rise, so the larger of two is the later
    /// one: some servers send a 0 again in the last event.
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
    /// Creates an empty shape. It finds no usage, no error, and no end but that of the body.
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

    /// Reads the usage with a closure, in place of paths. It is called for each event with data, or
    /// at the end of a body that is not a stream. Several reports are [merged](Usage::merge).
    ///
    /// Events of up to [`max_event`](Self::max_event) bytes are kept for it. It is not called for
    /// longer ones, which [`UsageReport::overlong`](super::UsageReport::overlong) counts.
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

    /// Sets the most bytes of an event, or of a body that is not a stream, that are kept for a
    /// closure. Default 64 KiB. Paths need none.
    #[must_use]
    pub fn max_event(mut self, bytes: usize) -> Self {
        self.max_event = bytes;
        self
    }

    /// Adds a path at which a number is a field of the usage. A number above 2^53 is not read.
    #[must_use]
    pub fn field(mut self, path: impl Into<Cow<'static, str>>, field: UsageField) -> Self {
        self.fields.push((path.into(), field));
        self
    }

    /// Adds a path at which an object, or a text, marks the response as an error, whatever its
    /// status. An empty text does not.
    #[must_use]
    pub fn error(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.errors.push(path.into());
        self
    }

    /// Adds the name of an event that marks the response as an error. An event without a name has
    /// the `type` in its data as its name.
    #[must_use]
    pub fn error_event(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.error_events.push(name.into());
        self
    }

    /// Adds the name of an event that ends a stream. An event without a name has the `type` in its
    /// data as its name.
    #[must_use]
    pub fn last_event(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.last_events.push(name.into());
        self
    }

    /// Sets the data that ends a stream, at most 40 bytes.
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

/// Returns the shape of OpenAI's API, which many other servers use too.
///
/// Chat completions report `usage.prompt_tokens` and `usage.completion_tokens`: in the last event
/// but one if the request has `stream_options.include_usage`, and from some servers in each event.
/// Responses report `usage.input_tokens` and `response.usage.input_tokens`. An object or a text
/// `error` is an error, and `[DONE]` is the end.
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

/// Returns the shape of Anthropic's API.
///
/// In a stream, `message.usage` of the first event has the input, and `usage` of later events has
/// the output so far. In a body that is not a stream, `usage` has both. An event named `error` is
/// an error, also within a 200, and `message_stop` is the end.
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
