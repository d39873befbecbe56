//! The format of an access log, from the text that nginx and Envoy are configured with.

use crate::replay::fields::{Chosen, Field, TimeFormat, Values};

/// A line's format: fields, with text between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A field's meanings, of which most have none, and its name.
    Field(Vec<Field>, String),
}

impl Template {
    /// Parses nginx's `log_format`.
    pub(super) fn nginx(format: &str, chosen: Chosen<'_>) -> Self {
        let mut pieces = Vec::new();
        let mut rest = format;
        while let Some(at) = rest.find('$') {
            push_text(&mut pieces, &rest[..at]);
            rest = &rest[at + 1..];
            let braced = rest.starts_with('{');
            rest = rest.strip_prefix('{').unwrap_or(rest);
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
            let name = &rest[..end];
            rest = &rest[end..];
            if braced {
                rest = rest.strip_prefix('}').unwrap_or(rest);
            }
            let meanings = chosen.meanings(name, nginx_field(name));
            pieces.push(Piece::Field(meanings, name.to_owned()));
        }
        push_text(&mut pieces, rest);
        Self { pieces }
    }

    /// Parses Envoy's `text_format`.
    pub(super) fn envoy(format: &str, chosen: Chosen<'_>) -> Self {
        let mut pieces = Vec::new();
        let mut rest = format.trim_end_matches("\\n").trim_end_matches('\n');
        while let Some(at) = rest.find('%') {
            push_text(&mut pieces, &rest[..at]);
            rest = &rest[at + 1..];
            // `%START_TIME(%s.%3f)%` has a percent sign within its parentheses.
            let end = end_of_operator(rest);
            let name = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or("");
            let meanings = chosen.meanings(name, envoy_field(name));
            pieces.push(Piece::Field(meanings, name.to_owned()));
        }
        push_text(&mut pieces, rest);
        Self { pieces }
    }

    /// Splits a line into values, or `None` if it has another format.
    pub(super) fn read<'a>(&self, line: &'a str) -> Option<Values<'a>> {
        let mut values = Values::default();
        let mut rest = line;
        let mut pieces = self.pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Text(text) => rest = rest.strip_prefix(text.as_str())?,
                Piece::Field(meanings, name) => {
                    let end = match pieces.peek() {
                        Some(Piece::Text(text)) => value_end(rest, text, name)?,
                        Some(Piece::Field(..)) => return None,
                        None => rest.len(),
                    };
                    for field in meanings {
                        values.set(*field, rest[..end].trim());
                    }
                    rest = &rest[end..];
                }
            }
        }
        // Fields that a newer configuration has appended are ignored.
        (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some(values)
    }

    /// Returns the part that the format lacks for a replay.
    pub(super) fn lacks(&self) -> Option<&'static str> {
        let has = |wanted: fn(&Field) -> bool| {
            let mut pieces = self.pieces.iter();
            pieces
                .any(|piece| matches!(piece, Piece::Field(fields, _) if fields.iter().any(wanted)))
        };
        if !has(|field| matches!(field, Field::Time(..))) {
            Some("a time")
        } else if !has(|field| matches!(field, Field::Duration(_) | Field::UpstreamDuration(_))) {
            Some("a duration")
        } else if !has(|field| *field == Field::Status) {
            // nginx's `$upstream_status` is `-` for a call that did not reach an upstream.
            Some("a status")
        } else {
            None
        }
    }

    /// Returns the names of its fields.
    pub(super) fn names(&self) -> Vec<&str> {
        let pieces = self.pieces.iter();
        let names = pieces.filter_map(|piece| match piece {
            Piece::Field(_, name) => Some(name.as_str()),
            Piece::Text(_) => None,
        });
        names.collect()
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Returns the end of a value: the next text of the format. nginx's lists of upstreams contain `, `
/// and ` : `.
fn value_end(rest: &str, text: &str, name: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + rest.get(from..)?.find(text)?;
        let (before, after) = (&rest[..at], &rest[at + text.len()..]);
        let goes_on = name.starts_with("upstream_")
            && (before.ends_with(',') || before.ends_with(" :") || after.starts_with(": "));
        if !goes_on {
            return Some(at);
        }
        from = at + text.len();
    }
}

fn end_of_operator(rest: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in rest.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            '%' if depth <= 0 => return at,
            _ => {}
        }
    }
    rest.len()
}

/// Returns the usual meaning of a variable of nginx.
fn nginx_field(name: &str) -> Field {
    match name {
        "time_local" => Field::Time(TimeFormat::Local, false),
        "time_iso8601" => Field::Time(TimeFormat::Iso, false),
        "msec" => Field::Time(TimeFormat::Epoch, false),
        "request_time" => Field::Duration(1_000_000_000),
        "upstream_response_time" => Field::UpstreamDuration(1_000_000_000),
        "status" => Field::Status,
        "upstream_status" => Field::UpstreamStatus,
        "limit_req_status" | "limit_conn_status" => Field::LimitStatus,
        "remote_addr" => Field::Key,
        "upstream_addr" | "host" => Field::Host,
        _ => Field::Skip,
    }
}

/// Returns the usual meaning of an operator of Envoy.
fn envoy_field(name: &str) -> Field {
    if name.starts_with("START_TIME") {
        return match name.contains("%s") {
            true => Field::Time(TimeFormat::Epoch, true),
            false => Field::Time(TimeFormat::Iso, true),
        };
    }
    match name {
        "DURATION" => Field::Duration(1_000_000),
        "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)" => Field::UpstreamDuration(1_000_000),
        "RESPONSE_CODE" => Field::Status,
        "RESPONSE_FLAGS" => Field::Flags,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "REQ(X-FORWARDED-FOR)" => Field::Key,
        "UPSTREAM_HOST" | "UPSTREAM_CLUSTER" => Field::Host,
        _ => Field::Skip,
    }
}

/// nginx's default format, which has no duration.
pub(super) const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status \
    $body_bytes_sent \"$http_referer\" \"$http_user_agent\"";
/// Envoy's default format.
pub(super) const ENVOY: &str = "[%START_TIME%] \"%REQ(:METHOD)% \
    %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
    \"%UPSTREAM_HOST%\"";
