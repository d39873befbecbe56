//! Parts of a file that have their own fields, or have one of several shapes.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, MapDeserializer},
    },
};

use crate::settings::{
    scalar::{EMPTY, decimal},
    written::NotedMap,
};

/// A part of a stack that `"off"` removes.
#[cfg(feature = "http")]
pub(super) trait Switchable: Sized {
    /// Returns the part, switched off.
    fn off() -> Self;
}

/// Reads a part that can be `"off"`.
#[cfg(feature = "http")]
pub(super) fn part<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Switchable + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Fields::new(Some(T::off), |part: T| part).read(deserializer)
}

/// Reads a part that a file may leave out, and that can be `"off"`.
#[cfg(feature = "http")]
pub(super) fn optional_part<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Switchable + Deserialize<'de>,
    D: Deserializer<'de>,
{
    part(deserializer).map(Some)
}

/// Reads a group of fields. Without it something is off, which `"off"` also says.
pub(super) fn unless_off<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Fields::new(Some(|| None), Some::<T>).read(deserializer)
}

/// Reads a group of fields that may be left out, but cannot be `"off"`.
pub(super) fn group<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Fields::new(None, |group: T| group).read(deserializer)
}

/// Does the same as [`group`] for a group that is absent by default.
pub(super) fn given_group<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    group(deserializer).map(Some)
}

/// Reads one of several shapes. The name alone of a shape with fields means their defaults.
pub(super) fn choice<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Choice::new(None, |choice: T| choice).read(deserializer)
}

/// Does the same as [`choice`] for a choice that is absent by default.
pub(super) fn given_choice<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    choice(deserializer).map(Some)
}

/// Does the same as [`given_choice`] for a choice without which something is off, as with `"off"`.
pub(super) fn choice_unless_off<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Choice::new(Some(|| None), Some::<T>).read(deserializer)
}

/// A visitor that reads fields `T` as a `V`.
struct Fields<T, V> {
    /// The value of `"off"`.
    off: Option<fn() -> V>,
    on: fn(T) -> V,
}

impl<'de, T: Deserialize<'de>, V> Fields<T, V> {
    fn new(off: Option<fn() -> V>, on: fn(T) -> V) -> Self {
        Self { off, on }
    }

    fn read<D: Deserializer<'de>>(self, deserializer: D) -> Result<V, D::Error> {
        deserializer.deserialize_any(self)
    }

    /// Returns the error for a value that has no fields.
    fn rejected<E: de::Error>(&self, found: &str) -> E {
        let otherwise = match self.off {
            Some(_) => "\"off\"",
            None => "leave it out",
        };
        E::custom(format!(
            "`{found}` sets nothing: write the fields to set, or {otherwise}"
        ))
    }
}

impl<'de, T: Deserialize<'de>, V> Visitor<'de> for Fields<T, V> {
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields with values")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V, A::Error> {
        T::deserialize(MapAccessDeserializer::new(NotedMap::new(fields))).map(self.on)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V, E> {
        match self.off {
            Some(off) if text.trim() == OFF => Ok(off()),
            _ => Err(self.rejected(text)),
        }
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<V, E> {
        Err(self.rejected(&flag.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<V, E> {
        Err(self.rejected(&number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<V, E> {
        Err(self.rejected(&number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<V, E> {
        Err(self.rejected(&decimal(number)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<V, E> {
        Err(self.rejected(EMPTY))
    }

    fn visit_none<E: de::Error>(self) -> Result<V, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V, D::Error> {
        self.read(deserializer)
    }
}

/// A visitor that reads one of several shapes `T` as a `V`.
struct Choice<T, V> {
    /// The value of `"off"`, if none of the shapes has that name.
    off: Option<fn() -> V>,
    on: fn(T) -> V,
}

impl<'de, T: Deserialize<'de>, V> Choice<T, V> {
    fn new(off: Option<fn() -> V>, on: fn(T) -> V) -> Self {
        Self { off, on }
    }

    fn read<D: Deserializer<'de>>(self, deserializer: D) -> Result<V, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, V> Visitor<'de> for Choice<T, V> {
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name, or a name with its fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(self.on)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V, E> {
        let name = text.trim();
        if let (Some(off), OFF) = (self.off, name) {
            return Ok(off());
        }
        let alone = T::deserialize(name.into_deserializer());
        let read = alone.or_else(|_: E| {
            let fields = std::iter::once((name, NoFields(PhantomData)));
            T::deserialize(MapAccessDeserializer::new(MapDeserializer::new(fields)))
        });
        read.map(self.on)
    }

    /// Reads a flag as a name, so that the error lists the valid names.
    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<V, E> {
        self.visit_str(&flag.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<V, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<V, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<V, E> {
        self.visit_str(&decimal(number))
    }

    fn visit_unit<E: de::Error>(self) -> Result<V, E> {
        self.visit_str(EMPTY)
    }

    fn visit_none<E: de::Error>(self) -> Result<V, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V, D::Error> {
        self.read(deserializer)
    }
}

/// The fields of a shape of which only the name was written.
struct NoFields<E>(PhantomData<E>);

impl<'de, E: de::Error> Deserializer<'de> for NoFields<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        let none = std::iter::empty::<(&str, &str)>();
        visitor.visit_map(MapDeserializer::new(none))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de, E: de::Error> IntoDeserializer<'de, E> for NoFields<E> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The value that turns something off in a file.
pub(super) const OFF: &str = "off";
