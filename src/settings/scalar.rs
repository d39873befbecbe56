//! Values of a file, each written as one text or one number.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{
    Deserializer,
    de::{self, Visitor},
};

/// A value that a file writes as a text or as a number.
///
/// Both are read by their text. In an environment all values are texts, and formats differ in what
/// they accept as a number.
pub trait Scalar: Sized {
    /// An example value, for messages.
    const EXAMPLE: &'static str;

    /// Reads a value. An error says what to write instead.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads `true` or `false`, which only few types accept.
    fn from_flag(flag: bool) -> Result<Self, String> {
        Err(Self::no_value(&flag.to_string()))
    }

    /// Returns the message for an invalid value: what to write instead.
    fn no_value(found: &str) -> String {
        let example = Self::EXAMPLE;
        format!("`{found}` is no value: write the value, such as {example}, or leave the field out")
    }
}

/// Reads a value. An empty one, as in a half-written file, is an error.
pub(super) fn scalar<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Scalar,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(ScalarVisitor(PhantomData))
}

/// Reads the value of a field that may be left out, but not be empty.
pub(super) fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Scalar,
    D: Deserializer<'de>,
{
    scalar(deserializer).map(Some)
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<'de, T: Scalar> Visitor<'de> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one value, such as {}", T::EXAMPLE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<T, E> {
        T::from_flag(flag).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&decimal(number))
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        Err(E::custom(T::no_value(EMPTY)))
    }

    fn visit_none<E: de::Error>(self) -> Result<T, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Returns the shortest text of a number: a whole one has no point.
pub(super) fn decimal(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        format!("{number:.0}")
    } else {
        format!("{number:?}")
    }
}

impl Scalar for bool {
    const EXAMPLE: &'static str = "true";

    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("`{text}` is no answer: write true or false")),
        }
    }

    fn from_flag(flag: bool) -> Result<Self, String> {
        Ok(flag)
    }
}

impl Scalar for String {
    const EXAMPLE: &'static str = "\"payments\"";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Scalar for u16 {
    const EXAMPLE: &'static str = "3";

    fn from_text(text: &str) -> Result<Self, String> {
        whole(text, Self::MAX.into())
    }
}

impl Scalar for u32 {
    const EXAMPLE: &'static str = "20";

    fn from_text(text: &str) -> Result<Self, String> {
        whole(text, Self::MAX.into())
    }
}

impl Scalar for u64 {
    const EXAMPLE: &'static str = "80000";

    fn from_text(text: &str) -> Result<Self, String> {
        whole(text, Self::MAX.into())
    }
}

impl Scalar for usize {
    const EXAMPLE: &'static str = "100";

    fn from_text(text: &str) -> Result<Self, String> {
        whole(text, Self::MAX as u128)
    }
}

impl Scalar for f64 {
    const EXAMPLE: &'static str = "1.5";

    fn from_text(text: &str) -> Result<Self, String> {
        let number = text.trim().parse().ok().filter(|n: &f64| n.is_finite());
        number.ok_or_else(|| format!("`{text}` is no number: write one such as 1.5"))
    }
}

fn whole<T: FromStr>(text: &str, max: u128) -> Result<T, String> {
    let digits = text.trim();
    digits.parse().map_err(|_| {
        let is_whole = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if is_whole {
            format!("`{text}` is too large: write at most {max}")
        } else {
            format!("`{text}` is no whole number: write one from 0 up, such as 20")
        }
    })
}

/// The name of an empty value in messages.
pub(super) const EMPTY: &str = "null";
