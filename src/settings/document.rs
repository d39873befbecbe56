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
pub struct Document(Value);

/// A value of any format.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Empty,
    Flag(bool),
    Natural(u64),
    Negative(i64),
    Decimal(f64),
    Text(String),
    List(Vec<Value>),
    Fields(Vec<(String, Value)>),
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
                Value::Fields(fields) => {
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
        let value = Value::deserialize(deserializer)?;
        match value {
            Value::Fields(_) => Ok(Self(value)),
            _ => Err(de::Error::custom(
                "a file of sections has fields with names",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list, or fields with values")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Natural(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(u64::try_from(number).map_or(Value::Negative(number), Value::Natural))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Decimal(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Value::Fields(fields))
    }
}

impl Value {
    fn fields(
        fields: &[(String, Self)],
    ) -> MapDeserializer<'_, impl Iterator<Item = (&str, &Self)>, Error> {
        MapDeserializer::new(fields.iter().map(|(name, value)| (name.as_str(), value)))
    }
}

impl<'de> Deserializer<'de> for &'de Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Value::Empty => visitor.visit_unit(),
            Value::Flag(flag) => visitor.visit_bool(*flag),
            Value::Natural(number) => visitor.visit_u64(*number),
            Value::Negative(number) => visitor.visit_i64(*number),
            Value::Decimal(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(values) => visitor.visit_seq(SeqDeserializer::new(values.iter())),
            Value::Fields(fields) => visitor.visit_map(Value::fields(fields)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Value::Empty => visitor.visit_none(),
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
            Value::Text(text) => {
                let text: de::value::StrDeserializer<'_, Error> = text.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            Value::Fields(fields) => MapAccessDeserializer::new(Value::fields(fields))
                .deserialize_enum(name, variants, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for &'de Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
