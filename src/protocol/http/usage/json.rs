//! Finds values in JSON by their paths, without parsing or keeping the rest.
//!
//! A stream of a language model has thousands of events, and one or two of them have the usage.
//! Parsing each would cost more than passing it on. A hostile event, nested or long without bound,
//! would need memory without bound. So the bytes go through a state machine, which knows only its
//! depth and the keys on the path. It keeps four keys of 40 bytes each. It skips values that are
//! deeper, longer or within an array.
//!
//! **Guarantee.** Memory is constant. The values found do not depend on how the bytes are split.
//! Text that is not JSON may yield any values or none, and never panics.

/// A key of an object, or the lack of one where no path can lead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    bytes: [u8; LONGEST],
    /// Above [`LONGEST`] if it is too long, or not a key.
    length: usize,
}

/// The state machine.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    /// The keys on the path, for the first [`DEEPEST`] levels.
    path: [Key; DEEPEST],
    /// Number of open objects and arrays.
    depth: usize,
    /// One bit for each of the first levels: set if it is an array.
    arrays: u32,
    state: State,
    /// The text of a scalar.
    text: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value.
    Value,
    /// Before a key, or the end of the object.
    Key,
    /// After a key.
    Colon,
    /// After a value.
    After,
    /// In a string.
    String { is_key: bool, escaped: bool },
    /// In a number, `true`, `false` or `null`.
    Word,
}

/// A value at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A number that is not negative, at most [`MOST`], without its decimals.
    Number(u64),
    /// A string as it is written. `None` if it is long.
    Text(Option<&'a [u8]>),
    /// The start of an object.
    Object,
}

impl Key {
    const NONE: Self = Self {
        bytes: [0; LONGEST],
        length: LONGEST + 1,
    };

    const EMPTY: Self = Self {
        bytes: [0; LONGEST],
        length: 0,
    };

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = (self.length + 1).min(LONGEST + 1);
    }

    fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            path: [Key::NONE; DEEPEST],
            depth: 0,
            arrays: 0,
            state: State::Value,
            text: Key::EMPTY,
        }
    }
}

impl Scanner {
    /// Resets the machine for the next text.
    pub(super) fn reset(&mut self) {
        (self.depth, self.arrays, self.state) = (0, 0, State::Value);
    }

    /// Reads a part of the text, and calls `found` for each value with its path.
    pub(super) fn feed(&mut self, text: &[u8], mut found: impl FnMut(&[Key], Found<'_>)) {
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if let State::String {
                is_key: false,
                escaped: false,
            } = self.state
            {
                // Most of a stream is text in strings, and no byte of it is checked twice.
                let plain = std::iter::once(byte).chain(after.iter().copied());
                let length = plain
                    .take_while(|byte| !matches!(byte, b'"' | b'\\'))
                    .count();
                if length > 0 {
                    self.skip(&text[text.len() - after.len() - 1..][..length]);
                    rest = &text[text.len() - after.len() - 1 + length..];
                    continue;
                }
            }
            self.step(byte, &mut found);
        }
    }

