//! A text of several sections. A mistake in one leaves the others readable.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{
        self, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{Error, MapAccessDeserializer, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use crate::settings::{ReadError, read};

/// A file with settings of several things, a section for each. It is kept as text, so that a
/// mistake in one section is an error of that section alone.
///
/// ```
/// use tower_keep::{settings::{ClientSettings, Document, ServerSettings}, stack};
///
/// let file = r#"
///     [payments]
///     total_timeout = "8s"
///
///     [search]
///     total_timeout = "800"
/// "#;
/// let document: Document = toml::from_str(file)?;
/// let payments: ClientSettings = document.section("payments")?;
/// let stack = payments.apply_to(stack::client().http())?.build()?;
///
/// let error = document.section::<ClientSettings>("search").unwrap_err();
/// assert_eq!(error.path, "search.total_timeout");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// Sections that are never read cause no error, so the file may hold other settings too.
#[derive(Debug, Clone, PartialEq)]
pub struct Document(AnyValue);

/// A value of any format.
#[derive(Debug, Clone, PartialEq)]
enum AnyValue {
    Empty,
    Flag(bool),
    Natural(u64),
    Negative(i64),
    Decimal(f64),
    Text(String),
    List(Vec<AnyValue>),
    Fields(Vec<(String, AnyValue)>),
}

impl Document {
    /// Reads the settings of one section. Its name is a path if it is within another:
    /// `stacks.payments`.
    ///
    /// # Errors
    /// There is no such section, or [`read`](crate::settings::read) fails. The path begins with the
    /// section.
    pub fn section<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, ReadError> {
        let found = name
            .split('.')
            .try_fold(&self.0, |value, name| match value {
                AnyValue::Fields(fields) => {
                    let mut named = fields.iter().filter(|(field, _)| field == name);
                    named.next().map(|(_, value)| value)
                }
                _ => None,
            });
        let Some(section) = found else {
            let error = "the section is missing: write it, with the fields that it is to set";
            return Err(ReadError {
                path: name.to_owned(),
                source: error.into(),
            });
        };
        read(section).map_err(|error: ReadError| {
            let path = match error.path.as_str() {
                "." => name.to_owned(),
                path => format!("{name}.{path}"),
            };
            ReadError { path, ..error }
        })
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = AnyValue::deserialize(deserializer)?;
        match value {
            AnyValue::Fields(_) => Ok(Self(value)),
            _ => Err(de::Error::custom(
                "a file of sections has fields with names",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = AnyValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list, or fields with values")
    }

    fn visit_unit<E>(self) -> Result<AnyValue, E> {
        Ok(AnyValue::Empty)
    }

    fn visit_none<E>(self) -> Result<AnyValue, E> {
        Ok(AnyValue::Empty)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<AnyValue, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<AnyValue, E> {
        Ok(AnyValue::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<AnyValue, E> {
        Ok(AnyValue::Natural(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<AnyValue, E> {
        Ok(u64::try_from(number).map_or(AnyValue::Negative(number), AnyValue::Natural))
    }

    fn visit_f64<E>(self, number: f64) -> Result<AnyValue, E> {
        Ok(AnyValue::Decimal(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<AnyValue, E> {
        Ok(AnyValue::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AnyValue, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(AnyValue::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(AnyValue::Fields(fields))
    }
}

impl AnyValue {
    fn fields(
        fields: &[(String, Self)],
    ) -> MapDeserializer<'_, impl Iterator<Item = (&str, &Self)>, Error> {
        MapDeserializer::new(fields.iter().map(|(name, value)| (name.as_str(), value)))
    }
}

impl<'de> Deserializer<'de> for &'de AnyValue {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            AnyValue::Empty => visitor.visit_unit(),
            AnyValue::Flag(flag) => visitor.visit_bool(*flag),
            AnyValue::Natural(number) => visitor.visit_u64(*number),
            AnyValue::Negative(number) => visitor.visit_i64(*number),
            AnyValue::Decimal(number) => visitor.visit_f64(*number),
            AnyValue::Text(text) => visitor.visit_borrowed_str(text),
            AnyValue::List(values) => visitor.visit_seq(SeqDeserializer::new(values.iter())),
            AnyValue::Fields(fields) => visitor.visit_map(AnyValue::fields(fields)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            AnyValue::Empty => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            AnyValue::Text(text) => {
                let text: de::value::StrDeserializer<'_, Error> = text.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            AnyValue::Fields(fields) => MapAccessDeserializer::new(AnyValue::fields(fields))
                .deserialize_enum(name, variants, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for &'de AnyValue {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
