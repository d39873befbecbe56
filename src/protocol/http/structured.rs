//! The part of structured fields (RFC 9651) that the `RateLimit` field needs: a List of Items with
//! parameters, and a Dictionary. Values of all types are parsed, since any server may add a
//! parameter, and only whole numbers are used.
//!
//! A line that breaks the rules is ignored as a whole, as the RFC demands: half of a message may
//! mean the opposite.

/// One quota of a `RateLimit` field.
#[derive(Debug, Default)]
pub(super) struct RemainingQuota {
    /// `r` or `remaining`, if it is a whole number and not negative.
    pub(super) remaining: Option<u64>,
    /// `t` or `reset`, likewise, in seconds.
    pub(super) reset: Option<u64>,
}

/// Returns all Items of one line, or `None` if it is not a List of Items.
pub(super) fn limits(line: &[u8]) -> Option<Vec<RemainingQuota>> {
    let mut limits = Vec::new();
    Rest(line).members(|rest| {
        limits.push(rest.limit()?);
        Some(())
    })?;
    Some(limits)
}

/// Returns `remaining` and `reset` of one line, or `None` if it is not a Dictionary.
pub(super) fn dictionary(line: &[u8]) -> Option<RemainingQuota> {
    let mut limit = RemainingQuota::default();
    Rest(line).members(|rest| {
        let (key, value) = rest.pair(Rest::item_or_list)?;
        match key {
            b"remaining" => limit.remaining = value,
            b"reset" => limit.reset = value,
            _ => {}
        }
        rest.parameters(|_, _| {})
    })?;
    Some(limit)
}

/// The unread rest of a line.
struct Rest<'a>(&'a [u8]);

/// A value, if it is a whole number and not negative. Nothing else has a meaning here.
type Number = Option<u64>;

impl<'a> Rest<'a> {
    fn limit(&mut self) -> Option<RemainingQuota> {
        // The policy's name: a String, or in older drafts a Token.
        if !matches!(self.0.first()?, b'"' | b'*' | b'a'..=b'z' | b'A'..=b'Z') {
            return None;
        }
        self.value()?;
        let mut limit = RemainingQuota::default();
        // If a key is repeated, the last one counts.
        self.parameters(|key, value| match key {
            b"r" => limit.remaining = value,
            b"t" => limit.reset = value,
            _ => {}
        })?;
        Some(limit)
    }

    /// Reads members with commas between them, up to the end.
    fn members(&mut self, mut member: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.skip(|byte| byte == b' ');
        loop {
            member(self)?;
            self.skip(is_blank);
            if self.0.is_empty() {
                return Some(());
            }
            self.expect(b',')?;
            self.skip(is_blank);
        }
    }

    fn parameters(&mut self, mut parameter: impl FnMut(&[u8], Number)) -> Option<()> {
        while self.expect(b';').is_some() {
            self.skip(|byte| byte == b' ');
            let (key, value) = self.pair(Rest::value)?;
            parameter(key, value);
        }
        Some(())
    }

    /// Reads a key, and its value if it has one.
    fn pair(
        &mut self,
        value: impl FnOnce(&mut Self) -> Option<Number>,
    ) -> Option<(&'a [u8], Number)> {
        let key = self.key()?;
        let value = match self.expect(b'=') {
            Some(()) => value(self)?,
            None => None,
        };
        Some((key, value))
    }

    /// Reads a value, or an Inner List, which has no meaning here.
    fn item_or_list(&mut self) -> Option<Number> {
        if self.expect(b'(').is_none() {
            return self.value();
        }
        let mut separated = true;
        loop {
            separated |= !self.skip(|byte| byte == b' ').is_empty();
            if self.expect(b')').is_some() {
                return Some(None);
            }
            if !std::mem::take(&mut separated) {
                return None;
            }
            self.value()?;
            self.parameters(|_, _| {})?;
        }
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let starts = matches!(self.0.first()?, b'*' | b'a'..=b'z');
        let key =
            self.skip(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'));
        starts.then_some(key)
    }

    fn value(&mut self) -> Option<Number> {
        match self.0.first()? {
            b'"' => self.string()?,
            b':' => self.bytes()?,
            b'?' => self.boolean()?,
            b'-' | b'0'..=b'9' => return self.number(),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.skip(|byte| {
                    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
                });
            }
            b'@' => self.date()?,
            b'%' => self.display_string()?,
            _ => return None,
        }
        Some(None)
    }

    /// Reads an Integer of at most 15 digits, or a Decimal of 12 and 3.
    fn number(&mut self) -> Option<Number> {
        let negative = self.expect(b'-').is_some();
        let digits = self.skip(|byte| byte.is_ascii_digit());
        if self.expect(b'.').is_some() {
            let decimals = self.skip(|byte| byte.is_ascii_digit());
            return ((1..=12).contains(&digits.len()) && (1..=3).contains(&decimals.len()))
                .then_some(None);
        }
        if !(1..=15).contains(&digits.len()) {
            return None;
        }
        let number = digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        Some((!negative || number == 0).then_some(number))
    }

    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            self.skip(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
            if self.expect(b'"').is_some() {
                return Some(());
            }
            self.expect(b'\\')?;
            self.expect(b'"').or_else(|| self.expect(b'\\'))?;
        }
    }

    /// Reads a Date: seconds since 1970, also negative.
    fn date(&mut self) -> Option<()> {
        self.expect(b'@')?;
        let written = self.0;
        self.number()?;
        let integer = &written[..written.len() - self.0.len()];
        (!integer.contains(&b'.')).then_some(())
    }

    /// Reads UTF-8, in which quotes, percents and non-ASCII bytes are written as `%` and two
    /// digits.
    fn display_string(&mut self) -> Option<()> {
        self.expect(b'%')?;
        self.expect(b'"')?;
        let mut text = Vec::new();
        loop {
            let plain =
                self.skip(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'%');
            text.extend_from_slice(plain);
            if self.expect(b'"').is_some() {
                return std::str::from_utf8(&text).is_ok().then_some(());
            }
            self.expect(b'%')?;
            text.push(self.hex_digit()? << 4 | self.hex_digit()?);
        }
    }

    /// Reads a digit in lower case, as the RFC demands.
    fn hex_digit(&mut self) -> Option<u8> {
        let (digit, rest) = self.0.split_first()?;
        self.0 = rest;
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<()> {
        self.expect(b':')?;
        self.skip(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        self.expect(b':')
    }

    fn boolean(&mut self) -> Option<()> {
        self.expect(b'?')?;
        self.expect(b'0').or_else(|| self.expect(b'1'))
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == byte).then(|| self.0 = rest)
    }

    /// Takes bytes as long as they are of a kind.
    fn skip(&mut self, of_kind: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self
            .0
            .iter()
            .position(|&byte| !of_kind(byte))
            .unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}