    /// Ends the text. A number at the top level ends with it. Another one was cut off.
    pub(super) fn finish(&mut self, mut found: impl FnMut(&[Key], Found<'_>)) {
        if self.depth == 0 {
            self.step(b' ', &mut found);
        }
    }

    /// Returns whether the text has begun and is not whole.
    pub(super) fn is_open(&self) -> bool {
        self.depth > 0 || matches!(self.state, State::String { .. })
    }

    fn skip(&mut self, plain: &[u8]) {
        for byte in plain.iter().take(LONGEST + 1) {
            self.text.push(*byte);
        }
    }

    fn step(&mut self, byte: u8, found: &mut impl FnMut(&[Key], Found<'_>)) {
        match self.state {
            State::String { is_key, escaped } => self.in_string(byte, (is_key, escaped), found),
            State::Word if is_word(byte) => self.text.push(byte),
            State::Word => {
                self.end_word(found);
                self.state = State::After;
                self.between(byte, found);
            }
            _ => self.between(byte, found),
        }
    }

    fn in_string(
        &mut self,
        byte: u8,
        (is_key, escaped): (bool, bool),
        found: &mut impl FnMut(&[Key], Found<'_>),
    ) {
        let escaped = match byte {
            b'"' if !escaped => return self.end_string(is_key, found),
            b'\\' => !escaped,
            _ => false,
        };
        self.text.push(byte);
        self.state = State::String { is_key, escaped };
    }

    fn end_string(&mut self, is_key: bool, found: &mut impl FnMut(&[Key], Found<'_>)) {
        if is_key {
            if let Some(place) = self
                .depth
                .checked_sub(1)
                .and_then(|at| self.path.get_mut(at))
            {
                *place = self.text;
            }
            self.state = State::Colon;
            return;
        }
        self.state = State::After;
        if let Some(path) = self.path() {
            found(path, Found::Text(self.text.get()));
        }
    }

    fn end_word(&self, found: &mut impl FnMut(&[Key], Found<'_>)) {
        let number = self.text.get().and_then(number);
        if let (Some(number), Some(path)) = (number, self.path()) {
            found(path, Found::Number(number));
        }
    }

    /// Reads a byte outside strings and words.
    fn between(&mut self, byte: u8, found: &mut impl FnMut(&[Key], Found<'_>)) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let is_key = self.state == State::Key;
                self.text = Key::EMPTY;
                self.state = State::String {
                    is_key,
                    escaped: false,
                };
            }
            b'{' | b'[' => self.open(byte == b'[', found),
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.state = State::After;
            }
            b':' => self.state = State::Value,
            b',' if self.in_array() => self.state = State::Value,
            b',' => self.state = State::Key,
            _ => {
                self.text = Key::EMPTY;
                self.text.push(byte);
                self.state = State::Word;
            }
        }
    }

    fn open(&mut self, is_array: bool, found: &mut impl FnMut(&[Key], Found<'_>)) {
        if let (false, Some(path)) = (is_array, self.path()) {
            found(path, Found::Object);
        }
        if self.depth < DEEPEST {
            self.path[self.depth] = Key::NONE;
            self.arrays &= !(1 << self.depth);
            self.arrays |= u32::from(is_array) << self.depth;
        }
        self.depth = self.depth.saturating_add(1);
        self.state = if is_array { State::Value } else { State::Key };
    }

    /// Returns whether the innermost level is an array. Always `false` for levels that are too
    /// deep, where no value is found.
    fn in_array(&self) -> bool {
        let level = self.depth.checked_sub(1);
        level.is_some_and(|level| level < DEEPEST && self.arrays >> level & 1 == 1)
    }

    /// Returns the keys on the path to the value. `None` if it is too deep, or within an array.
    fn path(&self) -> Option<&[Key]> {
        let path = self.path.get(..self.depth)?;
        let all = path.iter().all(|key| key.get().is_some());
        let open = self.arrays & ((1 << self.depth) - 1);
        (all && open == 0).then_some(path)
    }
}

/// Returns whether a path is this one, written with dots: `usage.prompt_tokens`.
pub(super) fn is_at(path: &[Key], dotted: &str) -> bool {
    let mut keys = path.iter();
    let mut names = dotted.split('.').map(str::as_bytes);
    loop {
        match (keys.next(), names.next()) {
            (None, None) => return true,
            (Some(key), Some(name)) if key.get() == Some(name) => {}
            _ => return false,
        }
    }
}

/// Parses a number without a sign, cut off at its decimal point. A number with an exponent is read
/// as a float. `None` above [`MOST`]: no response uses so much, and a budget that is charged for it
/// would be closed for years.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let number = text.parse().ok().or_else(|| {
        let float: f64 = text.parse().ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and is not negative"
        )]
        float.is_finite().then_some(float as u64)
    });
    number.filter(|number| *number <= MOST)
}

