//! Server-sent events, line by line, without keeping them.

/// A reader of `text/event-stream`, as the HTML standard defines it. Lines end with CRLF, LF or CR,
/// and comments begin with a colon. An event may have several lines of `data`, and ends at an empty
/// line.
#[derive(Debug)]
pub(super) struct Events {
    place: LinePosition,
    /// The name of this line's field, while it is read. A longer name is not one of these fields.
    name: Short,
    /// If true, the last byte was a CR: a LF after it belongs to the same line end.
    after_cr: bool,
    /// Bytes read of a byte order mark at the start of the stream. `None` after it.
    mark: Option<usize>,
    /// If true, the event has data already, and its next line of data comes after a line feed.
    has_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePosition {
    /// In the name of a field.
    Name,
    /// After the colon, where one space is dropped.
    Space(EventField),
    Value(EventField),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventField {
    Data,
    Event,
    Other,
}

/// A part of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes of its data.
    Data(&'a [u8]),
    /// Bytes of its name.
    Name(&'a [u8]),
    /// The start of a line with its name. Of several, the last is the name.
    NewName,
    /// The end of the event.
    End,
}

#[derive(Debug, Clone, Copy, Default)]
struct Short {
    bytes: [u8; 5],
    length: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            place: LinePosition::Name,
            name: Short::default(),
            after_cr: false,
            mark: Some(0),
            has_data: false,
        }
    }
}

impl Events {
    /// Reads bytes, and calls `piece` for each part.
    pub(super) fn feed(&mut self, bytes: &[u8], mut piece: impl FnMut(Piece<'_>)) {
        let mut rest = self.skip_mark(bytes, &mut piece);
        while let Some((&byte, after)) = rest.split_first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                rest = after;
                continue;
            }
            if matches!(byte, b'\r' | b'\n') {
                self.after_cr = byte == b'\r';
                self.end_line(&mut piece);
                rest = after;
                continue;
            }
            rest = match self.place {
                LinePosition::Name => {
                    self.in_name(byte, &mut piece);
                    after
                }
                LinePosition::Space(field) => {
                    self.place = LinePosition::Value(field);
                    if byte == b' ' { after } else { rest }
                }
                LinePosition::Value(field) => {
                    let end = |byte: &u8| matches!(byte, b'\r' | b'\n');
                    let length = rest.iter().position(end).unwrap_or(rest.len());
                    let (value, rest) = rest.split_at(length);
                    match field {
                        EventField::Data => piece(Piece::Data(value)),
                        EventField::Event => piece(Piece::Name(value)),
                        EventField::Other => {}
                    }
                    rest
                }
            };
        }
    }

    /// Skips a byte order mark at the start. Bytes that only look like one are a part of a name.
    fn skip_mark<'a>(&mut self, bytes: &'a [u8], piece: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let mut rest = bytes;
        while let Some(read) = self.mark {
            let Some((byte, after)) = rest.split_first() else {
                return rest;
            };
            if MARK.get(read) == Some(byte) {
                rest = after;
                self.mark = Some(read + 1).filter(|read| *read < MARK.len());
                continue;
            }
            for byte in &MARK[..read] {
                self.in_name(*byte, piece);
            }
            self.mark = None;
        }
        rest
    }

    fn in_name(&mut self, byte: u8, piece: &mut impl FnMut(Piece<'_>)) {
        if byte == b':' {
            let field = self.name.field();
            self.begin(field, piece);
            self.place = LinePosition::Space(field);
            return;
        }
        if let Some(place) = self.name.bytes.get_mut(self.name.length) {
            *place = byte;
        }
        self.name.length = self.name.length.saturating_add(1);
    }

    fn begin(&mut self, field: EventField, piece: &mut impl FnMut(Piece<'_>)) {
        match field {
            EventField::Data if self.has_data => piece(Piece::Data(b"\n")),
            EventField::Data => self.has_data = true,
            EventField::Event => piece(Piece::NewName),
            EventField::Other => {}
        }
    }

    fn end_line(&mut self, piece: &mut impl FnMut(Piece<'_>)) {
        if self.place == LinePosition::Name {
            if self.name.length == 0 {
                self.has_data = false;
                piece(Piece::End);
            } else {
                // A line without a colon is a field without a value.
                self.begin(self.name.field(), piece);
            }
        }
        self.place = LinePosition::Name;
        self.name = Short::default();
    }
}

impl Short {
    fn field(self) -> EventField {
        match self.bytes.get(..self.length) {
            Some(b"data") => EventField::Data,
            Some(b"event") => EventField::Event,
            _ => EventField::Other,
        }
    }
}

const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events of a stream: their names and data.
    fn events(parts: &[&[u8]]) -> Vec<(String, String)> {
        let mut events = Events::default();
        let mut all = Vec::new();
        let (mut name, mut data) = (Vec::new(), Vec::new());
        for part in parts {
            events.feed(part, |piece| match piece {
                Piece::Data(bytes) => data.extend_from_slice(bytes),
                Piece::NewName => name.clear(),
                Piece::Name(bytes) => name.extend_from_slice(bytes),
                Piece::End => {
                    let text = |bytes: &mut Vec<u8>| {
                        String::from_utf8_lossy(&std::mem::take(bytes)).into_owned()
                    };
                    all.push((text(&mut name), text(&mut data)));
                }
            });
        }
        all
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.into(), data.into())
    }

    #[test]
    fn lines_end_in_three_ways() {
        for end in ["\n", "\r\n", "\r"] {
            let text = [
                "event: a",
                "data:1",
                ": comment",
                "data: 2",
                "id: 7",
                "",
                "data:  3",
                "",
                "",
            ];
            let stream = text.join(end);
            let expected = [event("a", "1\n2"), event("", " 3")];
            assert_eq!(events(&[stream.as_bytes()]), expected, "{end:?}");
        }
    }

    #[test]
    fn a_mark_is_skipped_and_half_of_one_is_not() {
        assert_eq!(
            events(&["\u{feff}data: 1\n\n".as_bytes()]),
            [event("", "1")]
        );
        assert_eq!(events(&[b"\xef\xbbdata: 1\n\n"]), [event("", "")]);
    }

    #[test]
    fn a_field_without_a_colon_is_empty() {
        assert_eq!(events(&[b"data\ndata: 1\nevent\n\n"]), [event("", "\n1")]);
    }

    #[test]
    fn what_has_not_ended_is_no_event() {
        assert_eq!(events(&[b"data: 1\n\ndata: 2\n"]), [event("", "1")]);
    }

    proptest! {
        #[test]
        fn a_split_changes_nothing(
            text in "[\u{feff}]?(data|event|id|dat|)?[:]?[ ]?[a-z\u{e9}\r\n:]{0,40}",
            places in proptest::collection::vec(0usize..60, 0..4),
        ) {
            let bytes = text.as_bytes();
            let mut places: Vec<_> = places.into_iter().map(|at| at.min(bytes.len())).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let parts: Vec<_> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(events(&parts), events(&[bytes]));
        }
    }
}
