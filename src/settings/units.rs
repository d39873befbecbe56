//! Values that a file writes with their unit.

use std::{fmt, marker::PhantomData, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use crate::{
    algorithm::{Rate, Window},
    settings::text,
};

/// A duration, written `"250ms"`, `"1.5s"`, `"2m"` or `"1h 30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HumanDuration(pub Duration);

/// A rate, written `"100/s"`, `"1000/h"`, `"1/day"` or `"500/10s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanRate(pub Rate);

/// A circuit breaker's window, written `"10s"` or `"100 calls"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanWindow(pub Window);

/// A share from 0 to 1, written `"50%"` or `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Share(pub f64);

/// A setting that can be turned off, which is written `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OrOff<T> {
    /// Not there.
    #[default]
    Off,
    /// There, with this value.
    On(T),
}

/// Reads a value from its text, or from a number.
trait Human: Sized {
    const EXPECTED: &'static str;

    fn read(text: &str) -> Result<Self, String>;

    fn number(number: f64, text: &str) -> Result<Self, String>;

    fn write(&self) -> String;
}

impl Human for HumanDuration {
    const EXPECTED: &'static str = "a duration such as \"250ms\" or \"1.5s\"";

    fn read(text: &str) -> Result<Self, String> {
        text::duration(text).map(Self)
    }

    fn number(_: f64, text: &str) -> Result<Self, String> {
        Err(text::unitless(text))
    }

    fn write(&self) -> String {
        text::write_duration(self.0)
    }
}

impl Human for HumanRate {
    const EXPECTED: &'static str = "a rate such as \"100/s\" or \"1000/h\"";

    fn read(text: &str) -> Result<Self, String> {
        text::rate(text).map(Self)
    }

    fn number(_: f64, text: &str) -> Result<Self, String> {
        let error = format!("`{text}` does not say in how long: write {text}/s or {text}/h");
        Err(error)
    }

    fn write(&self) -> String {
        text::write_rate(self.0)
    }
}

impl Human for HumanWindow {
    const EXPECTED: &'static str = "a window such as \"10s\" or \"100 calls\"";

    fn read(text: &str) -> Result<Self, String> {
        text::window(text).map(Self)
    }

    fn number(_: f64, text: &str) -> Result<Self, String> {
        Err(format!(
            "`{text}` has no unit: write {text}s or {text} calls"
        ))
    }

    fn write(&self) -> String {
        text::write_window(self.0)
    }
}

impl Human for Share {
    const EXPECTED: &'static str = "a share such as \"50%\" or 0.5";

    fn read(text: &str) -> Result<Self, String> {
        text::share(text).map(Self)
    }

    fn number(number: f64, text: &str) -> Result<Self, String> {
        text::checked_share(number, text).map(Self)
    }

    fn write(&self) -> String {
        text::write_share(self.0)
    }
}

struct HumanVisitor<T>(PhantomData<T>);

impl<T: Human> Visitor<'_> for HumanVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::read(text).map_err(E::custom)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a share is at most 1, all else an error"
    )]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::number(number as f64, &number.to_string()).map_err(E::custom)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a share is at most 1, all else an error"
    )]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        T::number(number as f64, &number.to_string()).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        T::number(number, &number.to_string()).map_err(E::custom)
    }
}

fn read<'de, T: Human, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(HumanVisitor(PhantomData))
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.write())
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl Serialize for HumanRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.write())
    }
}

impl<'de> Deserialize<'de> for HumanRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl Serialize for HumanWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.write())
    }
}

impl<'de> Deserialize<'de> for HumanWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.write())
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Rate> for HumanRate {
    fn from(rate: Rate) -> Self {
        Self(rate)
    }
}

impl From<f64> for Share {
    fn from(share: f64) -> Self {
        Self(share)
    }
}

impl<T: Copy> OrOff<T> {
    /// The value, if it is not turned off.
    #[must_use]
    pub fn on(&self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(*value),
        }
    }
}

impl<T> From<Option<T>> for OrOff<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Off, Self::On)
    }
}

impl<T: Serialize> Serialize for OrOff<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OffVisitor(PhantomData))
    }
}

struct OffVisitor<T>(PhantomData<T>);

impl<T> OffVisitor<T> {
    fn on<'de, E: de::Error>(value: impl de::IntoDeserializer<'de, E>) -> Result<OrOff<T>, E>
    where
        T: Deserialize<'de>,
    {
        T::deserialize(value.into_deserializer()).map(OrOff::On)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for OffVisitor<T> {
    type Value = OrOff<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or \"off\"")
    }

    fn visit_unit<E: de::Error>(self) -> Result<OrOff<T>, E> {
        Ok(OrOff::Off)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OrOff<T>, E> {
        if text == "off" {
            return Ok(OrOff::Off);
        }
        Self::on(text)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<OrOff<T>, E> {
        if value {
            return Err(E::custom("`true` is no value: write the value, or \"off\""));
        }
        Ok(OrOff::Off)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<OrOff<T>, E> {
        Self::on(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<OrOff<T>, E> {
        Self::on(number)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<OrOff<T>, E> {
        Self::on(number)
    }
}