fn is_word(byte: u8) -> bool {
    !matches!(
        byte,
        b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'{' | b'}' | b'[' | b']' | b':' | b','
    )
}

/// The longest key or word that is read.
const LONGEST: usize = 40;
/// Number of levels that are read.
const DEEPEST: usize = 4;
/// The largest number that is read: up to there each whole number is also a float.
const MOST: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns all values found, as text.
    fn found(parts: &[&[u8]]) -> Vec<String> {
        let mut scanner = Scanner::default();
        let mut all = Vec::new();
        let mut note = |path: &[Key], found: Found<'_>| {
            let keys = path
                .iter()
                .map(|key| String::from_utf8_lossy(key.get().unwrap()).into_owned());
            let keys: Vec<_> = keys.collect();
            all.push(format!("{}={found:?}", keys.join(".")));
        };
        for part in parts {
            scanner.feed(part, &mut note);
        }
        scanner.finish(&mut note);
        all
    }

    #[test]
    fn finds_values_by_their_paths() {
        let text =
            br#" {"a":1, "b" : {"c":{"d":[{"e":2},3,"x"],"f":4.9}},"g":"h\"i", "u":null,"z":-1} "#;
        let expected = [
            "=Object",
            "a=Number(1)",
            "b=Object",
            "b.c=Object",
            "b.c.f=Number(4)",
        ];
        let all = found(&[text]);
        assert_eq!(all[..5], expected);
        assert_eq!(all.len(), 6, "{all:?}");
    }

    #[test]
    fn a_number_that_is_cut_off_is_none() {
        assert_eq!(found(&[b"12"]), ["=Number(12)"]);
        assert_eq!(found(&[br#"{"n":12"#]), ["=Object"]);
    }

    #[test]
    fn a_number_beyond_all_usage_is_none() {
        for (text, read) in [
            ("9007199254740992", true),
            ("9007199254740993", false),
            ("9.1e15", false),
            ("1e400", false),
            ("99999999999999999999999999999999999999", false),
        ] {
            assert_eq!(found(&[text.as_bytes()]).len(), usize::from(read), "{text}");
        }
    }

    #[test]
    fn values_of_arrays_have_no_path() {
        let text = br#"{"choices":[{"usage":{"n":5}}],"usage":{"n":6}}"#;
        let all = found(&[text]);
        assert_eq!(all, ["=Object", "usage=Object", "usage.n=Number(6)"]);
    }

    #[test]
    fn what_is_deep_or_long_is_read_over() {
        let deep = format!("{}{}", "{\"a\":".repeat(100_000), "7");
        assert!(found(&[deep.as_bytes()]).len() <= DEEPEST + 1);
        let long = format!("{{\"{}\":1,\"b\":2}}", "k".repeat(100_000));
        assert_eq!(found(&[long.as_bytes()]), ["=Object", "b=Number(2)"]);
    }

    #[test]
    fn a_usage_in_a_string_is_none() {
        let text = br#"{"content":"\"usage\":{\"n\":1}","usage":{"n":2}}"#;
        let all = found(&[text]);
        assert_eq!(all.last().unwrap(), "usage.n=Number(2)");
        assert_eq!(
            all.iter().filter(|found| found.contains("usage.n")).count(),
            1
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            found(&[&text]);
        }

        #[test]
        fn no_brackets_panic(text in r#"[{}\[\]",:\\ a0-9.]{0,300}"#) {
            found(&[text.as_bytes()]);
        }

        #[test]
        fn a_split_changes_nothing(text in r#"[{}\[\]",:\\ a0-9.é]{0,60}"#, at in 0usize..60) {
            let bytes = text.as_bytes();
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(found(&[first, second]), found(&[bytes]));
        }
    }
}
